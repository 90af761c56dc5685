"""`forgetting compare` on `nano`, as a user runs it: two seeds, then again."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from infra.store import open_store
from tests.cli import Cli, ran

SEEDS = ("1", "2")
FINE_TUNED = {"forget", "forget[sft]"}


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli(tmp_path_factory.mktemp("compare") / "state")


@pytest.fixture(scope="module")
def compared(cli: Cli) -> dict[str, Any]:
    found: dict[str, Any] = cli.json("compare", "nano", "--seeds", ",".join(SEEDS), "--models", "base,sft")
    return found


def test_what_no_seed_changes_is_computed_once(compared: dict[str, Any]) -> None:
    again = ran(compared["runs"]["2"])
    assert again >= FINE_TUNED
    assert not again & {"prepare", "split", "reference", "score[base]", "score[reference]", "partition"}
    assert not {step for step in again if step.startswith("evaluate[base")}


def test_the_table_is_made_of_what_the_runs_measured(compared: dict[str, Any]) -> None:
    comparison = compared["comparison"]
    assert comparison["models"] == ["base", "sft", "forget"]
    assert comparison["seeds"] == [1, 2]
    assert {(line["task"], line["metric"]) for line in comparison["lines"]} == {
        ("held_out", "loss"),
        ("skills", "exact_match"),
    }
    for line in comparison["lines"]:
        for model in comparison["models"]:
            measured = {
                seed: compared["runs"][seed]["metrics"][model][line["task"]][line["metric"]] for seed in SEEDS
            }
            assert line["models"][model]["per_seed"] == measured
        for model in ("base", "forget"):
            differences = line["differences"][model]
            assert differences["low"] <= differences["mean"] <= differences["high"]
            for seed in SEEDS:
                own, other = (line["models"][name]["per_seed"][seed] for name in (model, "sft"))
                assert differences["per_seed"][seed] == pytest.approx(own - other, abs=1e-9)


def test_mlflow_has_the_comparison_beside_its_runs_with_its_page(cli: Cli, compared: dict[str, Any]) -> None:
    client = MlflowClient(f"sqlite:///{cli.state_dir / 'mlflow.db'}")
    (experiment,) = [one for one in client.search_experiments() if one.name == "forgetting"]
    chosen = f"tags.prefect_parent_flow_run_id = '{compared['compare_id']}' and tags.step = 'pipeline'"
    runs = client.search_runs([experiment.experiment_id], chosen)
    assert {run.info.run_name.split(" · ")[0] for run in runs} == {f"nano ρ=0.7 seed={seed}" for seed in SEEDS}
    assert {run.data.params["seed"] for run in runs} == set(SEEDS)
    own = f"tags.prefect_flow_run_id = '{compared['compare_id']}' and tags.step = 'pipeline'"
    (run,) = client.search_runs([experiment.experiment_id], own)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"seeds": "1, 2", "models": "base, sft, forget", "against": "sft"}
    assert "difference/forget/held_out/loss" in run.data.metrics
    page = client.download_artifacts(run.info.run_id, "comparison.html", str(cli.state_dir))
    assert "Differences to sft" in Path(page).read_text()


def test_again_nothing_is_computed_and_the_table_is_the_same(cli: Cli, compared: dict[str, Any]) -> None:
    again = cli.json("compare", "nano", "--seeds", "1,2", "--models", "base,sft")
    assert not ran(again["runs"]["1"]) | ran(again["runs"]["2"])
    assert json.dumps(again["comparison"]) == json.dumps(compared["comparison"])
    assert again["uri"] == compared["uri"]


def test_no_seed_of_a_comparison_becomes_the_recipes_own_run_and_model(cli: Cli, compared: dict[str, Any]) -> None:
    assert open_store(str(cli.state_dir / "store")).read_head("nano") is None
    client = MlflowClient(f"sqlite:///{cli.state_dir / 'mlflow.db'}")
    versions = client.search_model_versions("name = 'nano'")
    assert {version.tags["seed"] for version in versions} == set(SEEDS)
    assert not client.get_registered_model("nano").aliases


def forget_commit(cli: Cli, *, seed: int) -> Path:
    """The record of the recipe's own fine-tune with this seed."""
    for path in (cli.state_dir / "store/v1/commits/forget").glob("*.json"):
        commit = json.loads(path.read_bytes())
        if commit["provenance"]["label"] == "forget" and commit["payload"]["config"]["forget"]["seed"] == seed:
            return path
    raise LookupError(f"no fine-tune with seed {seed}")


def test_a_seed_that_fails_is_left_out_of_the_table_and_named(cli: Cli, compared: dict[str, Any]) -> None:
    record = forget_commit(cli, seed=2)
    whole = record.read_bytes()
    record.write_bytes(b"{")
    process = cli.run("compare", "nano", "--seeds", "1,2", "--models", "base,sft", "--json", status=1)
    record.write_bytes(whole)
    document = json.loads(process.stdout)
    assert document["comparison"]["seeds"] == [1]
    assert set(document["runs"]["1"]["metrics"]) == {"base", "sft", "forget"}
    assert "forget" in document["runs"]["2"]["error"]
    assert "error: seed 2: forget" in process.stderr
    assert "what is done is kept; continue with:" in process.stderr


def test_ctrl_c_in_the_last_step_keeps_what_the_runs_have_done(cli: Cli, compared: dict[str, Any]) -> None:
    process = cli.start("compare", "nano", "--seeds", "2", "--models", "base,sft", "--json")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("compare: started"):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    document = json.loads(out)
    assert document["comparison"] is None
    assert document["error"] == "compare: interrupted"
    assert set(document["runs"]["2"]["metrics"]) == {"base", "sft", "forget"}
    assert "error: compare: interrupted" in err
    assert "Traceback" not in err


def test_what_cannot_be_compared_is_refused_before_anything_runs(cli: Cli) -> None:
    for arguments, message in (
        (("--seeds", "1,1"), "--seeds: 1, 1; give one seed at least, and each once"),
        (("--seeds", ""), "expected whole numbers"),
        (("--seeds", "one"), "expected whole numbers"),
        (("--models", "forget"), "nothing to compare forget with"),
        (("--models", "gpt"), "--models: 'gpt' is none; expected some of base, sft"),
        (("--models", "sft,"), "--models: '' is none"),
        (("--models", "sft,sft"), "give each model once"),
        (("--set", "forget.seed=3"), "a comparison sets forget.seed itself"),
        (("--set", "evaluate.tasks=[]", "--set", "split.validation_rows=0"), "nothing to compare by"),
    ):
        failed = cli.run("compare", "nano", *arguments, status=2)
        assert message in failed.stderr
