"""What becomes true only some time after a kill, looked at once for all trials.

Prefect's server calls a run dead that has been silent for a minute and a half; until then MLflow cannot be told,
and a slot of the GPU's limit is held. Then `forgetting lineage --relink` closes what the next run did not.
"""

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from prefect.client.schemas.filters import FlowRunFilter

from benchmarks.kills.attempt import Result
from benchmarks.kills.runs import ASK_SECONDS, COMMAND
from benchmarks.kills.world import World, wait

SETTLE_SECONDS = 300.0
UNFINISHED = FlowRunFilter.model_validate(
    {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING", "PAUSED", "SCHEDULED"]}}}
)


def settle(results: Sequence[Result], world: World) -> tuple[list[Result], list[str]]:
    """The results, those lost that left something in Prefect or MLflow; and what belongs to none of them."""
    stack = world.stack
    wait(lambda: not (_unfinished(world) or stack.gpu_slots), SETTLE_SECONDS, every=ASK_SECONDS)
    faults = [(when, f"Prefect calls its run {name}") for when, name in _unfinished(world)]
    strays = [f"{stack.gpu_slots} slots are held"] if stack.gpu_slots else []
    for ranks in {result.trial.ranks for result in results}:
        strays += _relink(world, ranks)
    for run in stack.in_mlflow("attributes.status = 'RUNNING'"):
        faults.append((run.info.start_time / 1000, f"MLflow shows {run.info.run_name} as running"))
    settled = list(results)
    for when, fault in faults:
        of = [number for number, result in enumerate(settled) if result.began <= when <= result.ended]
        for number in of:
            settled[number] = replace(settled[number], outcome="lost", said=fault)
        strays += [] if of else [fault]
    return settled, strays


def _unfinished(world: World) -> list[tuple[float, str]]:
    """(seconds since 1970, state) of the flow runs that Prefect does not call over."""

    def find() -> Iterator[tuple[float, str]]:
        runs: Any = world.stack.client.read_flow_runs(flow_run_filter=UNFINISHED)
        for run in runs:
            # of a schedule, some day
            if not run.auto_scheduled:
                yield run.created.timestamp(), run.state_name

    return list(find())


def _relink(world: World, ranks: int) -> list[str]:
    command = [*COMMAND, "lineage", "--relink", "--store", world.store(ranks)]
    done = subprocess.run(command, cwd=world.folder, capture_output=True, text=True)
    said = (done.stdout + done.stderr)[-300:]
    return [f"`lineage --relink` ended with {done.returncode} and said: {said}"] if done.returncode else []
