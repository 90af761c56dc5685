"""`forgetting explain`: one step against what the recipe's last completed run used, down to the root causes.

Reads only; imports neither torch nor Prefect.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from flows.plan import PlannedStep, PlanWalker, walk_plan
from flows.recipes import find_recipe
from forgetting_core.config import ExecutionConfig
from forgetting_core.errors import InputError
from forgetting_core.recipe import load_recipe
from infra.explain import Comparison, InputChange, compare, earlier_commit
from infra.plan import Reason


@dataclass(frozen=True)
class ExplainedStep:
    """A planned step and its comparison."""

    planned: PlannedStep
    comparison: Comparison | None
    """None: the store holds no earlier result of this step."""
    is_last: bool
    """Compared with what the recipe's last completed run used, not with the nearest earlier commit."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Differing inputs by name, with the step that they come from."""

    @property
    def own_reasons(self) -> list[Reason]:
        """Why the step differs, apart from the steps before it."""
        reasons = self.planned.assessment.reasons
        if self.comparison is None:
            return [reason for reason in reasons if reason.field not in self.sources]
        inputs = [
            Reason("input", change.name, change.old, change.unknown or change.new)
            for change in self.comparison.inputs
            if change.differs and change.name not in self.sources
        ]
        missing = [reason for reason in reasons if reason.kind == "missing"]
        return [*missing, *self.comparison.config, *self.comparison.code, *inputs]

    def as_json(self) -> dict[str, Any]:
        """Its part of `explain --json`."""
        return {
            "step": self.planned.label,
            "state": self.planned.assessment.state,
            "reasons": [asdict(reason) for reason in self.own_reasons],
            "upstream": sorted(set(self.sources.values())),
        }


@dataclass(frozen=True)
class Explanation:
    """The whole answer."""

    recipe: str
    target: ExplainedStep
    upstream: list[ExplainedStep]
    """The steps because of which its inputs differ or may differ, in the order in which they run."""

    @property
    def root_causes(self) -> list[tuple[Reason, list[str]]]:
        """Every reason that is no consequence of another, with the steps that it concerns."""
        causes: list[tuple[Reason, list[str]]] = []
        for step in [*self.upstream, self.target]:
            for reason in step.own_reasons:
                steps = next((steps for known, steps in causes if known == reason), None)
                if steps is None:
                    causes.append((reason, steps := []))
                steps.append(step.planned.label)
        return causes

    def as_json(self) -> dict[str, Any]:
        """The form of `explain --json`."""
        target, comparison = self.target, self.target.comparison
        return {
            **target.as_json(),
            "recipe": self.recipe,
            "fingerprint": target.planned.assessment.fingerprint,
            "compared_with": _compared_with(target),
            "config": {
                "changed": [asdict(reason) for reason in comparison.config],
                "unchanged": comparison.unchanged,
            }
            if comparison
            else None,
            "inputs": [_input_json(change, target) for change in comparison.inputs] if comparison else None,
            "execution_ignored": [asdict(reason) for reason in comparison.execution] if comparison else None,
            "because": [step.as_json() for step in self.upstream],
            "root_causes": [{**asdict(cause), "steps": steps} for cause, steps in self.root_causes],
        }


def explain(step: str, recipe: str, overrides: Sequence[str] = (), store: str | None = None) -> Explanation:
    """The comparison of `step`, a label such as `score[base]`. Raises `InputError` for an unknown one."""
    loaded = load_recipe(find_recipe(recipe), overrides)
    walker = walk_plan(loaded, store)
    steps = {planned.label: planned for planned in walker.steps}
    if step not in steps:
        raise InputError(f"no step {step} in recipe {loaded.name}; its steps are {', '.join(steps)}")
    target = _explain_step(steps[step], walker, loaded.execution)
    reached = _reached(target, walker, loaded.execution)
    upstream = [reached[label] for label in steps if label in reached and label != step]
    return Explanation(loaded.name, target, upstream)


def _explain_step(planned: PlannedStep, walker: PlanWalker, execution: ExecutionConfig) -> ExplainedStep:
    last = walker.last.get(planned.label)
    now: dict[str, Any] = {
        "version": planned.call.spec.version,
        "config": planned.call.identity,
        "inputs": planned.inputs,
        "unknown": planned.unknown,
    }
    earlier = earlier_commit(walker.store, step=planned.call.spec.name, last=last, **now)
    if earlier is None:
        sources = {name: upstream.label for name, upstream in planned.upstream.items() if name in planned.unknown}
        return ExplainedStep(planned, None, False, sources)
    comparison = compare(earlier, execution=execution.model_dump(), **now)
    differing = {change.name for change in comparison.inputs if change.differs}
    sources = {name: upstream.label for name, upstream in planned.upstream.items() if name in differing}
    return ExplainedStep(planned, comparison, earlier.fingerprint == last, sources)


def _reached(target: ExplainedStep, walker: PlanWalker, execution: ExecutionConfig) -> dict[str, ExplainedStep]:
    """The steps that differing inputs lead back to, by label."""
    found: dict[str, ExplainedStep] = {}
    waiting = [target]
    while waiting:
        for planned in _sources(waiting.pop()):
            if planned.label not in found:
                found[planned.label] = _explain_step(planned, walker, execution)
                waiting.append(found[planned.label])
    return found


def _sources(step: ExplainedStep) -> Iterator[PlannedStep]:
    return (step.planned.upstream[name] for name in step.sources)


def _compared_with(step: ExplainedStep) -> dict[str, Any] | None:
    if step.comparison is None:
        return None
    earlier = step.comparison.earlier
    return {
        "basis": "last_run" if step.is_last else "nearest",
        "step": earlier.provenance.get("label", earlier.step),
        "fingerprint": earlier.fingerprint,
        "uri": earlier.uri,
        "started": earlier.provenance.get("started"),
    }


def _input_json(change: InputChange, step: ExplainedStep) -> dict[str, Any]:
    return {**asdict(change), "differs": change.differs, "from": step.sources.get(change.name)}
