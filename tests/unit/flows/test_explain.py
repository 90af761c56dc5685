"""`forgetting explain` on a store that a run of `nano` would have left."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.explain import Explanation, explain
from flows.explain_text import explanation_lines
from flows.recipes import find_recipe
from forgetting_core.errors import InputError
from forgetting_core.recipe import load_recipe
from infra.store import Store, open_store
from tests.unit.flows.recorded import record_run

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("FORGETTING_STATE_DIR", str(tmp_path / "state"))
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def completed(store: Store, tmp_path: Path) -> Store:
    record_run(load_recipe(find_recipe("nano")), store, tmp_path / "scratch")
    return store


def lines(explanation: Explanation) -> list[str]:
    return [" ".join(line.split()) for line in explanation_lines(explanation)]


def causes(explanation: Explanation) -> list[tuple[str, object, object, list[str]]]:
    return [(cause.field, cause.old, cause.new, steps) for cause, steps in explanation.root_causes]


def test_nothing_differs_after_the_same_run(completed: Store) -> None:
    found = explain("forget", "nano", [], completed.root)
    assert found.target.planned.assessment.state == "cached"
    assert found.root_causes == [] and found.upstream == []
    assert found.target.is_last
    assert lines(found)[-1] == "root cause: none, nothing differs"


def test_a_changed_rho_is_the_root_cause_of_a_fine_tune_that_may_run(completed: Store) -> None:
    found = explain("forget", "nano", ["partition.rho=0.5"], completed.root)
    assert found.target.planned.assessment.state == "maybe"
    assert causes(found) == [("partition.rho", "0.7", "0.5", ["partition"])]
    assert [step.planned.label for step in found.upstream] == ["partition"]
    comparison = found.target.comparison
    assert comparison is not None and comparison.config == [] and comparison.unchanged == 21
    assert {change.name: change.differs for change in comparison.inputs} == {
        "base": False,
        "data": False,
        "token_labels": True,
    }
    assert found.target.sources == {"token_labels": "partition"}


def test_a_cause_far_upstream_is_followed_through_every_step_between(completed: Store) -> None:
    found = explain("evaluate[forget,skills]", "nano", ["synthetic.noise=0.2"], completed.root)
    assert causes(found) == [("synthetic.noise", 0.3, 0.2, ["prepare"])]
    between = ["prepare", "split", "reference", "score[base]", "score[reference]", "partition", "forget"]
    assert [step.planned.label for step in found.upstream] == between


def test_independent_causes_are_all_named_once(completed: Store) -> None:
    overrides = ["score.block_rows=32", "reference.learning_rate=1e-4", "forget.lambda.t_max=0.02"]
    found = explain("forget", "nano", overrides, completed.root)
    assert causes(found) == [
        ("reference.learning_rate", 0.001, 0.0001, ["reference"]),
        ("score.block_rows", 64, 32, ["score[base]", "score[reference]"]),
        ("forget.lambda.t_max", 0.01, 0.02, ["forget"]),
    ]


def test_a_list_among_the_changes_is_explained(completed: Store) -> None:
    found = explain("report", "nano", ["evaluate.tasks=[]"], completed.root)
    assert ("recipe.evaluate.tasks", ["skills"], [], ["report"]) in causes(found)


def test_execution_settings_are_shown_as_ignored(completed: Store) -> None:
    found = explain("forget", "nano", ["execution.device=cpu"], completed.root)
    assert found.target.planned.assessment.state == "cached"
    comparison = found.target.comparison
    assert comparison is not None
    assert [(r.field, r.old, r.new) for r in comparison.execution] == [("execution.device", "auto", "cpu")]
    assert found.root_causes == []


def test_a_step_cached_by_another_run_is_still_compared_with_the_last_one(completed: Store, tmp_path: Path) -> None:
    other = load_recipe(find_recipe("nano"), ["partition.rho=0.5"])
    head = completed.read_head("nano")
    record_run(other, completed, tmp_path / "scratch")
    assert head is not None
    completed.write_head("nano", head)
    found = explain("forget", "nano", ["partition.rho=0.5"], completed.root)
    assert found.target.planned.assessment.state == "cached"
    assert causes(found) == [("partition.rho", "0.7", "0.5", ["partition"])]


def test_a_change_without_effect_goes_no_further(store: Store, tmp_path: Path) -> None:
    """Early cut-off: the partition came out the same, so the fine-tune has nothing to explain."""
    for rho in ("0.7", "0.5"):
        recipe = load_recipe(find_recipe("nano"), [f"partition.rho={rho}"])
        record_run(recipe, store, tmp_path / "scratch", same_output=("partition",))
    found = explain("forget", "nano", ["partition.rho=0.7"], store.root)
    assert found.root_causes == []


def test_without_a_completed_run_the_nearest_commit_is_the_measure(completed: Store, tmp_path: Path) -> None:
    near = load_recipe(find_recipe("nano"), ["forget.epochs=2", "forget.learning_rate=3e-3"])
    record_run(near, completed, tmp_path / "scratch")
    (Path(completed.root) / "v1/heads/nano.json").unlink()
    found = explain("forget", "nano", ["forget.epochs=2"], completed.root)
    assert not found.target.is_last
    assert len(found.root_causes) == 1
    assert lines(found)[1].startswith("compared with the nearest earlier forget, not with a completed run of nano")


def test_an_empty_store_leaves_nothing_to_compare_with(store: Store) -> None:
    found = explain("forget", "nano", [], store.root)
    assert found.target.comparison is None
    assert lines(found)[1] == "compared with nothing: the store holds no earlier result of this step"
    assert lines(found)[-1].startswith("root cause: no earlier result in the store (prepare, split, ")


def test_a_deleted_artifact_is_a_cause(completed: Store) -> None:
    (folder,) = (Path(completed.root) / "v1/data/partition").iterdir()
    (folder / "manifest.json").unlink()
    found = explain("partition", "nano", [], completed.root)
    assert found.target.planned.assessment.state == "evicted"
    assert [cause.kind for cause, _ in found.root_causes] == ["missing"]
    # its commit still says which content came out, so the step below it stays cached
    assert explain("forget", "nano", [], completed.root).target.planned.assessment.state == "cached"


def test_an_unknown_step_is_answered_with_the_known_ones(completed: Store) -> None:
    with pytest.raises(InputError, match=r"no step score in recipe nano; its steps are .*score\[base\]"):
        explain("score", "nano", [], completed.root)


def test_the_command_reads_only_and_imports_no_heavy_library(completed: Store, tmp_path: Path) -> None:
    def files() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}

    before = files()
    code = (
        "import sys\nfrom flows.cli import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "assert not {'torch', 'prefect', 'mlflow', 'transformers'} & sys.modules.keys()\n"
    )
    arguments = ["forget", "nano", "--set", "partition.rho=0.5", "--store", completed.root, "--json"]
    done = subprocess.run(
        [sys.executable, "-c", code, "explain", *arguments],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["step"] == "forget" and document["state"] == "maybe"
    assert document["compared_with"]["basis"] == "last_run"
    assert document["because"][0]["step"] == "partition"
    assert document["root_causes"] == [
        {"kind": "config", "field": "partition.rho", "old": "0.7", "new": "0.5", "steps": ["partition"]}
    ]
    assert files() == before
