"""What `forgetting lineage` shows: a tree for people, a document for `--json`."""

from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.tree import Tree

from infra.ancestry import Ancestor, Ancestry, Source, is_partition
from infra.ancestry_mlflow import ModelVersion
from infra.public import public_data, public_uri

SHORT = 12


def lineage_tree(ancestry: Ancestry, versions: Sequence[ModelVersion]) -> Tree:
    """The step, and below each step its inputs; a step that has been shown is only named again."""
    tree = Tree(_heading(ancestry, versions), guide_style="dim")
    _grow(tree, ancestry, ancestry.target, "", shown=set())
    return tree


def lineage_document(
    ancestry: Ancestry, versions: Sequence[ModelVersion], evidence: dict[str, Any]
) -> dict[str, Any]:
    """The form of `lineage --json`: steps by fingerprint; an input's `step` is null where the store ends."""
    target = ancestry.target.record.commit
    return {
        "store": ancestry.root,
        **evidence,
        "artifact": {"uri": target.uri, "digest": target.digest, "fingerprint": target.fingerprint},
        **_chosen_document(ancestry.partition),
        "models": [
            {"name": item.name, "version": item.version, "digest": item.digest, "uri": item.uri, "rho": item.rho}
            for item in versions
        ],
        "steps": [_step_document(step) for step in ancestry.steps],
    }


def _heading(ancestry: Ancestry, versions: Sequence[ModelVersion]) -> str:
    named = ", ".join(item.label for item in versions)
    chosen = f", {_chosen(ancestry.partition)}" if ancestry.partition else ""
    return (
        f"[bold]{escape(named or ancestry.target.record.label)}[/]{escape(chosen)}  [dim]{escape(ancestry.root)}[/]"
    )


def _grow(tree: Tree, ancestry: Ancestry, step: Ancestor, role: str, shown: set[str]) -> None:
    record = step.record
    if record.artifact in shown:
        tree.add(f"{role}[bold]{escape(record.label)}[/] {record.commit.digest[:SHORT]} [dim](shown above)[/]")
        return
    shown.add(record.artifact)
    branch = tree.add(f"{role}{_step_text(step)}")
    for source in step.sources:
        made_by = ancestry.by_artifact.get(source.record.artifact) if source.record else None
        place = source.part if source.is_file else f"{source.part}/"
        part = f" [dim]{escape(place)} of[/]" if source.part else ""
        if made_by is None:
            branch.add(_leaf_text(source))
        else:
            _grow(branch, ancestry, made_by, f"[cyan]{escape(source.name)}[/] ←{part} ", shown)


def _step_text(step: Ancestor) -> str:
    commit, known = step.record.commit, step.record.commit.provenance
    chosen = f" [bold]{escape(_chosen(step))}[/]" if is_partition(commit) else ""
    altered = " [red]its commit was altered[/]" if step.faults else ""
    dirty = " with changes" if known.get("git_dirty") else ""
    version = f", version {commit.payload['version']}" if "version" in commit.payload else ""
    code = f"{str(known.get('git_commit') or 'unknown')[:SHORT]}{dirty}{version}"
    when = f"{known.get('started', '?')} on {known.get('host', '?')}"
    return (
        f"[bold]{escape(step.record.label)}[/]{chosen} {commit.digest[:SHORT]}{altered}\n"
        f"[dim]{escape(commit.artifact)} · code {escape(code)} · {escape(when)}[/]"
    )


def _chosen(partition: Ancestor) -> str:
    """How its positive tokens were chosen: the share asked for, or the threshold and the share that came of it."""
    control = f" {partition.labelling}" if partition.labelling not in (None, "influence") else ""
    if partition.threshold is None:
        return f"ρ {partition.rho}{control}"
    share = "" if partition.positive_share is None else f" ({partition.positive_share:.1%} positive)"
    return f"threshold {partition.threshold}{control}{share}"


def _chosen_document(step: Ancestor | None) -> dict[str, Any]:
    names = ("rho", "threshold", "labelling", "positive_share")
    return {name: getattr(step, name) if step else None for name in names}


def _leaf_text(source: Source) -> str:
    where = "[red]what made it is not recorded[/]" if source.inside else "[dim]outside the store[/]"
    uri = escape(public_uri(source.uri or "no address"))
    return f"[cyan]{escape(source.name)}[/] ← {uri} {source.digest[:SHORT]} {where}"


def _step_document(step: Ancestor) -> dict[str, Any]:
    commit, known = step.record.commit, step.record.commit.provenance
    return {
        "step": step.record.label,
        "fingerprint": commit.fingerprint,
        "digest": commit.digest,
        "uri": commit.uri,
        "bytes": commit.bytes,
        **_chosen_document(step),
        "version": commit.payload.get("version"),
        "config": commit.payload.get("config"),
        "git_commit": known.get("git_commit"),
        "git_dirty": known.get("git_dirty"),
        "host": known.get("host"),
        "started": known.get("started"),
        "seconds": known.get("seconds"),
        "mlflow_run_id": known.get("mlflow_run_id"),
        "inputs": {source.name: public_data(_source_document(source)) for source in step.sources},
    }


def _source_document(source: Source) -> dict[str, Any]:
    made_by = source.record and {
        "step": source.record.label,
        "fingerprint": source.record.commit.fingerprint,
        "part": source.part or None,
    }
    return {"digest": source.digest, "uri": source.uri, "made_by": made_by}
