"""`forgetting plan`: walks the DAG by looking fingerprints up. Reads only; imports neither torch nor Prefect."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from flows.dag import Input, Node, walk
from flows.recipes import find_recipe
from flows.sources import RecipeSources
from forgetting_core.config import Recipe
from forgetting_core.recipe import load_recipe
from infra.digests import DigestCache
from infra.lease import Leases
from infra.plan import Assessment, Earlier, assess
from infra.settings import Settings
from infra.sources import Ref, Sources, Unresolved
from infra.store import Store
from infra.urls import open_objects
from tasks.source import CodeIdentity, code_changes, code_warnings, identified
from tasks.spec import StepCall


@dataclass(frozen=True)
class PlannedStep:
    """A step of the plan."""

    label: str
    step: str
    """Name of the step's kind."""
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


def plan(
    recipe: str,
    overrides: Sequence[str] = (),
    store: str | None = None,
    code_identity: CodeIdentity = "version",
) -> list[PlannedStep]:
    """What `forgetting run` with the same arguments would do. Raises `InputError` for a wrong recipe."""
    return walk_plan(load_recipe(find_recipe(recipe), overrides), store, code_identity).steps


def walk_plan(loaded: Recipe, store: str | None, code_identity: CodeIdentity = "version") -> "PlanWalker":
    """Every step of a recipe assessed."""
    settings = Settings.from_environment(store=store, work_dir=loaded.execution.work_dir)
    objects = open_objects(settings.store_url)
    opened = Store(objects)
    sources = Sources(DigestCache(settings.digest_cache, read_only=True), settings.work_dir / "raw", fetch=False)
    leases = Leases(objects, settings.lease_ttl)
    walker = PlanWalker(sources, opened, leases, opened.read_head(loaded.name) or {}, code_identity)
    walk(loaded, walker)
    return walker


def plan_warnings(steps: Sequence[PlannedStep]) -> list[str]:
    """Cached steps whose code has changed without a new version."""
    return code_warnings(
        (step.step, step.label, step.assessment.reasons) for step in steps if step.assessment.state == "cached"
    )


class PlanWalker(RecipeSources):
    """Assesses every step; what a step without a commit would produce is unknown to those below it."""

    def __init__(
        self,
        sources: Sources,
        store: Store,
        leases: Leases,
        head: Mapping[str, Any],
        code_identity: CodeIdentity = "version",
    ) -> None:
        super().__init__(sources)
        self.steps: list[PlannedStep] = []
        self.store = store
        self.head = head
        """What the recipe's last completed run used; empty without one."""
        self.last = {label: used["fingerprint"] for label, used in head.get("steps", {}).items()}
        self._leases = leases
        self._earlier = Earlier(store)
        self._code_identity = code_identity

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
            self._leases,
            self._earlier,
            step=call.spec.name,
            version=call.spec.version,
            config=identified(call, self._code_identity).identity,
            inputs=known,
            unknown=unknown,
            last=self.last.get(call.label),
        )
        if assessment.state == "cached" and assessment.commit is not None:
            assessment = replace(assessment, reasons=code_changes(call.spec, assessment.commit))
        upstream = {name: value.handle for name, value in inputs.items() if isinstance(value, Node)}
        planned = PlannedStep(call.label, call.spec.name, assessment, call, known, unknown, upstream)
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
        if commit is None:
            return Unresolved(f"{planned.label} runs first")
        if value.part is None:
            return commit.digest
        output = commit.outputs.get(value.part)
        return output.digest if output else None
