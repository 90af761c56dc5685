"""Lets the code meet a case: every step of its recipe in this process, one after the other, in one folder.

The steps' own computations on the recipe's own DAG, without a store, servers and processes, which have nothing to do
with whether input is understood.
"""

import os
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path

from benchmarks.input_faults.case import RECIPE, Case
from flows.dag import Input, Node, walk
from flows.sources import RecipeSources
from forgetting_core.config import Recipe
from forgetting_core.errors import InputError
from forgetting_core.progress import Progress
from forgetting_core.recipe import load_recipe
from infra.digests import DigestCache
from infra.objects import StoreError
from infra.settings import SettingError
from infra.sources import Ref, SourceError, Sources
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
    walk(recipe, InPlace(recipe, folder / "steps"))


def lost(case: Case, message: str | None) -> str | None:
    """What is wrong with `message` as an answer to `case`; None when it says all that it must."""
    if message is None:
        return "accepted in silence"
    missing = [part for part in case.says if part not in message]
    return f"does not say {', '.join(map(repr, missing))}: {message}" if missing else None


class InPlace(RecipeSources):
    """Computes each step as the walk reaches it; its artifact is a folder."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        folder.mkdir()
        super().__init__(Sources(DigestCache(folder / "digests.sqlite"), folder / "raw", fetch=True))
        self._execution = recipe.execution
        self._folder = folder

    def step(self, call: StepCall, inputs: Mapping[str, Input]) -> Node:
        """See `Walker.step`."""
        here = self._folder / call.label
        if call.spec.about_run:
            return Node(here)
        paths: dict[str, tuple[Path, ...]] = {}
        digests: dict[str, str] = {}
        for name, value in inputs.items():
            if isinstance(value, Ref):
                paths[name], digests[name] = value.local, value.digest
            elif isinstance(value, Node) and (made := Path(value.handle, value.part or "")).exists():
                paths[name] = (made,)
        for missing in inputs.keys() - paths.keys() - set(call.spec.optional):
            raise InputError(f"{call.label}: its input `{missing}` is empty")
        os.makedirs(here / "output")
        job = Job(
            call.spec.compute, dict(call.config), paths, digests, here / "output", here / "work", self._execution
        )
        call.spec.compute(job, Progress())
        return Node(here / "output")
