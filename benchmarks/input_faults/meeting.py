"""Lets the code meet a case: the steps of its recipe in this process, in one folder, until one refuses.

These are the steps' own computations on the recipe's own DAG, without a store, servers and processes, which have
nothing to do with whether input is understood.
"""

from collections.abc import Mapping
from contextlib import chdir
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.input_faults.case import RECIPE, Case
from flows.dag import Input, Node, walk
from flows.sources import RecipeSources
from forgetting_core.config import ExecutionConfig
from forgetting_core.errors import InputError
from forgetting_core.progress import Progress
from forgetting_core.recipe import load_recipe
from infra.digests import DigestCache
from infra.errors import SourceError
from infra.objects import StoreError
from infra.settings import SettingError
from infra.sources import Ref, Sources
from tasks.child import Job
from tasks.spec import StepCall

MENDABLE = (InputError, SourceError, SettingError, StoreError)
"""What the command line prints as one `error:` line."""


def meet(case: Case, folder: Path) -> str | None:
    """What the user is told of `case`, made in the empty `folder`; None when nothing is found wrong.

    Raises whatever else comes out of the code: that is what a case is to show does not happen.
    """
    case.make(folder)
    with chdir(folder):
        try:
            run(folder)
        except MENDABLE as error:
            return str(error)
    return None


def run(folder: Path) -> None:
    """All steps of `recipe.yaml` but the report. Raises what they raise."""
    recipe = load_recipe(folder / RECIPE)
    steps = Steps(folder / "steps")
    walk(recipe, steps)
    steps.compute(recipe.execution)


def lost(says: tuple[str, ...], message: str | None) -> str | None:
    """What `message` lacks as an answer to a case that must be told by `says`; None when nothing."""
    if message is None:
        return "accepted in silence"
    missing = [part for part in says if part not in message]
    return f"does not say {', '.join(map(repr, missing))}: {message}" if missing else None


@dataclass
class Step:
    """One step to compute, and the folder of its artifact."""

    call: StepCall
    inputs: Mapping[str, Input]
    out: Path
    depth: int = field(init=False)

    def __post_init__(self) -> None:
        above = (value.handle.depth for value in self.inputs.values() if isinstance(value, Node))
        self.depth = 1 + max(above, default=0)


class Steps(RecipeSources):
    """Collects the steps of a walk; those that need least come first when they are computed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        super().__init__(Sources(DigestCache(folder / "digests.sqlite"), folder / "raw", fetch=True))
        self._folder = folder
        self._steps: list[Step] = []

    def step(self, call: StepCall, inputs: Mapping[str, Input]) -> Node:
        """See `Walker.step`."""
        step = Step(call, inputs, self._folder / call.label / "output")
        if not call.spec.about_run:
            self._steps.append(step)
        return Node(step)

    def compute(self, execution: ExecutionConfig) -> None:
        """All of them. Raises what they raise."""
        for step in sorted(self._steps, key=lambda step: step.depth):
            paths: dict[str, tuple[Path, ...]] = {}
            digests: dict[str, str] = {}
            for name, value in step.inputs.items():
                if isinstance(value, Ref):
                    paths[name], digests[name] = value.local, value.digest
                elif isinstance(value, Node) and (made := value.handle.out / (value.part or "")).exists():
                    paths[name] = (made,)
            for missing in step.inputs.keys() - paths.keys() - set(step.call.spec.optional):
                raise InputError(f"{step.call.label}: its input `{missing}` is empty")
            step.out.mkdir(parents=True)
            work = step.out.with_name("work")
            job = Job(step.call.spec.compute, dict(step.call.config), paths, digests, step.out, work, execution)
            step.call.spec.compute(job, Progress())
