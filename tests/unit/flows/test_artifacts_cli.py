"""`forgetting artifacts` as a person or a script meets it: output, documents, exit status."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.commits import Commit
from infra.digests import file_sha256
from infra.store import Store
from tests.stores import record_run, write_files
from tests.unit.flows.artifact_commands import Command


def test_ls_lists_the_newest_first_with_what_uses_it(
    artifacts: Command, store: Store, chain: tuple[Commit, Commit]
) -> None:
    split, score = chain
    run_id = record_run(store, split, recipe="demo")
    assert artifacts("pin", "paper", score.fingerprint).status == 0
    listed = artifacts("ls", "--json").document
    assert [item["label"] for item in listed["artifacts"]] == ["score[base]", "split"]
    assert listed["artifacts"][0]["pins"] == ["paper"]
    assert listed["artifacts"][1] | {"committed": ""} == {
        "step": "split",
        "label": "split",
        "committed": "",
        "bytes": 4,
        "fingerprint": split.fingerprint,
        "digest": split.digest,
        "uri": split.uri,
        "recipes": ["demo"],
        "runs": [run_id],
        "pins": [],
    }
    assert listed["pins"]["paper"]["uri"] == score.uri
    shown = artifacts("ls").output
    for told in (split.fingerprint[:12], "demo (1 run)", "score[base]", "4 bytes", "paper"):
        assert told in shown


@pytest.mark.parametrize(
    ("filters", "labels"),
    [
        (["--step", "score"], ["score[base]"]),
        (["--step", "score[base]"], ["score[base]"]),
        (["--recipe", "demo"], ["split"]),
        (["--run", "RUN"], ["split"]),
        (["--run", "RUN", "--step", "score"], []),
    ],
)
def test_ls_filters(
    filters: list[str], labels: list[str], artifacts: Command, store: Store, chain: tuple[Commit, Commit]
) -> None:
    run_id = record_run(store, chain[0], recipe="demo")
    listed = artifacts("ls", "--json", *(run_id if word == "RUN" else word for word in filters))
    assert [item["label"] for item in listed.document["artifacts"]] == labels


def test_ls_of_a_limit_shows_the_newest_and_says_how_many_there_are(
    artifacts: Command, store: Store, chain: tuple[Commit, Commit]
) -> None:
    split, score = chain
    older, newer = record_run(store, split, recipe="older"), record_run(store, split, score, recipe="newer")
    for age, commit in ((30, split), (10, score)):
        put_back(store, f"v1/commits/{commit.step}/{commit.fingerprint}.json", age)
    put_back(store, f"v1/runs/{older}.json", 20)
    listed = artifacts("ls", "--json", "--limit", "1").document
    assert [item["label"] for item in listed["artifacts"]] == ["score[base]"]
    assert listed["artifacts"][0]["runs"] == [newer]
    assert listed["total"] == 2
    assert "The newest 1 of 2; --limit shows more." in artifacts("ls", "--limit", "1").output
    everything = artifacts("ls", "--json").document
    assert (len(everything["artifacts"]), everything["total"]) == (2, 2)
    assert everything["artifacts"][1]["runs"] == [newer, older]
    assert "--limit" not in artifacts("ls").output


def put_back(store: Store, key: str, seconds: float) -> None:
    """Have an object of a store in a folder look so much older."""
    path = Path(store.root, key)
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


@pytest.mark.parametrize("option", ["--step", "--recipe", "--run"])
def test_a_filter_that_nobody_knows_names_what_there_is(
    option: str, artifacts: Command, store: Store, chain: tuple[Commit, Commit]
) -> None:
    run_id = record_run(store, chain[0], recipe="demo")
    result = artifacts("ls", option, "none")
    assert result.status == 2
    assert {"--step": "score[base], split", "--recipe": "demo", "--run": run_id}[option] in result.errors


def test_show_takes_every_kind_of_id(artifacts: Command, chain: tuple[Commit, Commit]) -> None:
    split, score = chain
    relative = score.uri.removeprefix(f"{score.root}/")
    for ident in (score.uri, relative, score.fingerprint, score.fingerprint[:8]):
        shown = artifacts("show", ident, "--json").document
        assert shown["fingerprint"] == score.fingerprint
    assert shown["inputs"] == {"data": {"digest": split.digest, "uri": split.uri}}
    assert [entry["path"] for entry in shown["files"]] == ["aux/times.json", "train/0.parquet"]
    assert shown["payload"] == score.payload
    text = artifacts("show", score.uri).output
    for told in (score.uri, score.digest, "train/0.parquet", "config" in text.lower() and "seed"):
        assert str(told) in text


def test_an_id_of_several_artifacts_lists_them(artifacts: Command, chain: tuple[Commit, Commit]) -> None:
    split, score = chain
    assert split.digest == score.digest
    result = artifacts("show", split.digest[:10])
    assert result.status == 2
    for commit in chain:
        assert commit.artifact in result.errors
        assert commit.fingerprint[:12] in result.errors


@pytest.mark.parametrize("ident", ["00000000", "abc", "forget", "v1/data/split/none"])
def test_an_id_of_nothing_is_a_wrong_argument(
    ident: str, artifacts: Command, chain: tuple[Commit, Commit], tmp_path: Path
) -> None:
    for command in (["show"], ["verify"], ["rm", "--yes"], ["pin", "x"]):
        assert artifacts(*command, ident).status == 2
    assert artifacts("fetch", ident, tmp_path / "into").status == 2
    assert artifacts("show", ident, "--json").document["error"]


def test_a_store_that_is_not_there_is_a_wrong_argument(artifacts: Command, store: Store) -> None:
    result = artifacts("verify", "--all")
    assert result.status == 2
    assert f"there is no store at {store.root}" in result.errors


def test_verify_tells_what_is_wrong_by_its_exit_status(artifacts: Command, chain: tuple[Commit, Commit]) -> None:
    split, score = chain
    good = artifacts("verify", "--all")
    assert (good.status, good.errors) == (0, "")
    assert "2 artifacts" in good.output
    Path(split.uri, "train/0.parquet").write_bytes(b"ROWS")
    assert artifacts("verify", score.fingerprint).status == 0
    bad = artifacts("verify", split.fingerprint, "--json")
    assert bad.status == 1
    (fault,) = bad.document["faults"]
    assert (fault["uri"], fault["file"]) == (split.uri, "train/0.parquet")
    assert fault["expected"] != fault["found"] == file_sha256(Path(split.uri, "train/0.parquet"))
    assert "train/0.parquet" in artifacts("verify", "--all").output
    for arguments in ([], ["--all", split.fingerprint]):
        assert artifacts("verify", *arguments).status == 2


def test_fetch_takes_an_artifact_or_a_part(
    artifacts: Command, chain: tuple[Commit, Commit], tmp_path: Path
) -> None:
    split, _ = chain
    done = artifacts("fetch", split.fingerprint, tmp_path / "all", "--json").document
    assert (done["uri"], done["copied"], done["kept"]) == (split.uri, 2, 0)
    assert (tmp_path / "all/aux/times.json").read_bytes() == b"12:00"
    assert artifacts("fetch", split.fingerprint, tmp_path / "all", "--json").document["kept"] == 2
    assert artifacts("fetch", split.output_uri("train"), tmp_path / "part").status == 0
    assert (tmp_path / "part/0.parquet").read_bytes() == b"rows"


def test_fetch_touches_nothing_that_is_not_its_own(
    artifacts: Command, chain: tuple[Commit, Commit], tmp_path: Path
) -> None:
    split, score = chain
    into, outside = tmp_path / "into", tmp_path / "outside"
    outside.mkdir()
    cases: list[Callable[[], object]] = [
        lambda: write_files(into, {"notes.txt": b"mine"}),
        lambda: write_files(into, {"train/0.parquet": b"mine"}),
        lambda: (into.mkdir(), (into / "train").symlink_to(outside)),
        lambda: (into / "train").mkdir(parents=True) or (into / "train/0.parquet").symlink_to(outside / "x"),
    ]
    for make in cases:
        make()
        before = sorted(tmp_path.rglob("*"))
        result = artifacts("fetch", split.fingerprint, into)
        assert result.status == 2
        assert "not this artifact's" in result.errors
        assert sorted(tmp_path.rglob("*")) == before
        into.rename(tmp_path / f"case {len(before)}")
    assert artifacts("fetch", split.fingerprint, into).status == 0
    assert artifacts("fetch", score.fingerprint, into).status == 2, "another artifact's folder"


def test_rm_asks_and_makes_the_step_run_again(
    artifacts: Command, store: Store, chain: tuple[Commit, Commit]
) -> None:
    _, score = chain
    refused = artifacts("rm", score.fingerprint)
    assert refused.status == 2
    assert "--yes" in refused.errors
    assert store.lookup("score", score.fingerprint)
    assert artifacts("rm", "--yes", score.fingerprint).status == 0
    assert store.lookup("score", score.fingerprint) is None
    assert store.exists(score.uri)
    (kept,) = Path(store.root, "v1/history/score", score.fingerprint).iterdir()
    assert json.loads(kept.read_bytes())["fingerprint"] == score.fingerprint
    gone = artifacts("show", score.fingerprint)
    assert gone.status == 2
    assert "its commit was removed on" in gone.errors


def test_pins_are_set_and_removed(artifacts: Command, chain: tuple[Commit, Commit]) -> None:
    split, _ = chain
    assert artifacts("pin", "paper", split.uri, "--json").document["pins"]["paper"]["uri"] == split.uri
    assert artifacts("pin", "--remove", "paper", "--json").document["pins"] == {}
    for wrong in (["--remove", "paper"], ["--remove", "paper", split.uri], ["paper"], ["a/b", split.uri]):
        assert artifacts("pin", *wrong).status == 2


def test_gc_shows_before_it_deletes(artifacts: Command, store: Store, chain: tuple[Commit, Commit]) -> None:
    split, score = chain
    record_run(store, split)
    orphan = store.publish("forget", Path(split.uri) / "train")
    young = artifacts("gc", "--delete", "--json").document
    assert (young["garbage"], young["needed"], young["young"]) == ([], 1, 2)

    dry = artifacts("gc", "--grace", "0", "--json").document
    assert {(item["kind"], item["step"], item["collected"]) for item in dry["garbage"]} == {
        ("commit", "score[base]", None),
        ("upload", "forget", None),
    }
    assert store.exists(orphan.uri)
    shown = artifacts("gc", "--grace", "0").output
    assert "orphaned" in shown
    assert "add --delete" in shown
    done = artifacts("gc", "--grace", "0", "--delete", "--json").document
    assert [item["collected"] for item in done["garbage"]] == [True, True]
    assert not store.exists(orphan.uri)
    assert store.exists(score.uri)
    assert "deleted" in artifacts("gc", "--grace", "0", "--delete").output
    assert not store.exists(score.uri)
    assert artifacts("gc", "--grace", "0").output.startswith("Nothing to collect")
    assert artifacts("verify", "--all").status == 0


def test_every_command_has_an_example(artifacts: Command) -> None:
    for command in ("ls", "show", "verify", "fetch", "export", "rm", "pin", "gc"):
        assert f"Example: forgetting artifacts {command}" in artifacts(command, "--help").output


def test_ages_are_told_in_the_largest_whole_unit() -> None:
    from flows.artifact_views import age

    now = datetime.now(UTC)
    spans = {0: "now", 59: "59 s", 60: "1 min", 7199: "1 h", 90000: "1 d", -5: "now"}
    assert {seconds: age(now - timedelta(seconds=seconds), now) for seconds in spans} == spans
