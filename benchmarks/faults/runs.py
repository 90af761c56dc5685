"""Whole runs of the `nano` recipe against a store that fails now and then, each drawn by a seed.

A run may end with the right model or with exit status 1 and the cause; done again without faults it ends with the
right model, and whatever is committed is what it says.
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.kinds import Kind
from benchmarks.faults.proxy import Order
from benchmarks.faults.trials import Outcome, new_proxy
from benchmarks.visible import visible_damage
from infra.seaweedfs import BUCKET
from infra.store import open_store
from tests.seaweedfs import SeaweedFS

KINDS: tuple[Kind, ...] = (
    *("503", "slow down", "reset", "cut upload", "cut download", "lost response"),
    *("flipped upload", "flipped download", "full disk", "read-only key", "ignored condition"),
)
"""Without stalls, each of which takes a minute."""
BURST = 12
RUN_SECONDS = 600
PROJECT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-c", "from flows.cli import main; main()", "run", "nano", "--json")
SMALL = ("--set", "baselines=[]", "--set", "evaluate.tasks=[]")


@dataclass(frozen=True)
class RunResult:
    """What became of a run."""

    kind: Kind
    seed: int
    outcome: Outcome
    injected: int
    said: str = ""


def run_runs(count: int, server: SeaweedFS, scratch: Path) -> Iterator[RunResult]:
    """The results of `count` runs, after one without faults that says which model is right."""
    expected = _digest(_run(server.endpoint_url, "undisturbed", server, scratch))
    for seed in range(count):
        yield _spoiled(KINDS[seed % len(KINDS)], seed, expected, server, scratch)


def _spoiled(kind: Kind, seed: int, expected: str, server: SeaweedFS, scratch: Path) -> RunResult:
    draw = random.Random(seed)
    lasting = kind in ("full disk", "read-only key", "ignored condition")
    skip = 0 if kind == "ignored condition" else draw.randrange(40)
    order = Order(kind, skip, 10**6 if lasting else draw.randint(1, BURST), draw)
    proxy = new_proxy(server)
    proxy.arm(order)
    done = _run(proxy.url, f"run-{seed}", server, scratch)
    proxy.close()
    said = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else ""

    def result(outcome: Outcome, why: str = "") -> RunResult:
        return RunResult(kind, seed, outcome, order.injected, f"{why} {said}".strip())

    if done.returncode not in (0, 1):
        return result("lost", f"exit status {done.returncode}")
    if done.returncode == 0 and _digest(done) != expected:
        return result("lost", "another model came out")
    if done.returncode == 1 and not json.loads(done.stdout).get("error"):
        return result("lost", "no cause was told")
    if faults := _visible_damage(f"run-{seed}", server):
        return result("lost", f"committed and damaged: {faults}")
    again = _run(server.endpoint_url, f"run-{seed}", server, scratch)
    if again.returncode != 0 or _digest(again) != expected:
        return result("lost", f"again without faults: {again.stderr[-300:]}")
    if not order.injected:
        return result("not met")
    return result("said" if done.returncode else "right")


def _run(url: str, name: str, server: SeaweedFS, scratch: Path) -> "subprocess.CompletedProcess[str]":
    environment = {
        **os.environ,
        **server.environment(),
        "AWS_ENDPOINT_URL": url,
        "AWS_MAX_ATTEMPTS": "2",
        "FORGETTING_STATE_DIR": str(scratch / name),
        "FORGETTING_STORE": f"s3://{BUCKET}/{name}",
        "PYTHONPATH": str(PROJECT),
    }
    return subprocess.run(
        [*COMMAND, *SMALL],
        env=environment,
        cwd=scratch,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
    )


def _digest(done: "subprocess.CompletedProcess[str]") -> str:
    """Content digest of the final model."""
    return str(json.loads(done.stdout)["steps"]["forget"]["digest"]) if done.returncode == 0 else done.stderr


def _visible_damage(name: str, server: SeaweedFS) -> list[str]:
    os.environ.update(server.environment())
    return visible_damage(open_store(f"s3://{BUCKET}/{name}").objects)
