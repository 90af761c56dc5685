"""Whether every artifact behind a step is still what was committed: all bytes are read, and compared."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath

from infra.ancestry import Ancestry, Records, input_fault
from infra.commits import Commit
from infra.digests import content_digest
from infra.inventory import HISTORY, Record
from infra.manifest import Manifest
from infra.objects import StoreError
from infra.staging import counter
from infra.verification import MISSING, Fault, read_manifest, verify_artifact


def check_artifacts(records: Records, ancestry: Ancestry, progress: Callable[[int, int], None]) -> list[Fault]:
    """Read every byte of every artifact on the way and compare; `progress(done, total)` hears bytes.

    Of an artifact that was evicted and made again with the same content, the new one is read. Raises `StoreError`.
    """
    faults: list[Fault] = []
    manifests: list[tuple[Commit, Manifest | None]] = []
    for step in ancestry.steps:
        commit = _present(records, step.record)
        try:
            manifests.append((commit, read_manifest(records.objects, commit)))
        except StoreError as error:
            faults.append(Fault(commit.uri, "manifest.json", "the artifact's manifest", str(error)))
    advance = counter(sum(_bytes(manifest) for _, manifest in manifests), progress)
    for commit, manifest in manifests:
        faults += verify_artifact(records.objects, commit, manifest, advance)
    known = {commit.artifact: manifest for commit, manifest in manifests if manifest is not None}
    return [*faults, *_file_faults(ancestry, known)]


def _file_faults(ancestry: Ancestry, manifests: Mapping[str, Manifest]) -> Iterator[Fault]:
    """Inputs that are one file of an artifact, and not the one in the manifest; `manifests` are by artifact folder.

    Of an artifact that was made again only the content is the same, and statistics such as curves are not content:
    a file of one that is gone has nothing to be compared with.
    """
    for step in ancestry.steps:
        for source in step.sources:
            if not source.is_file or source.record is None or source.record.artifact not in manifests:
                continue
            made = _file_digest(manifests[source.record.artifact], source.part)
            if made != source.digest:
                yield input_fault(ancestry.root, step.record, source, source.record, made)


def _file_digest(manifest: Manifest, path: str) -> str:
    name = PurePosixPath(path).name
    return next((content_digest({name: entry.sha256}) for entry in manifest.files if entry.path == path), MISSING)


def _bytes(manifest: Manifest | None) -> int:
    return sum(entry.bytes for entry in manifest.files) if manifest else 0


def _present(records: Records, record: Record) -> Commit:
    successor = records.inventory.by_step.get(record.step_key)
    retired = record.key.startswith(f"{HISTORY}/")
    if retired and successor is not None and successor.commit.digest == record.commit.digest:
        return successor.commit
    return record.commit
