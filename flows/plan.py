"""`forgetting plan`: walks the DAG by looking fingerprints up. Reads only; imports neither torch nor Prefect."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flows.dag import Input, Node, walk
from flows.recipes import find_recipe
from flows.sources import RecipeSources
from forgetting_core.config import Recipe
from forgetting_core.recipe import load_recipe
from infra.digests import DigestCache
from infra.plan import Assessment, assess
from infra.settings import Settings
from infra.sources import Ref, Sources, Unresolved
from infra.store import Store, open_store
from tasks.spec import StepCall


@dataclass(frozen=True)
class PlannedStep:
    """A step of the plan."""

    label: str
    assessment: Assessment
    call: StepCall
    inputs: Mapping[str, str]
    """Content digests by name, where they are known."""
    unknown: Mapping[str, str]
    """Why the content of the other inputs is not known yet."""
    upstream: Mapping[str, "PlannedStep"]
    """The steps that inputs come from."""

    def as_json(self) -> dict[str, Any]:
        """The form of `plan --json`."""
        return {
            "step": self.label,
            "state": self.assessment.state,
            "fingerprint": self.assessment.fingerprint,
            "seconds": self.assessment.last_seconds,
            "reasons": [asdict(reason) for reason in self.assessment.reasons],
        }


def plan(recipe: str, overrides: Sequence[str] = (), store: str | None = None) -> list[PlannedStep]:
    """What `forgetting run` with the same arguments would do. Raises `InputError` for a wrong recipe."""
    return walk_plan(load_recipe(find_recipe(recipe), overrides), store).steps


def walk_plan(loaded: Recipe, store: str | None) -> "PlanWalker":
    """Every step of a recipe assessed."""
    settings = Settings.from_environment(store=store, work_dir=loaded.execution.work_dir)
    opened = open_store(settings.store_url)
    sources = Sources(DigestCache(settings.digest_cache, read_only=True), settings.work_dir / "raw", fetch=False)
    walker = PlanWalker(sources, opened, opened.read_head(loaded.name) or {})
    walk(loaded, walker)
    return walker


class PlanWalker(RecipeSources):
    """Assesses every step; what a step that is not cached would produce is unknown to those below it."""

    def __init__(self, sources: Sources, store: Store, head: Mapping[str, Any]) -> None:
        super().__init__(sources)
        self.steps: list[PlannedStep] = []
        self.store = store
        self.head = head
        """What the recipe's last completed run used; empty without one."""
        self.last = {label: used["fingerprint"] for label, used in head.get("steps", {}).items()}

    def step(self, call: StepCall, inputs: Mapping[str, Input]) -> Node:
        """See `Walker.step`."""
        known: dict[str, str] = {}
        unknown: dict[str, str] = {}
        for name, value in inputs.items():
            match self._content(value):
                case str() as digest:
                    known[name] = digest
                case Unresolved(reason):
                    unknown[name] = reason
        assessment = assess(
            self.store,
            step=call.spec.name,
            version=call.spec.version,
            config=call.identity,
            inputs=known,
            unknown=unknown,
            last=self.last.get(call.label),
        )
        upstream = {name: value.handle for name, value in inputs.items() if isinstance(value, Node)}
        planned = PlannedStep(call.label, assessment, call, known, unknown, upstream)
        self.steps.append(planned)
        return Node(planned)

    def _content(self, value: Input) -> str | Unresolved | None:
        """The content digest of an input, why it is not known, or None for an absent one."""
        if value is None or isinstance(value, Unresolved):
            return value
        if isinstance(value, Ref):
            return value.digest
        planned: PlannedStep = value.handle
        commit = planned.assessment.commit
        if commit is None or planned.assessment.state != "cached":
            return Unresolved(f"{planned.label} runs first")
        if value.part is None:
            return commit.digest
        output = commit.outputs.get(value.part)
        return output.digest if output else None
