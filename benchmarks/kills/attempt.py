"""One trial from its beginning to its end: disturb a run, do it again if need be, see what is left."""

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

import psutil

from benchmarks.kills.runs import Run
from benchmarks.kills.trial import Trial, Victim
from benchmarks.kills.world import POLL_SECONDS, RUN_SECONDS, World, wait
from benchmarks.visible import visible_damage
from infra.lease import Leases
from infra.training_checkpoints import TRAINING
from tests.stack import family, names_below, remaining

Outcome = Literal["went on", "again", "lost", "not met"]
"""`went on`: the run completed itself. `again`: the next one did. `not met`: it was over before the moment came."""
SERVICES: dict[Victim, str] = {
    "worker": "gpu-worker",
    "mlflow": "mlflow",
    "prefect": "prefect",
    "s3": "seaweedfs",
}
END_SECONDS = 30.0
"""In which a process that was asked to end has to."""
GONE_SECONDS = 30.0
"""Until nothing of a run that is over runs or holds a lease."""
LOOK_SECONDS = 0.5
"""Between two looks at everything that runs, or that the store holds."""


@dataclass(frozen=True)
class Result:
    """What became of a trial."""

    trial: Trial
    outcome: Outcome
    said: str
    began: float
    """Seconds since 1970."""
    ended: float
    code: str
    """The commit, and `+` where it was changed."""


def attempt(trial: Trial, world: World) -> Result:
    """Do the trial; one that comes too late once more, earlier."""
    result = _attempt(trial, world)
    if result.outcome == "not met":
        result = _attempt(replace(trial, moment=trial.moment / 2), world)
    return replace(result, trial=trial)


def _attempt(trial: Trial, world: World) -> Result:
    began = time.time()
    usual = world.undisturbed(trial.ranks)
    world.reset(trial)
    held = int(trial.moment * usual.writes_from(trial.first_step)) if trial.at_write else None
    world.gate.watch(held, answered=trial.answered)
    run = world.start(trial.ranks, trial.on_pool)
    try:
        groups = _disturb(trial, run, world, trial.moment * usual.seconds_from(trial.first_step))
    finally:
        world.gate.release()
    met = groups is not None

    def result(outcome: Outcome, said: str) -> Result:
        return Result(trial, outcome, said.replace(f"{world.folder.parent}/", ""), began, time.time(), world.code)

    if not wait(run.over, RUN_SECONDS):
        run.give_up()
        return result("lost", f"it did not end within {RUN_SECONDS:.0f} s: {run.said()}")
    first = run.said()
    went_on = run.completed()
    if not went_on:
        run = world.start(trial.ranks, trial.on_pool)
        if not wait(run.over, RUN_SECONDS) or not run.completed():
            run.give_up()
            return result("lost", f"the next run did not complete: {run.said()}; the first: {first}")
    if faults := _faults(trial, world, groups or set()):
        return result("lost", "; ".join(faults))
    return result("not met" if not met else "went on" if went_on else "again", first)


def _disturb(trial: Trial, run: Run, world: World, seconds: float) -> set[int] | None:
    """Kill the victim when its moment comes; the process groups of the run then, None when it never came."""
    service = psutil.Process(world.stack.pid(SERVICES[trial.victim])) if trial.victim in SERVICES else None
    if not wait(lambda: run.flow() is not None or run.over(), RUN_SECONDS) or run.over():
        return None
    deadline = time.monotonic() + seconds
    while not (world.gate.reached.is_set() if trial.at_write else time.monotonic() > deadline):
        if run.over():
            return None
        time.sleep(POLL_SECONDS)
    victims = _victims(trial, run, service)
    if not victims:  # such as a step's process while another step is published
        world.gate.release()
        if not wait(lambda: bool(_victims(trial, run, service)) or run.over(), RUN_SECONDS):
            return None
        time.sleep(trial.delay)
        victims = _victims(trial, run, service)
    groups = _groups(run)
    if not victims or not groups:
        return None
    _kill(trial, victims)
    world.gate.release()
    if trial.victim in SERVICES:
        time.sleep(trial.pause)
        world.mend()
    return groups


def _victims(trial: Trial, run: Run, service: psutil.Process | None) -> list[psutil.Process]:
    """The process that the trial is about; with a server those that it started."""
    flow = run.flow()
    with suppress(psutil.NoSuchProcess, ProcessLookupError):
        if service is not None:
            return [service] if trial.victim == "worker" else family(service)
        if flow is None or trial.victim == "flow":
            return [flow] if flow else []
        below = flow.children(recursive=True)
        if trial.victim == "rank":
            ranks = [process for process in below if process.environ().get("RANK") == str(trial.seed % trial.ranks)]
            return ranks[:1]
        return [process for process in below if os.getpgid(process.pid) == process.pid][:1]
    return []


def _groups(run: Run) -> set[int]:
    flow = run.flow()
    found = set()
    with suppress(psutil.NoSuchProcess):
        for process in family(flow) if flow else []:
            with suppress(ProcessLookupError):
                found.add(os.getpgid(process.pid))
    return found


def _kill(trial: Trial, victims: list[psutil.Process]) -> None:
    for process in victims:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(trial.signal)
    if trial.victim in SERVICES:
        _, alive = psutil.wait_procs(victims, END_SECONDS)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        psutil.wait_procs(alive, END_SECONDS)


def _faults(trial: Trial, world: World, groups: set[int]) -> list[str]:
    """What is not as if nothing had happened, now that a run has completed."""
    objects = world.objects(trial.ranks)
    usual, found = world.undisturbed(trial.ranks).digests, world.digests(trial.ranks)
    faults = [f"{step} came out as {found.get(step)}" for step in usual if found.get(step) != usual[step]]
    faults += visible_damage(objects)
    faults += [f"a training checkpoint is left: {name}" for name in names_below(objects, TRAINING)]
    leases = Leases(objects, ttl=1)
    if not wait(lambda: not leases.at_work(), GONE_SECONDS, every=LOOK_SECONDS):
        faults += [f"a lease is held: {holder}" for holder in leases.at_work().values()]

    def left() -> list[str]:
        return [line for folder in world.state_dirs for line in remaining(groups, folder)]

    if not wait(lambda: not left(), GONE_SECONDS, every=LOOK_SECONDS):
        faults += [f"a process is left: {line}" for line in left()]
    return faults
