"""Where the trials take place: one stack of real servers, a gate before its store, and how runs go undisturbed.

For each number of ranks there is one store. A trial finds in it what comes before its first step; so it is the same
whatever was tried before, and takes seconds.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from benchmarks.kills.gate import Gate, Write
from benchmarks.kills.runs import CommandRun, PoolRun, Run
from benchmarks.kills.trial import STEPS, Trial
from infra.inventory import COMMITS, read_records
from infra.lease import LEASES
from infra.objects import Objects
from infra.provenance import provenance
from infra.seaweedfs import BUCKET
from infra.training_checkpoints import TRAINING
from infra.urls import open_objects
from tests.stack import PROJECT, Running, running_stack

RECIPE = "nano"
SMALL = ("baselines=[]", "evaluate.tasks=[]", "forget.epochs=40", "execution.checkpoint_every=40")
"""A fine-tune of seconds, with checkpoints on the way."""
LEASE_SECONDS = 10
"""Until the work of a command that was killed is taken over; on the pool it is a minute."""
RUN_SECONDS = 1200.0
"""A run whose worker was killed before it began is handed out again after ten minutes."""
POLL_SECONDS = 0.05
SERVERS = ("seaweedfs", "mlflow", "prefect")


@dataclass(frozen=True)
class Undisturbed:
    """A run of everything that was left alone."""

    digests: Mapping[str, str]
    """{step: content digest}"""
    began: float
    ended: float
    writes: tuple[Write, ...]

    def seconds_from(self, first_step: str) -> float:
        """How long a run takes that finds the steps before in the store."""
        _, begins = self._begin(first_step)
        return self.ended - begins + self.writes[0].at - self.began

    def writes_from(self, first_step: str) -> int:
        """How often it writes."""
        done, _ = self._begin(first_step)
        return len(self.writes) - done

    def _begin(self, first_step: str) -> tuple[int, float]:
        """(writes, moment) until the steps before `first_step` are committed."""
        before = tuple(f"/{COMMITS}/{step}/" for step in STEPS[: STEPS.index(first_step)])
        commits = [
            (number, write.at)
            for number, write in enumerate(self.writes, 1)
            if any(folder in write.target for folder in before)
        ]
        return commits[-1] if commits else (0, self.writes[0].at)


class World:
    """The stack, and what a trial does with it."""

    def __init__(self, stack: Running, gate: Gate, folder: Path) -> None:
        self.stack = stack
        self.gate = gate
        self.folder = folder
        self.run: Run | None = None
        """The last one that was started."""
        self.undisturbed: Callable[[int], Undisturbed] = cache(self._leave_alone)
        by = provenance()
        self.code = f"{(by['git_commit'] or 'unknown')[:7]}{'+' if by['git_dirty'] else ''}"

    @property
    def state_dirs(self) -> tuple[Path, Path]:
        """Those of commands and of the worker's runs."""
        return self.folder / "state", self.stack.folder / "state"

    def store(self, ranks: int) -> str:
        """The address of the store of trials with so many ranks."""
        return f"s3://{BUCKET}/kills-{ranks}"

    def objects(self, ranks: int) -> Objects:
        """What is in it, seen past the gate."""
        return open_objects(self.store(ranks))

    def reset(self, trial: Trial) -> None:
        """The store as the trial finds it, and nothing begun on this machine."""
        objects = self.objects(trial.ranks)
        for step in STEPS[STEPS.index(trial.first_step) :]:
            objects.delete_folder(f"{COMMITS}/{step}")
        for folder in (TRAINING, LEASES):
            objects.delete_folder(folder)
        for state in self.state_dirs:
            shutil.rmtree(state / "work" / "steps", ignore_errors=True)

    def start(self, ranks: int, on_pool: bool) -> Run:
        """A run of the recipe."""
        overrides = [*SMALL, f"execution.processes={ranks}"]
        if on_pool:
            parameters = {"recipe": RECIPE, "overrides": overrides, "store": self.store(ranks)}
            self.run = PoolRun(self.stack, parameters)
        else:
            given = [word for item in overrides for word in ("--set", item)]
            arguments = [RECIPE, *given, "--store", self.store(ranks)]
            self.run = CommandRun(arguments, self._environment(), self.folder)
        return self.run

    def digests(self, ranks: int) -> dict[str, str]:
        """{step: content digest} of what the store's commits name."""
        records = read_records(self.objects(ranks), COMMITS)
        return {record.label: record.commit.digest for record in records}

    def mend(self) -> None:
        """Start what of the stack does not run, as its user would."""
        self.stack.cli("up")

    def _leave_alone(self, ranks: int) -> Undisturbed:
        self.gate.watch()
        began = time.monotonic()
        run = self.start(ranks, on_pool=False)
        if not wait(run.over, RUN_SECONDS) or not run.completed():
            run.give_up()
            raise RuntimeError(f"the run that was left alone did not complete: {run.said()}")
        return Undisturbed(self.digests(ranks), began, time.monotonic(), tuple(self.gate.writes))

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "AWS_ENDPOINT_URL": self.gate.url,
            "FORGETTING_STATE_DIR": str(self.state_dirs[0]),
            "FORGETTING_LEASE_TTL": str(LEASE_SECONDS),
            "PREFECT_HOME": str(self.folder / "prefect-client"),
        }


@contextmanager
def open_world(folder: Path) -> Iterator[World]:
    """A world below a new folder, without GPUs: there results are not the same to the last bit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        # of a tiny model; with more, several stacks spend their time waiting for each other's threads
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", str(PROJECT))
        with running_stack(folder / "stack") as stack:
            gate = Gate(stack.environment["AWS_ENDPOINT_URL"], lambda request: request, stall_seconds=0)
            (folder / "runs").mkdir()
            world = World(stack, gate, folder / "runs")
            try:
                yield world
            finally:
                if world.run is not None:
                    world.run.give_up()
                gate.close()


def wait(for_: Callable[[], bool], seconds: float, every: float = POLL_SECONDS) -> bool:
    """Whether it comes true within so many seconds, asked `every` so many."""
    deadline = time.monotonic() + seconds
    while not for_():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True
