"""What must hold for any bytes: a reader takes them or refuses them with the error that it promises.

A target raises anything else when it does not hold. Its seeds are inputs from which mutations get deep at once.
"""

import gzip
import io
import json
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from forgetting_core.data.formats import recognise
from forgetting_core.data.rows import SUFFIXES, BadRow, each_row
from forgetting_core.errors import InputError, RowError
from forgetting_core.recipe import load_recipe
from infra.commits import Commit, Output, decode, encode
from infra.fingerprint import fingerprint, step_payload
from infra.manifest import FileEntry, Manifest
from infra.objects import StoreError, is_safe

SHA = "0" * 64


@dataclass(frozen=True)
class Target:
    """A reader under test."""

    check: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]


def read_rows(data: bytes) -> None:
    """A data file: the first byte chooses its kind, the rest is its content."""
    suffix = SUFFIXES[data[0] % len(SUFFIXES)] if data else SUFFIXES[0]
    file = scratch() / f"data{suffix}"
    file.write_bytes(data[1:])
    try:
        for row in each_row(file):
            if isinstance(row, BadRow):
                str(row.error).encode()
                continue
            assert row.source is None or row.source.encode() is not None
            try:
                recognise(row)
            except RowError as error:
                str(error).encode()
    except InputError as error:
        str(error).encode("utf-8", "surrogateescape")


def row_files() -> Iterable[bytes]:
    """One of every kind of file, with rows of every format."""
    rows: list[dict[str, object]] = [
        {"prompt": "a", "completion": "bc", "noise": [[0, 1]], "source": "x"},
        {"messages": [{"role": "system", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"instruction": "a", "input": "b", "output": "\u2028", "source": {"a": [1.5, None]}},
        {"input_ids": [1, 2, 3], "labels": [-100, 2, 3], "noise": [0, 1, 0]},
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    array = json.dumps(rows).encode()
    table = io.BytesIO()
    pq.write_table(pa.table({"prompt": ["a", "b"], "completion": ["c", None]}), table)
    contents = (lines, gzip.compress(lines, mtime=0), array, gzip.compress(array, mtime=0), table.getvalue())
    return [bytes([kind]) + content for kind, content in enumerate(contents)]


def read_manifest(data: bytes) -> None:
    """A manifest: what is taken has safe paths only, each once, and is written again as it was read."""
    try:
        manifest = Manifest.parse(data, "manifest.json")
    except StoreError as error:
        str(error).encode()
        return
    assert all(is_safe(entry.path) for entry in manifest.files)
    assert len({entry.path for entry in manifest.files}) == len(manifest.files)
    assert Manifest.parse(manifest.to_json(), "manifest.json") == manifest
    for part in {entry.path.partition("/")[0] for entry in manifest.files}:
        assert all(is_safe(entry.path) for entry in manifest.below(part))


def manifests() -> Iterable[bytes]:
    """With no file, and with files of both roles in folders."""
    paths = ("aux/x.json", "train/part-00000.parquet", "ü/名.safetensors")
    entries = [
        FileEntry(path=path, bytes=7, sha256=SHA, role="aux" if path.startswith("aux") else "identity")
        for path in paths
    ]
    return [Manifest(files=[]).to_json(), Manifest(files=entries).to_json()]


def read_commit(data: bytes) -> None:
    """A commit: what is taken agrees with its fingerprint, and is written again as it was read."""
    try:
        commit = decode(data, "/store", "v1/commits/x.json")
    except StoreError as error:
        str(error).encode()
        return
    assert is_safe(commit.artifact)
    assert fingerprint(commit.payload) == commit.fingerprint
    assert decode(encode(commit), "/store", "v1/commits/x.json") == commit


def commits() -> Iterable[bytes]:
    """One with an output, a summary and a provenance."""
    payload = step_payload("split", 1, {"split": {"seed": 42, "share": 0.5}}, {})
    commit = Commit(
        step="split",
        fingerprint=fingerprint(payload),
        payload=payload,
        artifact="v1/data/split/1",
        digest=SHA,
        bytes=3,
        outputs={"train": Output(path="train", digest=SHA, bytes=3)},
        inputs={},
        summary={"rows": {"train": 3}},
        provenance={"seconds": 1.5},
    )
    return [encode(commit)]


def read_recipe(data: bytes) -> None:
    """A recipe."""
    file = scratch() / "recipe.yaml"
    file.write_bytes(data)
    try:
        load_recipe(file)
    except InputError as error:
        str(error).encode("utf-8", "backslashreplace")


def recipes() -> Iterable[bytes]:
    """Those that are built in."""
    from flows.recipes import find_recipe, recipe_names

    return [find_recipe(name).read_bytes() for name in recipe_names()]


@cache
def scratch() -> Path:
    """A folder of this process, in memory where there is such a place."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="forgetting-fuzz-", dir=memory if memory.is_dir() else None))


FOUND = Path(__file__).parent / "found"
"""Inputs that broke a target once, `TARGET-what`; they are seeds ever since."""


def found(name: str) -> dict[str, bytes]:
    """{file name: input} of what was found of one target."""
    return {path.name: path.read_bytes() for path in sorted(FOUND.glob(f"{name}-*"))}


TARGETS = {
    "rows": Target(read_rows, row_files),
    "manifest": Target(read_manifest, manifests),
    "commit": Target(read_commit, commits),
    "recipe": Target(read_recipe, recipes),
}
