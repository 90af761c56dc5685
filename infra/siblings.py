"""Runs that differ from a given one in a single field of the recipe: the other points of its sweep.

The store has no index of runs by recipe. So the newest runs only are looked at: one listing, and `RUNS_READ` small
records at most, however many runs there are; commits are read of those alone whose recipe fits.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from infra.commits import Commit
from infra.store import Store

RUNS_READ = 200
Keys = tuple[str, ...]
"""The way to a value in nested JSON objects."""


def sibling_runs(
    store: Store, record: Mapping[str, Any], field: Keys, may_differ: Mapping[str, Keys]
) -> dict[Any, dict[str, Commit]]:
    """{value of `field`: {label: commit}} over the newest run of each value, `record`'s own among them.

    `record` is a run's record. Another run belongs to it when its recipe is the same but for `field`, and for every
    label in `may_differ` it has a commit whose payload is the same but for the named part: what the recipe only
    names, such as data, is compared by content. Raises `StoreError`.
    """
    wanted = _commits(store, record, may_differ)
    found = {_value(record["identity"], field): _commits(store, record, record["steps"])}
    recipe = _without(record["identity"], field)
    for other in store.newest_runs(RUNS_READ):
        value = _value(other["identity"], field)
        if value in found or _without(other["identity"], field) != recipe:
            continue
        commits = _commits(store, other, may_differ)
        if all(
            label in commits and _without(commits[label].payload, keys) == _without(wanted[label].payload, keys)
            for label, keys in may_differ.items()
        ):
            found[value] = _commits(store, other, other["steps"])
    return found


def _commits(
    store: Store, record: Mapping[str, Any], labels: Sequence[str] | Mapping[str, Any]
) -> dict[str, Commit]:
    """The commits of those of the `labels` that the run has, and the store still."""
    steps = record["steps"]
    found = {
        label: store.lookup(steps[label]["step"], steps[label]["fingerprint"]) for label in labels if label in steps
    }
    return {label: commit for label, commit in found.items() if commit is not None}


def _value(data: Any, keys: Keys) -> Any:
    for key in keys:
        data = data[key]
    return data


def _without(data: Mapping[str, Any], keys: Keys) -> dict[str, Any]:
    first, *rest = keys
    if not rest:
        return {key: value for key, value in data.items() if key != first}
    return {**data, first: _without(data[first], tuple(rest))}
