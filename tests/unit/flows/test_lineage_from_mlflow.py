"""`forgetting lineage` when the store cannot be read: what MLflow remembers, and that it says so."""

import json
import shutil
from typing import Any

import pytest

from tests.unit.flows.lineage_world import BASE, RAW, WALKED, Command, World

pytestmark = pytest.mark.usefixtures("recorded_here")
UNKNOWN = {"bytes", "version", "config"}
"""Of a step: what MLflow does not know, or not in the same form."""


def known(document: dict[str, Any]) -> dict[str, Any]:
    steps = {
        step["step"]: {key: value for key, value in step.items() if key not in UNKNOWN}
        for step in document["steps"]
    }
    return {**{key: document[key] for key in ("artifact", "rho", "models")}, "steps": steps}


@pytest.mark.parametrize("argument", ["demo", "models:/demo/1", "artifact", "digest"])
def test_mlflow_alone_tells_the_same_way_back(argument: str, lineage: Command, world: World) -> None:
    forget = world.commits["forget"]
    argument = {"artifact": f"{world.root}/{forget.artifact}", "digest": forget.digest[:9]}.get(argument, argument)
    before = lineage(argument, "--json").document
    shutil.rmtree(world.root)
    alone = lineage(argument, "--json")
    assert alone.status == 0
    assert f"there is no store at {world.root}" in alone.errors
    assert "from MLflow at" in alone.errors and "alone" in alone.errors
    assert known(alone.document) == known(before)
    assert {step["step"] for step in alone.document["steps"]} == set(WALKED)
    assert all(step["bytes"] is None for step in alone.document["steps"])
    assert str(world.root) in alone.document["store_unreachable"]
    assert before["store_unreachable"] is None


def test_the_tree_from_mlflow_leads_to_the_raw_data(lineage: Command, world: World) -> None:
    shutil.rmtree(world.root)
    tree = lineage("demo").output
    for told in ("partition ρ 0.7", "token_labels ← partition", "on node7", RAW.uri, BASE.uri):
        assert str(told) in tree
    assert "altered" not in tree


def test_a_check_that_cannot_read_the_store_is_not_passed(lineage: Command, world: World) -> None:
    shutil.rmtree(world.root)
    checked = lineage("demo", "--check", "--json")
    assert checked.status == 1
    assert "nothing could be checked" in checked.errors
    assert (checked.document["checked"], checked.document["faults"]) == (False, [])
    assert "as committed" not in lineage("demo", "--check").output


def test_a_bucket_that_nobody_answers_for_is_told_from_mlflow(
    lineage: Command, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    world.recorded_at("s3://bucket/store")
    address = f"s3://bucket/store/{world.commits['forget'].artifact}"
    alone = lineage(address, "--json", store=None)
    assert alone.status == 0
    assert {step["step"] for step in alone.document["steps"]} == set(WALKED)


def test_without_store_and_mlflow_both_causes_are_told(
    lineage: Command, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(world.root)
    gone = world.root.parent / "gone.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{gone}")
    for argument in ("demo", world.commits["forget"].digest):
        neither = lineage(argument, "--json")
        assert neither.status == 1
        assert str(world.root) in neither.errors and str(gone) in neither.errors
        assert json.loads(neither.output)["error"]


def test_a_store_that_mlflow_never_heard_of_is_a_wrong_argument(lineage: Command, world: World) -> None:
    unknown = lineage(world.commits["forget"].digest, store=f"{world.root}-other")
    assert unknown.status == 2
    assert f"--store: {world.root}" in unknown.errors


def test_a_record_that_cannot_be_read_does_not_send_one_to_mlflow(lineage: Command, world: World) -> None:
    """The store answers; that one of its records is broken is what there is to tell."""
    world.record("partition").write_text("{")
    found = lineage("demo", "--json")
    assert found.document["store_unreachable"] is None
    assert found.status == 1
