"""`forgetting artifacts`: look at what the store holds, take things out of it, and clean it up.

An ID is an artifact's URI (or that of a part of it), a digest, a fingerprint, or at least 8 of their first digits.
"""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.json_output import print_json
from flows.options import JsonOption, StoreOption
from infra.errors import RequestError
from infra.settings import Settings

if TYPE_CHECKING:
    from infra.inventory import Inventory
    from infra.objects import Objects

app = typer.Typer(
    help="Look at the artifacts in the store, take them out, and clean up.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
IdArgument = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="URI, digest or fingerprint of an artifact, or at least 8 of their first digits."
    ),
]


@app.command()
def ls(
    step: Annotated[str | None, typer.Option(help="Only this step, such as `forget` or `score[base]`.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Only what runs of this recipe used.")] = None,
    run: Annotated[str | None, typer.Option(metavar="FLOW_RUN_ID", help="Only what this run used.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Only the newest N.")] = 100,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the artifacts, newest first, and what uses them.

    Example: `forgetting artifacts ls --step forget`
    """
    from flows.artifact_views import artifacts_table, ls_document, pins_table
    from infra.inventory import read_inventory, read_newest

    objects = _objects(store)
    inventory, total = read_newest(objects, step, limit)
    if recipe is not None or run is not None or (step is not None and not total):  # `step` may be a label
        inventory = read_inventory(objects)
        total = len(inventory.select(step=step, recipe=recipe, run=run))
    records = inventory.select(step=step, recipe=recipe, run=run)[:limit]
    if as_json:
        print_json(ls_document(inventory, records, total))
        return
    _print(artifacts_table(inventory, records, datetime.now(UTC)))
    if len(records) < total:
        _print(f"The newest {len(records)} of {total}; --limit shows more.")
    if inventory.pins:
        _print(pins_table(inventory))


@app.command()
def show(ident: IdArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show one artifact: its files, what it was made from, and what uses it.

    Example: `forgetting artifacts show 041e44d1`
    """
    from flows.artifact_views import show_document, show_view
    from infra.verification import read_manifest

    objects, inventory = _open(store)
    record, _ = inventory.find(ident)
    manifest = read_manifest(objects, record.commit)
    if as_json:
        print_json(show_document(inventory, record, manifest))
    else:
        _print(*show_view(inventory, record, manifest))


@app.command()
def verify(
    idents: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Artifacts to read.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every artifact that has a commit.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read every byte again and compare with the manifests; exit status 1 when something is wrong.

    Example: `forgetting artifacts verify --all`
    """
    from dataclasses import asdict

    from flows.artifact_views import faults_view
    from flows.transfer_bar import transfer_bar
    from infra.staging import counter
    from infra.verification import read_manifest, verify_artifact

    if bool(idents) == everything:
        raise RequestError("name the artifacts to verify, or all of them with --all")
    objects, inventory = _open(store)
    found = inventory.commits if everything else [inventory.find(ident)[0] for ident in idents or []]
    commits = list({record.artifact: record.commit for record in found}.values())
    manifests = [read_manifest(objects, commit) for commit in commits]
    total = sum(entry.bytes for manifest in manifests if manifest for entry in manifest.files)
    with transfer_bar("verify") as progress:
        advance = counter(total, progress)
        faults = [
            fault
            for commit, manifest in zip(commits, manifests, strict=True)
            for fault in verify_artifact(objects, commit, manifest, advance)
        ]
    if as_json:
        faulty = [asdict(fault) for fault in faults]
        print_json({"store": objects.root, "artifacts": len(commits), "bytes": total, "faults": faulty})
    else:
        from rich.filesize import decimal

        if faults:
            _print(faults_view(objects.root, faults))
        wrong = f"{len(faults)} faults" if faults else "all as committed"
        typer.echo(f"{len(commits)} artifacts, {decimal(total)} read: {wrong}")
    raise typer.Exit(1 if faults else 0)


@app.command()
def fetch(
    ident: IdArgument,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy an artifact, or a part of one, to a folder and verify it; called again, it continues.

    Example: `forgetting artifacts fetch 041e44d1 my-model`
    """
    from flows.transfer_bar import transfer_bar
    from infra.fetching import fetch as fetch_artifact
    from infra.staging import ArtifactMissingError
    from infra.verification import read_manifest

    objects, inventory = _open(store)
    record, part = inventory.find(ident)
    manifest = read_manifest(objects, record.commit)
    if manifest is None:
        raise ArtifactMissingError(f"{record.commit.uri} is gone; run the step {record.label} again")
    with transfer_bar("fetch") as progress:
        copied, kept = fetch_artifact(objects, record.commit, manifest, part, folder, progress)
    if as_json:
        uri = f"{record.commit.uri}/{part}" if part else record.commit.uri
        print_json({"store": objects.root, "uri": uri, "folder": str(folder), "copied": copied, "kept": kept})
    else:
        typer.echo(f"{folder}: {copied} files copied, {kept} kept, all verified")


@app.command()
def export(
    ident: IdArgument,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    merge: Annotated[bool, typer.Option("--merge", help="Add a LoRA adapter to its base model.")] = False,
    base: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Where the base model is, if it has moved; its digest is checked."),
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Merge with the code that the base model brings along.")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a fine-tuned model as a plain Hugging Face folder with a model card that states its lineage.

    Example: `forgetting artifacts export --merge 041e44d1 my-model`
    """
    from flows.export import export as export_model
    from flows.transfer_bar import transfer_bar

    settings = Settings.from_environment(store=store)
    objects, inventory = _open(store)
    record, _ = inventory.find(ident)
    with transfer_bar("read") as progress:
        lineage = export_model(
            settings,
            objects,
            inventory,
            record,
            folder,
            merge=merge,
            base=base,
            trust_remote_code=trust_remote_code,
            progress=progress,
        )
    if as_json:
        document = {"store": objects.root, "uri": record.commit.uri, "folder": str(folder), "merged": merge}
        print_json({**document, "base": {"uri": lineage.base, "digest": lineage.base_digest}})
    else:
        typer.echo(
            f"{folder}: the model {record.label}, {'merged, ' if merge else ''}with its lineage in README.md"
        )


@app.command()
def rm(
    ident: IdArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove the commit of one step, so that it runs again; its data goes with a later `gc`.

    Example: `forgetting artifacts rm 041e44d1`
    """
    from infra.collector import retire

    objects, inventory = _open(store)
    record, _ = inventory.find(ident)
    if not yes:
        if not sys.stdin.isatty():
            raise RequestError("removing a commit asks first, and there is no terminal to ask on; add --yes")
        used = len(inventory.runs_of(record))
        typer.confirm(f"Remove {record.label} ({record.commit.uri}), used by {used} runs?", abort=True, err=True)
    if not retire(objects, record):
        raise RequestError(f"{record.commit.uri}: its commit has been removed or replaced a moment ago; look again")
    if as_json:
        fingerprint = record.commit.fingerprint
        print_json({"store": objects.root, "removed": {"step": record.commit.step, "fingerprint": fingerprint}})
    else:
        typer.echo(
            f"{record.label}: its commit is in the history now; `forgetting artifacts gc` takes the data later"
        )


@app.command()
def pin(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits and _ . -")],
    ident: Annotated[str | None, typer.Argument(metavar="ID", help="As `show` takes it.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the pin.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give an artifact a name that keeps it from garbage collection, whatever runs there are.

    Example: `forgetting artifacts pin paper-table-2 041e44d1`
    """
    from flows.artifact_views import pins_document
    from infra.inventory import read_inventory
    from infra.pins import remove_pin, write_pin

    if remove == (ident is not None):
        raise RequestError("expected `pin NAME ID` or `pin --remove NAME`")
    objects, inventory = _open(store)
    if ident is None:
        remove_pin(objects, name)
        told = f"{name} is no longer pinned"
    else:
        record, _ = inventory.find(ident)
        write_pin(objects, name, record.commit)
        told = f"{name} is pinned: {record.commit.uri}"
    if as_json:
        print_json({"store": objects.root, "pins": pins_document(read_inventory(objects))})
    else:
        typer.echo(told)


@app.command()
def gc(
    delete: Annotated[
        bool, typer.Option("--delete", help="Do it; otherwise only show what would be done.")
    ] = False,
    grace: Annotated[
        float, typer.Option(metavar="HOURS", min=0, help="What is younger stays; longer than a pause of any run.")
    ] = 24.0,
    keep_runs: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Only the newest N runs of each recipe count; default all."),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what nothing needs any more; with `--delete`, take it away.

    Runs, recipes' last results and pins need their artifacts and all that these were made from. A commit that
    nothing needs is moved to the history; its data goes with a collection that is at least the grace period later.

    Example: `forgetting artifacts gc --keep-runs 3 --delete`
    """
    from flows.artifact_views import garbage_document, garbage_table
    from infra.collector import collect, take_census

    objects, inventory = _open(store)
    period, now = timedelta(hours=grace), datetime.now(UTC)
    census = take_census(objects, inventory, now=now, grace=period, keep_runs=keep_runs)
    done = list(collect(objects, inventory, census.garbage)) if delete else None
    if as_json:
        print_json(garbage_document(objects.root, census, done, now))
    else:
        _print(*garbage_table(census, done, now))


def _open(store: str | None) -> "tuple[Objects, Inventory]":
    from infra.inventory import read_inventory

    objects = _objects(store)
    return objects, read_inventory(objects)


def _objects(store: str | None) -> "Objects":
    from infra.folder_objects import FolderObjects
    from infra.urls import open_objects

    objects = open_objects(Settings.from_environment(store=store).store_url)
    if isinstance(objects, FolderObjects) and not objects.folder.is_dir():
        raise RequestError(f"there is no store at {objects.root}; name it with --store or FORGETTING_STORE")
    return objects


def _print(*things: object) -> None:
    from rich.console import Console

    console = Console()
    for thing in things:
        console.print(thing, highlight=False, soft_wrap=isinstance(thing, str))
