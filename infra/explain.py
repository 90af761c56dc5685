"""One step against one earlier commit, in full: what differs, what agrees, and what differs without mattering.

Where `infra.plan` gives the reasons for a state, this gives the whole comparison, for a cached step too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.commits import Commit
from infra.fingerprint import step_payload
from infra.plan import Earlier, Reason, changes, flatten, nearest, own_differences
from infra.store import Store


@dataclass(frozen=True)
class InputChange:
    """One input of a step, then and now."""

    name: str
    old: str | None
    """Content digest; None: the step did not have this input."""
    new: str | None
    """Content digest; None: the step does not have this input, or its content is not known yet."""
    unknown: str | None = None
    """Why the content is not known yet."""

    @property
    def differs(self) -> bool:
        """Whether it differs, or may."""
        return self.unknown is not None or self.old != self.new


@dataclass(frozen=True)
class Comparison:
    """A step as it would run now, against an earlier commit of it."""

    earlier: Commit
    config: list[Reason]
    unchanged: int
    """Config fields that agree."""
    inputs: list[InputChange]
    code: list[Reason]
    execution: list[Reason]
    """How the step is computed: differs, but is no part of its identity."""


def earlier_commit(
    store: Store,
    *,
    step: str,
    version: int,
    config: dict[str, Any],
    inputs: Mapping[str, str],
    unknown: Mapping[str, str],
    last: str | None,
) -> Commit | None:
    """The commit whose fingerprint is `last`, or else the one of `step` with the fewest differences."""
    used = store.lookup(step, last) if last else None
    return used or nearest(
        Earlier(store).of(step, last)[0], step_payload(step, version, config, inputs), unknown, None
    )


def compare(
    earlier: Commit,
    *,
    version: int,
    config: dict[str, Any],
    inputs: Mapping[str, str],
    unknown: Mapping[str, str],
    execution: Mapping[str, Any],
) -> Comparison:
    """All differences; see `plan.assess` for `inputs` and `unknown`."""
    found = own_differences(earlier.payload, step_payload(earlier.step, version, config, inputs))
    old_inputs = earlier.payload["inputs"]
    names = sorted({*old_inputs, *inputs, *unknown})
    return Comparison(
        earlier=earlier,
        config=[reason for reason in found if reason.kind == "config"],
        unchanged=len(flatten(config).keys() - {reason.field for reason in found}),
        inputs=[InputChange(name, old_inputs.get(name), inputs.get(name), unknown.get(name)) for name in names],
        code=[reason for reason in found if reason.kind == "code"],
        execution=[
            Reason("config", f"execution.{name}", old, new)
            for name, old, new in changes(earlier.provenance.get("execution", {}), execution)
        ],
    )
