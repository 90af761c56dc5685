"""What `forgetting artifacts` shows: tables for people, documents for `--json`."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from infra.collector import Census, Garbage
from infra.inventory import Inventory, Record
from infra.manifest import Manifest
from infra.plan import flatten
from infra.verification import Fault

SHORT = 12
UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
KINDS = {"commit": "unused", "retired": "removed", "upload": "orphaned", "write": "unfinished"}
MEANING = {
    "commit": "unused: nothing needs it; its commit moves to the history, its data goes a grace period later",
    "retired": "removed: its commit went to the history longer than the grace period ago; its data goes",
    "upload": "orphaned: an upload without a commit, of a run that was killed; its data goes",
    "write": "unfinished: an object that was never finished; it goes",
}
DONE = {"commit": "in the history", "retired": "deleted", "upload": "deleted", "write": "deleted"}


def artifacts_table(inventory: Inventory, records: Iterable[Record], now: datetime) -> Table:
    """step, age, size, fingerprint, artifact, recipes with their number of runs, pins."""
    table = _table(f"Artifacts in {inventory.root}")
    for name in ("step", "age", "size", "fingerprint", "used by"):
        table.add_column(name, justify="right" if name in ("age", "size") else "left", overflow="fold")
    for record in records:
        table.add_row(
            escape(record.label),
            age(record.modified, now),
            decimal(record.commit.bytes),
            record.commit.fingerprint[:SHORT],
            escape(_users(inventory, record)),
        )
    return table


def pins_table(inventory: Inventory) -> Table:
    """name, step, fingerprint."""
    table = _table("Pins")
    for name in ("name", "step", "fingerprint", "artifact"):
        table.add_column(name, overflow="fold")
    for name, pin in inventory.pins.items():
        table.add_row(name, escape(pin.step), pin.fingerprint[:SHORT], escape(pin.artifact))
    return table


def show_view(inventory: Inventory, record: Record, manifest: Manifest | None) -> list[Table | str]:
    """One artifact: who it is, its config, what went in, its files."""
    commit = record.commit
    facts = {
        "artifact": commit.uri,
        "digest": commit.digest,
        "fingerprint": commit.fingerprint,
        "size": decimal(commit.bytes),
        "committed": f"{record.modified:%Y-%m-%d %H:%M:%S} UTC",
        "took": f"{commit.provenance.get('seconds', '?')} s on {commit.provenance.get('host', '?')}",
        "code": f"{commit.provenance.get('git_commit')}, step version {commit.payload['version']}",
        "used by": _users(inventory, record) or "nothing",
    }
    about = "\n".join([f"[bold]{escape(record.label)}[/]", *(f"{k:<12} {escape(v)}" for k, v in facts.items())])
    config = _pairs("Config", flatten(commit.payload["config"]))
    summary = _pairs("Summary", flatten(commit.summary))
    inputs = _table("Inputs")
    for name in ("input", "digest", "from"):
        inputs.add_column(name, overflow="fold")
    for name, item in commit.inputs.items():
        inputs.add_row(
            escape(name), item.digest[:SHORT], escape((item.uri or "").removeprefix(f"{inventory.root}/"))
        )
    if manifest is None:
        return [about, config, summary, inputs, "The artifact is gone: it has no manifest. Run the step again."]
    files = _table("Files")
    files.add_column("file", overflow="fold")
    files.add_column("size", justify="right")
    files.add_column("SHA-256")
    files.add_column("role")
    for entry in manifest.files:
        files.add_row(escape(entry.path), decimal(entry.bytes), entry.sha256[:SHORT], entry.role)
    return [about, config, summary, inputs, files]


def faults_view(root: str, faults: Iterable[Fault]) -> str:
    """File, expected, found; in lines, because digests are long."""
    lines = [f"Faults in {escape(root)}"]
    for fault in faults:
        where = "/".join(part for part in (fault.uri.removeprefix(f"{root}/"), fault.file) if part)
        lines += [f"[red]{escape(where)}[/]", f"  expected {fault.expected}", f"  found    {fault.found}"]
    return "\n".join(lines)


def garbage_table(census: Census, done: Sequence[tuple[Garbage, bool]] | None, now: datetime) -> list[Table | str]:
    """What is not needed and what becomes of it; sums."""
    kept = f"{census.needed} artifacts are needed, {census.young} more are younger than the grace period."
    if not census.garbage:
        return [f"Nothing to collect. {kept}"]
    outcomes = {item.key: gone for item, gone in done or []}
    table = _table("Garbage")
    for name in ("state", "step", "age", "size", "where", *(["outcome"] if outcomes else [])):
        table.add_column(name, justify="right" if name in ("age", "size") else "left", overflow="fold")
    for item in sorted(census.garbage, key=lambda item: (item.kind, item.label)):
        fingerprint = item.record.commit.fingerprint[:SHORT] if item.record else ""
        cells = [
            KINDS[item.kind],
            item.label,
            age(item.modified, now),
            decimal(item.bytes),
            fingerprint or item.key,
        ]
        if outcomes:
            cells.append(DONE[item.kind] if outcomes[item.key] else "kept: needed by now")
        table.add_row(*map(escape, cells))
    now_free = decimal(sum(item.bytes for item in census.garbage if item.kind != "commit"))
    later = decimal(sum(item.bytes for item in census.garbage if item.kind == "commit"))
    verb = "would go now (add --delete)" if done is None else "went"
    kinds = [MEANING[kind] for kind in sorted({item.kind for item in census.garbage})]
    return [table, *kinds, f"{now_free} {verb}, {later} a grace period later. {kept}"]


def ls_document(inventory: Inventory, records: Iterable[Record], total: int) -> dict[str, Any]:
    """The form of `ls --json`; `total` counts what there is beside what is listed too."""
    return {
        "store": inventory.root,
        "total": total,
        "artifacts": [_record_document(inventory, record) for record in records],
        "pins": pins_document(inventory),
    }


def pins_document(inventory: Inventory) -> dict[str, Any]:
    """{name: step, fingerprint, uri}"""
    return {
        name: {"step": pin.step, "fingerprint": pin.fingerprint, "uri": f"{inventory.root}/{pin.artifact}"}
        for name, pin in inventory.pins.items()
    }


def show_document(inventory: Inventory, record: Record, manifest: Manifest | None) -> dict[str, Any]:
    """The form of `show --json`: everything that the store knows; `files` is null for an artifact that is gone."""
    commit = record.commit
    return {
        "store": inventory.root,
        **_record_document(inventory, record),
        "files": None if manifest is None else [entry.model_dump() for entry in manifest.files],
        "outputs": {
            name: {**item.model_dump(), "uri": commit.output_uri(name)} for name, item in commit.outputs.items()
        },
        "inputs": {name: item.model_dump() for name, item in commit.inputs.items()},
        "payload": commit.payload,
        "summary": commit.summary,
        "provenance": commit.provenance,
    }


def garbage_document(
    root: str, census: Census, done: Sequence[tuple[Garbage, bool]] | None, now: datetime
) -> dict[str, Any]:
    """The form of `gc --json`; `collected` is null in a dry run, false for what came to be needed meanwhile."""
    outcomes = {item.key: gone for item, gone in done or []}
    items = [
        {
            "kind": item.kind,
            "key": item.key,
            "step": item.label,
            "bytes": item.bytes,
            "age_seconds": round((now - item.modified).total_seconds()),
            "collected": outcomes.get(item.key),
        }
        for item in census.garbage
    ]
    return {
        "store": root,
        "deleted": done is not None,
        "garbage": items,
        "bytes": sum(item.bytes for item in census.garbage),
        "needed": census.needed,
        "young": census.young,
    }


def age(then: datetime, now: datetime) -> str:
    """`3 d`, `5 h`, `2 min`, `10 s`."""
    seconds = max(0, int((now - then).total_seconds()))
    for size, unit in UNITS:
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return "now"


def _record_document(inventory: Inventory, record: Record) -> dict[str, Any]:
    runs = inventory.runs_of(record)
    return {
        "step": record.commit.step,
        "label": record.label,
        "committed": record.modified.isoformat(timespec="seconds"),
        "bytes": record.commit.bytes,
        "fingerprint": record.commit.fingerprint,
        "digest": record.commit.digest,
        "uri": record.commit.uri,
        "recipes": sorted({run.recipe for run in runs}),
        "runs": [run.id for run in runs],
        "pins": inventory.pins_of(record),
    }


def _users(inventory: Inventory, record: Record) -> str:
    runs = inventory.runs_of(record)
    recipes = {recipe: sum(run.recipe == recipe for run in runs) for recipe in sorted({run.recipe for run in runs})}
    shown = [f"{recipe} ({count} run{'s' if count > 1 else ''})" for recipe, count in recipes.items()]
    return ", ".join([*shown, *(f"pin {name}" for name in inventory.pins_of(record))])


def _pairs(title: str, values: dict[str, Any]) -> Table:
    table = _table(title, headless=True)
    for name, value in values.items():
        table.add_row(escape(name), escape(str(value)))
    return table


def _table(title: str, *, headless: bool = False) -> Table:
    table = Table(
        title=escape(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, show_header=not headless
    )
    if headless:
        table.add_column(overflow="fold")
        table.add_column(overflow="fold")
    return table
