"""`forgetting lineage` as an auditor meets it: the way back, and whatever was tampered with on it."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from infra.store import open_store
from tests.stores import make_step, write_files
from tests.unit.flows.lineage_world import BASE, RAW, WALKED, Command, World, record_comparison


def test_the_tree_leads_from_the_model_to_the_raw_data(lineage: Command, world: World) -> None:
    shown = lineage("demo")
    assert (shown.status, shown.errors) == (0, "")
    lines = shown.output.splitlines()
    assert lines[0].startswith("demo/1, ρ 0.7")
    places = [next(n for n, line in enumerate(lines) if told in line) for told in ("forget", "partition ρ 0.7")]
    assert places == sorted(places)
    for label, commit in world.commits.items():
        assert label in shown.output
        assert commit.digest[:12] in shown.output
        assert commit.artifact in shown.output
    for told in (
        "token_labels ← partition",
        "train/ of",
        "(shown above)",
        "c0ffeec0ffee",
        "2026-01-02T03:00:00+00:00 on node7",
    ):
        assert told in shown.output
    for leaf in (RAW, BASE):
        assert f"{leaf.uri} {leaf.digest[:12]} outside the store" in shown.output


def test_every_way_to_name_a_model_gives_the_same_document(lineage: Command, world: World) -> None:
    forget = world.commits["forget"]
    ways = (
        "demo",
        "demo/1",
        "models:/demo/1",
        f"{world.root}/{forget.artifact}",
        forget.artifact,
        forget.digest[:9],
    )
    first, *others = [lineage(way, "--json").document for way in (*ways, forget.fingerprint)]
    assert all(other == first for other in others)
    assert first["steps"][0]["step"] == "forget"
    assert {step["step"] for step in first["steps"]} == set(WALKED)
    assert first["rho"] == "0.7"
    assert [(model["name"], model["version"]) for model in first["models"]] == [("demo", "1")]
    inputs = first["steps"][0]["inputs"]
    assert inputs["base"] == {"digest": BASE.digest, "uri": BASE.uri, "made_by": None}
    assert inputs["data"]["made_by"]["part"] == "train"
    partition = next(step for step in first["steps"] if step["step"] == "partition")
    assert inputs["token_labels"]["made_by"]["fingerprint"] == partition["fingerprint"]
    assert (partition["host"], partition["rho"]) == ("node7", "0.7")


def test_an_untouched_lineage_is_clean(lineage: Command) -> None:
    checked = lineage("demo", "--check")
    assert (checked.status, checked.errors) == (0, "")
    assert "6 artifacts read" in checked.output
    assert "all as committed" in checked.output


def test_a_comparison_leads_to_the_models_whose_curves_it_read(lineage: Command, world: World) -> None:
    """A model is too large to be staged for its curves: they are an input of their own, a file of its artifact."""
    record_comparison(world)
    argument = world.commits["compare"].artifact
    shown = lineage(argument)
    assert (shown.status, shown.errors) == (0, "")
    assert "curves:1,forget ← aux/metrics.jsonl of forget" in shown.output
    checked = lineage(argument, "--check", "--json")
    assert (checked.status, checked.faults) == (0, [])
    made_by = checked.document["steps"][0]["inputs"]["curves:1,forget"]["made_by"]
    assert (made_by["fingerprint"], made_by["part"]) == (
        world.commits["compared"].fingerprint,
        "aux/metrics.jsonl",
    )


def test_tampered_curves_of_a_compared_model_are_named(lineage: Command, world: World) -> None:
    record_comparison(world)
    argument, compared = world.commits["compare"].artifact, world.commits["compared"]
    world.path("compared", "aux/metrics.jsonl").write_bytes(b'{"lr": 0.9, "step": 1}\n')
    ((uri, file, _, found),) = lineage(argument, "--check", "--json").faults
    assert (uri, file) == (compared.uri, "aux/metrics.jsonl")

    manifest = world.path("compared", "manifest.json")
    data = json.loads(manifest.read_bytes())
    next(entry for entry in data["files"] if entry["path"] == file)["sha256"] = found
    manifest.write_text(json.dumps(data))
    ((_, file, expected, _),) = lineage(argument, "--check", "--json").faults
    assert file == str(world.record("compare").relative_to(world.root)), (
        "the manifest fits; the comparison does not"
    )
    assert "curves:1,forget" in expected


def test_a_compared_model_that_was_evicted_and_made_again_is_no_fault(
    lineage: Command, world: World, tmp_path: Path
) -> None:
    """Curves say when each step was; those of the second training are others, and its content is the same."""
    record_comparison(world)
    store, old = open_store(str(world.root)), world.commits["compared"]
    files = {"model.bin": b"another model", "aux/metrics.jsonl": b"{}"}
    artifact = store.publish("forget", write_files(tmp_path / "again", files))
    store.replace(old, old.model_copy(update={"artifact": artifact.uri.removeprefix(f"{store.root}/")}))
    shutil.rmtree(world.root / old.artifact)
    checked = lineage(world.commits["compare"].artifact, "--check", "--json")
    assert (checked.status, checked.faults) == (0, [])


def test_a_tampered_label_file_is_named(lineage: Command, world: World) -> None:
    world.path("partition", "labels.bin").write_bytes(b"lAbels")
    assert lineage("demo").status == 0, "reading every file takes --check"
    checked = lineage("demo", "--check", "--json")
    assert checked.status == 1
    uri = f"{world.root}/{world.commits['partition'].artifact}"
    expected, found = (hashlib.sha256(text).hexdigest() for text in (b"labels", b"lAbels"))
    assert checked.faults == [(uri, "labels.bin", expected, found)]
    assert "labels.bin" in lineage("demo", "--check").output


def test_a_swapped_checkpoint_is_named_though_its_manifest_fits(lineage: Command, world: World) -> None:
    ours, other = (world.root / world.commits[label].artifact for label in ("forget", "reference"))
    shutil.rmtree(ours)
    shutil.copytree(other, ours)
    digests = world.commits["forget"].digest, world.commits["reference"].digest
    checked = lineage("demo", "--check", "--json")
    assert checked.status == 1
    assert checked.faults == [(str(ours), "", *digests)]


@pytest.mark.parametrize("label", ["forget", "partition"])
def test_an_edited_commit_is_named_and_the_walk_goes_on(label: str, lineage: Command, world: World) -> None:
    world.edit(label, lambda data: data["payload"]["config"].update(partition={"rho": "0.9"}))
    seen = lineage("demo", "--json")
    assert seen.status == 1, "what reading shows to be wrong needs no --check"
    ((uri, file, expected, found),) = seen.faults
    assert f"{uri}/{file}" == str(world.record(label))
    assert world.commits[label].fingerprint in expected
    assert found not in expected
    assert {step["step"] for step in seen.document["steps"]} == set(WALKED)
    assert "its commit was altered" in lineage("demo").output


def test_a_threshold_is_shown_with_the_share_that_came_of_it(lineage: Command, world: World) -> None:
    def choose_by_threshold(data: dict[str, Any]) -> None:
        data["payload"]["config"].update(partition={"rho": None, "threshold": "0", "labelling": "influence"})
        data["summary"].update(positive_share=0.25)

    world.edit("partition", choose_by_threshold)
    document = lineage("demo", "--json").document
    assert (document["rho"], document["threshold"], document["positive_share"]) == (None, "0", 0.25)
    heading, *tree = lineage("demo").output.splitlines()
    assert heading.startswith("demo/1, threshold 0 (25.0% positive)")
    assert any("partition threshold 0 (25.0% positive)" in line for line in tree)


def test_an_input_that_is_not_what_its_producer_made_is_named(lineage: Command, world: World) -> None:
    """The address of an input is no part of the fingerprint; where it leads is compared."""
    other = world.commits["reference"]
    world.edit("forget", lambda data: data["inputs"]["token_labels"].update(uri=other.artifact))
    ((_, file, expected, found),) = lineage("demo", "--json").faults
    assert file == str(world.record("forget").relative_to(world.root))
    assert f"token_labels: reference made {other.digest}" in expected
    assert found == world.commits["partition"].digest


def test_commits_that_name_each_other_do_not_go_in_circles(lineage: Command, world: World) -> None:
    forget = world.commits["forget"]
    world.edit("split", lambda data: data["inputs"]["train"].update(uri=forget.artifact))
    circle = lineage("demo", "--json")
    assert circle.status == 1
    assert f"train: forget made {forget.digest}" in circle.faults[0][2]
    assert lineage("demo").status == 1


def test_a_commit_that_is_gone_or_no_commit_at_all_is_named(lineage: Command, world: World) -> None:
    artifact = world.commits["partition"].artifact
    world.record("partition").write_text("{")
    broken = lineage("demo", "--json")
    ((_, file, _, found),) = broken.faults
    assert (broken.status, file) == (1, artifact)
    assert world.record("partition").name in found
    asked = lineage(artifact)
    assert asked.status == 1
    assert str(world.record("partition")) in asked.errors
    world.record("partition").unlink()
    ((_, file, _, found),) = lineage("demo", "--json").faults
    assert (file, found) == (artifact, "nothing")


def test_a_commit_forged_as_a_whole_contradicts_its_mlflow_run(lineage: Command, world: World) -> None:
    """Payload, fingerprint and file name fit together; what the run recorded does not."""
    from infra.fingerprint import fingerprint

    def forge(data: dict[str, Any]) -> None:
        data["payload"]["config"]["partition"]["rho"] = "0.9"
        data["fingerprint"] = fingerprint(data["payload"])

    world.edit("partition", forge)
    forged = json.loads(world.record("partition").read_bytes())["fingerprint"]
    world.record("partition").rename(world.record("partition").with_name(f"{forged}.json"))
    assert lineage("demo").status == 0
    checked = lineage("demo", "--check", "--json")
    assert {(file, expected, found) for _, file, expected, found in checked.faults} == {
        ("fingerprint", forged, world.commits["partition"].fingerprint),
        ("rho", "0.9", "0.7"),
    }


@pytest.mark.parametrize(
    ("tag", "value"), [("digest", "0" * 64), ("uri", "/elsewhere/v1/data/forget/other"), ("rho", "0.1")]
)
def test_a_registered_version_that_disagrees_is_named(tag: str, value: str, lineage: Command, world: World) -> None:
    world.client().set_model_version_tag("demo", "1", tag, value)
    checked = lineage("demo", "--check", "--json")
    assert checked.status == 1
    assert [(uri, file, found) for uri, file, _, found in checked.faults] == [("models:/demo/1", tag, value)]


@pytest.mark.parametrize(("tag", "value"), [("digest", "0" * 64), ("uri", "/elsewhere/v1/data/forget/other")])
def test_a_logged_model_that_disagrees_is_named(tag: str, value: str, lineage: Command, world: World) -> None:
    model_id = world.client().get_model_version("demo", "1").source.removeprefix("models:/")
    world.client().set_logged_model_tags(model_id, {tag: value})
    for argument in ("demo", world.commits["forget"].digest):
        checked = lineage(argument, "--check", "--json")
        assert [(uri, file, found) for uri, file, _, found in checked.faults] == [
            (f"MLflow model {model_id}", tag, value)
        ]


def test_without_mlflow_the_store_answers_alone_and_says_so(
    lineage: Command, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = world.root.parent / "gone.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{gone}")
    for argument in (world.commits["forget"].artifact, "demo"):
        found = lineage(argument, "--check", "--json")
        assert found.status == 0
        assert "from the store alone" in found.errors
        assert {step["step"] for step in found.document["steps"]} == set(WALKED)
        assert str(gone) in found.document["mlflow"]["unreachable"]
    assert "checked with the store alone" in lineage("demo", "--check").output
    for argument in ("demo/1", "none"):
        unknown = lineage(argument)
        assert unknown.status == 2
        assert str(gone) in unknown.errors
    assert not gone.exists(), "a question creates no database"


def test_runs_that_mlflow_has_lost_are_told_and_are_no_fault(lineage: Command, world: World) -> None:
    run_id = json.loads(world.record("split").read_bytes())["provenance"]["mlflow_run_id"]
    world.edit("split", lambda data: data["provenance"].update(mlflow_run_id=run_id[::-1]))
    checked = lineage("demo", "--check", "--json")
    assert (checked.status, checked.document["mlflow"]["without_run"]) == (0, ["split"])
    assert "holds no run of: split" in checked.errors


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("none", "has the models: demo"),
        ("demo/7", "its versions are: demo/1"),
        ("00000000", "no artifact in"),
        ("/no/where", "expected a registered model"),
        ("v1/data/forget/none", "no commit in"),
    ],
)
def test_what_is_unknown_is_a_wrong_argument(argument: str, told: str, lineage: Command) -> None:
    result = lineage(argument)
    assert result.status == 2
    assert told in result.errors


def test_what_is_ambiguous_lists_the_candidates(lineage: Command, world: World, tmp_path: Path) -> None:
    same = write_files(tmp_path / "same", {"model.bin": b"model"})
    twin = make_step(open_store(str(world.root)), same, "forget")
    result = lineage(twin.digest[:10])
    assert result.status == 2
    for commit in (twin, world.commits["forget"]):
        assert commit.artifact in result.errors


@pytest.mark.parametrize(
    ("name", "edited"),
    [("git_commit", "f" * 40), ("git_dirty", True), ("host", "elsewhere"), ("started", "2020-01-01")],
)
def test_an_edited_provenance_contradicts_its_mlflow_run(
    name: str, edited: object, lineage: Command, world: World
) -> None:
    """The provenance is part of no digest and of no fingerprint; MLflow is the witness."""
    world.edit("partition", lambda data: data["provenance"].update({name: edited}))
    checked = lineage("demo", "--check", "--json")
    assert checked.status == 1
    ((uri, file, expected, found),) = checked.faults
    assert uri.endswith(" of partition")
    assert (file, expected, found) == (name, str(edited), str(world.commits["partition"].provenance[name]))


@pytest.mark.parametrize("label", ["forget", "partition"])
def test_an_edited_digest_is_named(label: str, lineage: Command, world: World) -> None:
    commit = world.commits[label]
    world.edit(label, lambda data: data.update(digest="0" * 64))
    checked = lineage(f"{world.root}/{world.commits['forget'].artifact}", "--check", "--json")
    assert checked.status == 1
    assert (f"{world.root}/{commit.artifact}", "", "0" * 64, commit.digest) in checked.faults
