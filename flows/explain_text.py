"""An explanation as a person reads it."""

from collections.abc import Iterator

from flows.explain import ExplainedStep, Explanation
from flows.plan_table import sentence, shown
from infra.explain import Comparison, InputChange

MEANING = {
    "cached": "is in the store and would be used",
    "run": "would run",
    "maybe": "would run, unless its inputs come out as they were in an earlier run",
    "running": "is being computed by another run now",
    "evicted": "would run: its artifact was deleted",
}


def explanation_lines(explanation: Explanation) -> Iterator[str]:
    """State and basis; config, inputs, code and execution; the steps behind differing inputs; root causes."""
    target = explanation.target
    state = target.planned.assessment.state
    yield f"{target.planned.label}: {state} ({MEANING[state]})"
    yield _basis(target, explanation.recipe)
    if target.comparison:
        yield ""
        yield from _comparison(target.comparison, target)
    if explanation.upstream:
        yield ""
        yield "because of"
        for step in explanation.upstream:
            yield from _upstream(step)
    yield ""
    yield from _root_causes(explanation)


def _basis(step: ExplainedStep, recipe: str) -> str:
    if step.comparison is None:
        return "compared with nothing: the store holds no earlier result of this step"
    earlier = step.comparison.earlier
    commit = f"commit {shown(earlier.fingerprint)} of {earlier.provenance.get('started', 'unknown time')}"
    if step.is_last:
        return f"compared with the last completed run of {recipe}: {commit}"
    label = earlier.provenance.get("label", earlier.step)
    return f"compared with the nearest earlier {label}, not with a completed run of {recipe}: {commit}"


def _comparison(comparison: Comparison, step: ExplainedStep) -> Iterator[str]:
    for reason in comparison.config:
        yield f"config   {sentence(reason)}"
    count = comparison.unchanged
    yield f"config   {count} {'other ' if comparison.config else ''}field{'s' * (count != 1)} unchanged"
    width = max((len(change.name) for change in comparison.inputs), default=0)
    for change in comparison.inputs:
        yield f"input    {change.name:<{width}}  {_input(change, step)}"
    version = step.planned.call.spec.version
    yield (
        f"code     {sentence(comparison.code[0])}" if comparison.code else f"code     version {version}, unchanged"
    )
    for reason in comparison.execution:
        yield f"ignored  {sentence(reason)}  (how it is computed, not what)"


def _input(change: InputChange, step: ExplainedStep) -> str:
    old = shown(change.old or "(absent)")
    if not change.differs:
        return f"{old} unchanged"
    source = step.sources.get(change.name)
    if change.unknown:
        return f"{old} → not known yet: {change.unknown}"
    return f"{old} → {shown(change.new or '(absent)')}" + (f"  (from {source})" if source else "")


def _upstream(step: ExplainedStep) -> Iterator[str]:
    yield f"  {step.planned.label}: {step.planned.assessment.state}"
    for reason in step.own_reasons:
        yield f"    {sentence(reason)}"
    if step.sources:
        yield f"    after {', '.join(sorted(set(step.sources.values())))}"


def _root_causes(explanation: Explanation) -> Iterator[str]:
    causes: dict[str, list[str]] = {}
    for cause, labels in explanation.root_causes:
        causes.setdefault(sentence(cause), []).extend(labels)
    if not causes:
        yield "root cause: none, nothing differs"
    for text, labels in causes.items():
        yield f"root cause: {text} ({', '.join(labels)})"
