"""What a recipe names is found, or is one message that names the field."""

from pathlib import Path

import pytest

from infra.digests import DigestCache
from infra.errors import SourceError
from infra.sources import Ref, Sources, Unresolved


def everything(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return Sources(DigestCache(tmp_path / "digests.sqlite"), tmp_path / "raw", fetch=True)


def test_files_are_their_names_and_contents_in_order(sources: Sources, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jsonl").write_text("1")
        (tmp_path / folder / "b.jsonl").write_text("2")

    def digest(*names: str) -> str:
        found = sources.files([str(tmp_path / name) for name in names], field="data.train")
        assert isinstance(found, Ref)
        return found.digest

    assert digest("one/a.jsonl", "one/b.jsonl") == digest("two/a.jsonl", "two/b.jsonl")
    assert digest("one/a.jsonl", "one/b.jsonl") != digest("one/b.jsonl", "one/a.jsonl")


@pytest.mark.parametrize(
    "url, message",
    [
        ("missing.jsonl", "data.train: no such file: missing.jsonl"),
        ("https://host/a.jsonl", "data.train: https://host/a.jsonl: expected a local path or an s3:// URL"),
    ],
)
def test_a_missing_file_names_its_field(sources: Sources, url: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        sources.files([url], field="data.train")


def test_a_missing_object_names_its_field(sources: Sources, s3_environment: dict[str, str]) -> None:
    with pytest.raises(SourceError, match=r"data\.train: s3://forgetting/nothing/a\.jsonl: there is nothing"):
        sources.files(["s3://forgetting/nothing/a.jsonl"], field="data.train")


def test_a_folder_with_a_revision_says_which_field_to_clear(sources: Sources, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"model\.revision: 'main' is set, .* --set model\.revision=null"):
        sources.model(str(tmp_path), "main", everything, field="model")


def test_a_missing_model_folder_says_what_could_stand_there(sources: Sources) -> None:
    with pytest.raises(SourceError, match=r"model\.path: no such folder: nowhere; give a local folder"):
        sources.model("nowhere", None, everything, field="model")


def test_planning_fetches_nothing_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    planning = Sources(DigestCache(tmp_path / "digests.sqlite"), tmp_path / "raw", fetch=False)
    assert isinstance(planning.model("owner/model", "main", everything, field="model"), Unresolved)
    assert isinstance(planning.hub_data("owner/data", "main", "train", None, field="data.train"), Unresolved)
