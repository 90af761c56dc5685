"""Whether a step would run, and every reason why: its identity against the commits that the store holds.

Pure looking: nothing is written, nothing is computed. Knows steps only as payloads.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from infra.commits import Commit
from infra.fingerprint import CODE_KEY, canonical_json, fingerprint, step_payload
from infra.lease import Leases
from infra.store import Store

ABSENT = "(absent)"
"""Stands in a `Reason` for a field or an input that is not there on one side."""
State = Literal["cached", "run", "maybe", "running", "evicted"]


COMPARED = 50
"""Commits of a kind of step that a plan reads."""


class Earlier:
    """The commits that steps are compared with: of each kind the newest, read once for all steps of a plan."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._newest: dict[str, tuple[list[Commit], bool]] = {}

    def of(self, step: str, last: str | None) -> tuple[list[Commit], bool]:
        """The newest commits of `step` and the one with the fingerprint `last`; whether there are no others."""
        if step not in self._newest:
            self._newest[step] = self._store.newest_commits(step, COMPARED)
        newest, all_ = self._newest[step]
        if all_ or last is None or last in {commit.fingerprint for commit in newest}:
            return newest, all_
        used = self._store.lookup(step, last)
        return ([*newest, used] if used else newest), all_


@dataclass(frozen=True)
class Reason:
    """One difference between what would run and the nearest earlier commit."""

    kind: Literal["config", "input", "code", "missing"]
    field: str
    """A recipe path such as `partition.rho`, or the name of an input."""
    old: Any = None
    new: Any = None


@dataclass(frozen=True)
class Assessment:
    """One step's part of a plan."""

    state: State
    fingerprint: str | None
    """None while an input is not known yet."""
    reasons: list[Reason] = field(default_factory=list)
    commit: Commit | None = None
    """The commit that there is, whether or not its artifact still is."""
    last_seconds: float | None = None
    """What the nearest earlier commit took."""


def assess(
    store: Store,
    leases: Leases,
    earlier: Earlier,
    *,
    step: str,
    version: int,
    config: dict[str, Any],
    inputs: Mapping[str, str],
    unknown: Mapping[str, str],
    last: str | None,
) -> Assessment:
    """The state of one step.

    `inputs` are content digests by name, `unknown` the inputs that are not known yet, with the cause; `last` is the
    fingerprint that the recipe's last completed run used. A step with unknown inputs is `maybe` when some commit
    agrees in everything else (its inputs may come out the same) or there are more than were read, or else `run`.
    A step whose artifact is gone is `evicted`: it runs only if a step that needs it does. One that someone is
    working on is `running`.
    """
    if not unknown:
        payload = step_payload(step, version, config, inputs)
        commit = store.lookup(step, fingerprint(payload))
        if commit is not None and store.exists(commit.uri):
            return Assessment("cached", commit.fingerprint, [], commit, _seconds(commit))
        working = leases.holder(step, fingerprint(payload)) is not None
        if commit is not None:
            gone = Reason("missing", "artifact", commit.uri, None)
            state: State = "running" if working else "evicted"
            return Assessment(state, commit.fingerprint, [gone], commit, _seconds(commit))
    candidates, all_ = earlier.of(step, last)
    payload = step_payload(step, version, config, inputs)
    closest = nearest(candidates, payload, unknown, last)
    reasons = _reasons(closest.payload if closest else None, payload, unknown)
    if unknown:
        possible = not all_ or any(not _known_differences(c.payload, payload, unknown) for c in candidates)
        state = "maybe" if possible else "run"
    else:
        state = "running" if working else "run"
    return Assessment(
        state,
        None if unknown else fingerprint(payload),
        reasons,
        None,
        _seconds(closest) if closest else None,
    )


def nearest(
    commits: Iterable[Commit], payload: Mapping[str, Any], unknown: Mapping[str, str], last: str | None
) -> Commit | None:
    """The recipe's last one, or else the one with the fewest differences."""
    ranked = sorted(
        commits,
        key=lambda commit: (
            commit.fingerprint != last,
            len(_known_differences(commit.payload, payload, unknown)),
            commit.fingerprint,
        ),
    )
    return ranked[0] if ranked else None


def _reasons(old: Mapping[str, Any] | None, new: Mapping[str, Any], unknown: Mapping[str, str]) -> list[Reason]:
    earlier = old["inputs"] if old else {}
    waiting = [Reason("input", name, earlier.get(name), cause) for name, cause in unknown.items()]
    if old is None:
        return [Reason("missing", new["step"], None, "no earlier result in the store"), *waiting]
    return [*_known_differences(old, new, unknown), *waiting]


def _known_differences(old: Mapping[str, Any], new: Mapping[str, Any], unknown: Mapping[str, str]) -> list[Reason]:
    known = {name: digest for name, digest in old["inputs"].items() if name not in unknown}
    inputs = [Reason("input", *change) for change in changes(known, new["inputs"])]
    return own_differences(old, new) + inputs


def own_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Reason]:
    """What differs between two payloads of one step apart from its inputs: code, then config."""
    found = []
    if old["version"] != new["version"]:
        found.append(Reason("code", f"{new['step']}.version", old["version"], new["version"]))
    return found + [
        Reason("code" if change[0] == CODE_KEY else "config", *change)
        for change in changes(flatten(old["config"]), flatten(new["config"]))
    ]


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(name, old, new) of what differs as a fingerprint sees it: 1 is not 1.0; `ABSENT` is not null."""
    names = [*old, *(name for name in new if name not in old)]
    pairs = [(name, old.get(name, ABSENT), new.get(name, ABSENT)) for name in names]
    return [(name, before, now) for name, before, now in pairs if _differ(before, now)]


def _differ(before: Any, now: Any) -> bool:
    # most are plain and the same, and a plan compares tens of thousands
    if type(before) is type(now) and isinstance(before, str | int | None):
        return bool(before != now)
    if before is ABSENT or now is ABSENT:
        return True
    return canonical_json(before) != canonical_json(now)


def flatten(value: Any, path: str = "") -> dict[str, Any]:
    """Nested dicts as one: `{"partition": {"rho": "0.7"}}` becomes `{"partition.rho": "0.7"}`."""
    if not isinstance(value, dict):
        return {path: value}
    return {
        name: item
        for key, below in value.items()
        for name, item in flatten(below, f"{path}.{key}" if path else key).items()
    }


def _seconds(commit: Commit) -> float | None:
    return commit.provenance.get("seconds")
