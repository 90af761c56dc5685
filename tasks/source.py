"""The code behind a step: what its commits record of it, and how it has changed since a commit.

A step's `version` is raised by hand; this is what notices when that was forgotten.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

from infra.commits import Commit
from infra.plan import Reason
from infra.source_code import closure, source_digest
from tasks.spec import StepCall, StepSpec

CodeIdentity = Literal["version", "source"]
"""What of the code enters a step's fingerprint: its version only, or the digest of its source as well."""
CODE = ("forgetting_core", "tasks")
"""The packages whose code can change a step's results."""
RECORDED_DIGITS = 12
NAMES_SHOWN = 4


@dataclass(frozen=True)
class StepSource:
    """The source closure of a step's computation."""

    digest: str
    functions: dict[str, str]
    """{qualified name: digest of its normalised source}, shortened"""

    def record(self) -> dict[str, Any]:
        """What a commit's provenance says about the code."""
        return {"source_digest": self.digest, "source": self.functions}


def step_source(spec: StepSpec) -> StepSource:
    """The source of a step as this process found it first, which is what it has loaded."""
    return _source(spec.compute)


@cache
def _source(compute: Callable[..., Any]) -> StepSource:
    digests = closure(compute, CODE)
    return StepSource(source_digest(digests), {name: digest[:RECORDED_DIGITS] for name, digest in digests.items()})


def identified(call: StepCall, by: CodeIdentity) -> StepCall:
    """`call` with what its fingerprint says about the code."""
    return call if by == "version" else replace(call, code=step_source(call.spec).digest)


def code_changes(spec: StepSpec, commit: Commit) -> list[Reason]:
    """What of the step's code is not as it was when `commit` was made; nothing where that is not recorded."""
    recorded: Mapping[str, str] | None = commit.provenance.get("source")
    if recorded is None:
        return []
    today = step_source(spec).functions
    return [
        Reason("code", name, recorded.get(name), today.get(name))
        for name in sorted({*recorded, *today})
        if recorded.get(name) != today.get(name)
    ]


def code_warnings(changed: Iterable[tuple[str, str, list[Reason]]]) -> list[str]:
    """A warning for every kind of step among (step, label, code changes), all its labels together."""
    labels: dict[str, list[str]] = {}
    names: dict[str, set[str]] = {}
    for step, label, reasons in changed:
        if reasons:
            labels.setdefault(step, []).append(label)
            names.setdefault(step, set()).update(reason.field for reason in reasons)
    return [_warning(step, labels[step], sorted(names[step])) for step in labels]


def _warning(step: str, labels: list[str], names: list[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return (
        f"{', '.join(labels)}: cached, but the code has changed since: {', '.join(names[:NAMES_SHOWN])}{more}. "
        f"If that changes results, raise `version` in tasks/{step}.py, or compute anew with "
        "--code-identity source; if not, nothing needs to be done"
    )
