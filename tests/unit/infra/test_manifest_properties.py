"""A manifest that is read is sound, and one that is written is read as it was."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from infra.manifest import FileEntry, Manifest, identity_digest, role_of
from infra.objects import StoreError, is_safe

NAME = st.text("abXY01.-_ :é", min_size=1, max_size=6)
PATH = st.lists(NAME, min_size=1, max_size=3).map("/".join)
SHA = st.text("0123456789abcdef", min_size=64, max_size=64)
ENTRY = st.fixed_dictionaries(
    {
        "path": PATH | st.text(max_size=10),
        "bytes": st.integers(-1, 2**60) | st.text(max_size=3),
        "sha256": SHA | st.text(max_size=70),
        "role": st.sampled_from(["identity", "aux", "other"]),
    }
)


def parsed(document: Any) -> Manifest | None:
    try:
        return Manifest.parse(json.dumps(document).encode(), "s3://b/manifest.json")
    except StoreError as error:
        assert "s3://b/manifest.json" in str(error) and str(error).encode()
        return None


def entries(paths: list[str]) -> list[FileEntry]:
    return [FileEntry(path=path, bytes=1, sha256="0" * 64, role=role_of(path)) for path in sorted(paths)]


@given(st.lists(ENTRY, max_size=4))
@settings(max_examples=300, deadline=None)
def test_a_manifest_that_is_taken_is_sound(files: list[dict[str, Any]]) -> None:
    manifest = parsed({"schema": 1, "files": files})
    if manifest is not None:
        assert all(is_safe(entry.path) for entry in manifest.files)
        assert Manifest.parse(manifest.to_json(), "x") == manifest


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), st.lists) | st.dictionaries(NAME, st.none()))
@settings(max_examples=200, deadline=None)
def test_anything_else_is_a_message(document: Any) -> None:
    assert parsed(document) is None


@given(st.sets(PATH.filter(is_safe), min_size=1, max_size=6), st.data())
@settings(max_examples=200, deadline=None)
def test_no_part_of_a_manifest_leads_out_of_its_folder(paths: set[str], data: st.DataObject) -> None:
    manifest = Manifest.model_construct(files=entries(sorted(paths)))
    part = data.draw(st.sampled_from(sorted(paths))).rpartition("/")[0]
    assert all(is_safe(entry.path) for entry in manifest.below(part))


@given(st.sets(PATH.filter(is_safe), min_size=1, max_size=6), st.randoms())
@settings(max_examples=100, deadline=None)
def test_the_digest_is_that_of_the_content_files_in_any_order(paths: set[str], random: Any) -> None:
    files = entries(sorted(paths))
    shuffled = random.sample(files, len(files))
    aux = FileEntry(path="aux/log.txt", bytes=1, sha256="1" * 64, role="aux")
    assert identity_digest([*shuffled, aux]) == identity_digest(files)
