"""The whole DAG by the command line on the embedded defaults: nothing is started beforehand."""

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.cli import Cli, ran, states

STEPS = {
    "prepare",
    "split",
    "reference",
    "score[base]",
    "score[reference]",
    "partition",
    "forget[sft]",
    "forget[ignore]",
    "forget",
    "evaluate[base,skills]",
    "evaluate[base,held_out]",
    "evaluate[sft,skills]",
    "evaluate[sft,held_out]",
    "evaluate[ignore,skills]",
    "evaluate[ignore,held_out]",
    "evaluate[forget,skills]",
    "evaluate[forget,held_out]",
    "report",
}
EVALUATED = {f"evaluate[{model},{task}]" for model in ("ignore", "forget") for task in ("skills", "held_out")}
AFTER_RHO = {"partition", "forget[ignore]", "forget", *EVALUATED, "report"}
"""What a new ρ runs: the four steps, and `ignore` where it is a baseline."""


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli(tmp_path_factory.mktemp("nano") / "state")


@pytest.fixture(scope="module")
def first(cli: Cli) -> dict[str, Any]:
    """The first run on an empty state directory."""
    return cli.json("run", "nano")


def folder(document: dict[str, Any], step: str) -> Path:
    return Path(document["steps"][step]["uri"])


def test_every_step_runs_and_leaves_its_artifact(first: dict[str, Any]) -> None:
    assert ran(first) == STEPS
    for step in STEPS:
        assert (folder(first, step) / "manifest.json").is_file(), step
        assert len(first["steps"][step]["digest"]) == len(first["steps"][step]["fingerprint"]) == 64
    assert {path.name for path in folder(first, "forget").iterdir()} >= {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
    }
    assert "<svg" in (folder(first, "report") / "report.html").read_text()


def test_the_tables_have_the_columns_that_others_rely_on(first: dict[str, Any]) -> None:
    train = pq.read_table(folder(first, "split") / "train")
    losses = pq.read_table(folder(first, "score[base]") / "token_losses.parquet")
    labels = pq.read_table(folder(first, "partition") / "token_labels.parquet")
    assert train.column_names[:6] == ["row", "input_ids", "labels", "source_file", "source_row", "source"]
    assert train["row"].to_pylist() == losses["row"].to_pylist() == labels["row"].to_pylist()
    for tokens, loss, label in zip(train["labels"], losses["loss"], labels["label"], strict=True):
        response = np.array(tokens.as_py()) != -100
        response[0] = False
        assert np.array_equal(~np.isnan(np.array(loss.as_py(), dtype=float)), response)
        assert np.array_equal(np.array(label.as_py()) != 0, response)


def test_metrics_are_those_of_every_model(first: dict[str, Any]) -> None:
    assert first["metrics"].keys() == {"base", "sft", "ignore", "forget"}
    for model, metrics in first["metrics"].items():
        for task, values in metrics.items():
            stored = json.loads((folder(first, f"evaluate[{model},{task}]") / "metrics.json").read_text())
            assert stored[task] == values and ("protocol" in stored) == (task == "skills")
        assert metrics["held_out"]["loss"] > 0 and "exact_match" in metrics["skills"]


def test_a_second_run_computes_nothing_and_says_so(cli: Cli, first: dict[str, Any]) -> None:
    second = cli.run("run", "nano")
    assert "ran" not in {word for line in second.stdout.splitlines() for word in line.split()[1:2]}
    for step in STEPS:
        assert f"{step}: cached" in second.stderr
    assert "mlflow ui --backend-store-uri" in second.stdout
    with sqlite3.connect(cli.state_dir / "prefect" / "prefect.db") as database:
        query = "select count(*) from task_run where state_name = ?"
        assert database.execute(query, ("Cached",)).fetchone() == (len(STEPS),)
        assert database.execute(query, ("Completed",)).fetchone() == (len(STEPS),)


def test_a_new_rho_runs_what_the_plan_said(cli: Cli, first: dict[str, Any]) -> None:
    change = ("--set", "partition.rho=0.5")
    planned = cli.json("plan", "nano", *change)
    assert {step for step, state in states(planned).items() if state != "cached"} == AFTER_RHO
    (partition,) = [step for step in planned["steps"] if step["step"] == "partition"]
    assert partition["state"] == "run"
    assert partition["reasons"] == [{"kind": "config", "field": "partition.rho", "old": "0.7", "new": "0.5"}]
    assert ran(cli.json("run", "nano", *change)) == AFTER_RHO
    assert set(states(cli.json("plan", "nano", *change)).values()) == {"cached"}
    assert set(states(cli.json("plan", "nano", "--set", "partition.rho=0.50")).values()) == {"cached"}


def test_the_report_tells_its_run_and_mlflow_shows_it_whether_computed_or_cached(
    cli: Cli, first: dict[str, Any]
) -> None:
    page = (folder(first, "report") / "report.html").read_text()
    for step in STEPS - {"report"}:
        assert f">{first['steps'][step]['fingerprint']}</code>" in page, step
        assert f">{first['steps'][step]['digest']}</code>" in page, step
    assert page.count("▶ ran ·") == len(STEPS) - 1 and 'id="curves"' in page and 'id="sweep"' not in page
    swept, cached = (cli.json("run", "nano", "--set", f"partition.rho={rho}") for rho in ("0.5", "0.7"))
    page = (folder(swept, "report") / "report.html").read_text()
    assert page.count("✓ cached ·") == len(STEPS - AFTER_RHO) and 'id="sweep"' in page
    for document in (first, swept, cached):
        (shown,) = cli.state_dir.glob(f"mlartifacts/*/{document['mlflow_run_id']}/artifacts/report.html")
        assert shown.read_bytes() == (folder(document, "report") / "report.html").read_bytes()


def test_an_evicted_report_is_written_again_with_the_same_content(cli: Cli, first: dict[str, Any]) -> None:
    shutil.rmtree(folder(first, "report"))
    again = cli.json("run", "nano")
    assert ran(again) == {"report"}
    assert again["steps"]["report"]["digest"] == first["steps"]["report"]["digest"]
    page = (folder(again, "report") / "report.html").read_text()
    assert page.count("✓ cached ·") == len(STEPS) - 1 and 'id="curves"' in page and 'id="sweep"' in page


def test_a_plan_writes_nothing(cli: Cli, first: dict[str, Any]) -> None:
    def listing() -> dict[str, int]:
        # the embedded server of the run before may still be closing its database
        files = (path for path in cli.state_dir.rglob("*") if "prefect" not in path.parts)
        return {str(path): path.stat().st_mtime_ns for path in files}

    before = listing()
    cli.run("plan", "nano", "--set", "split.seed=7")
    assert listing() == before


def test_mlflow_holds_a_pipeline_run_with_a_child_per_step(cli: Cli, first: dict[str, Any]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{cli.state_dir / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'forgetting'")
    pipeline = client.get_run(first["mlflow_run_id"])
    assert pipeline.info.status == "FINISHED"
    children = client.search_runs(
        [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{pipeline.info.run_id}'", max_results=100
    )
    by_step = {run.data.tags["step"]: run for run in children}
    assert by_step.keys() == STEPS
    train = first["steps"]["split"]
    datasets = {item.dataset.name: item for item in by_step["score[base]"].inputs.dataset_inputs}
    assert train["uri"] in datasets["data"].dataset.source
    assert by_step["forget"].outputs.model_outputs and by_step["reference"].outputs.model_outputs
    curve = client.get_metric_history(by_step["forget"].info.run_id, "train/loss_negative")
    assert len(curve) == int(by_step["forget"].data.metrics["steps"])
    assert client.get_metric_history(pipeline.info.run_id, "train/loss_negative")


def test_the_lineages_of_two_rhos_name_the_same_reference_and_scores(cli: Cli, first: dict[str, Any]) -> None:
    other = cli.json("run", "nano", "--set", "partition.rho=0.5")
    found = [cli.json("lineage", run["steps"]["forget"]["uri"], "--check") for run in (first, other)]
    assert [document["rho"] for document in found] == ["0.7", "0.5"]
    assert [document["faults"] for document in found] == [[], []]
    assert not any(document["mlflow"]["without_run"] for document in found)
    ours, theirs = ({step["step"]: step["digest"] for step in document["steps"]} for document in found)
    assert {label for label in ours if ours[label] != theirs[label]} == {"partition", "forget"}
    assert {"reference", "score[base]", "score[reference]"} <= ours.keys()


def test_diversity_runs_alone_and_is_cached(cli: Cli, first: dict[str, Any]) -> None:
    def sampled(samples: int) -> dict[str, Any]:
        asked = f"evaluate.diversity={{prompts: 3, samples: {samples}, max_new_tokens: 4}}"
        return cli.json("run", "nano", "--set", asked)

    steps = {f"evaluate[{model},diversity]" for model in ("base", "sft", "ignore", "forget")}
    document = sampled(2)
    assert ran(document) == {*steps, "report"}
    assert ran(sampled(2)) == set()
    assert ran(sampled(3)) == {*steps, "report"}
    for model in ("base", "forget"):
        metrics = document["metrics"][model]
        assert metrics.keys() == {"skills", "held_out", "diversity"}
        assert metrics["diversity"]["prompts"] == 3 and 0 <= metrics["diversity"]["self_bleu"] <= 1
        lines = (folder(document, f"evaluate[{model},diversity]") / "samples/diversity.jsonl").read_text()
        assert [len(json.loads(line)["answers"]) for line in lines.splitlines()] == [2, 2, 2]
    page = (folder(document, "report") / "report.html").read_text()
    assert "2 answers to each prompt" in page and "lower is more diverse" in page


def test_a_wrong_recipe_is_one_message_and_status_2_before_anything_starts(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "state")
    wrong = cli.run("run", "nano", "--set", "partition.roh=0.5", status=2)
    assert "partition.roh: unknown key; did you mean `rho`?" in wrong.stderr
    assert "Traceback" not in wrong.stderr and not wrong.stdout
    assert not (cli.state_dir / "prefect").exists()
    assert "error" in cli.json("run", "no-such-recipe", status=2)
    cli.run("run", "nano", "--no-such-option", status=2)


def test_a_wrong_row_is_one_message_and_status_2(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a", "completion": 3}\n')
    from tests.tiny import save_model

    recipe = tmp_path / "own.yaml"
    model = save_model(tmp_path / "model")
    recipe.write_text(
        f"name: own\nmodel: {{path: {model}}}\ndata: {{train: [{rows}], template: plain}}\n"
        "split: {reference_rows: 1}\n"
    )
    wrong = Cli(tmp_path / "state").run("run", str(recipe), status=2)
    assert "rows.jsonl, line 2: field `completion`: expected a string, found the number 3" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_equal_steps_of_one_run_are_computed_once(tmp_path: Path) -> None:
    """The recipe's own objective is its baseline, too: one fingerprint, two places in the DAG."""
    cli = Cli(tmp_path / "state")
    twins = ("--set", "forget={objective: sft, mode: full, dtype: float32}", "--set", "baselines=[sft]")
    document = cli.json("run", "nano", *twins, "--set", "execution.concurrent_steps=2")
    pairs = [("forget", "forget[sft]"), ("evaluate[forget,skills]", "evaluate[sft,skills]")]
    for pair in pairs:
        assert sorted(document["steps"][step]["state"] for step in pair) == ["cached", "ran"]
        assert len({document["steps"][step]["uri"] for step in pair}) == 1


def test_every_share_from_none_to_all_is_legal(cli: Cli, first: dict[str, Any]) -> None:
    output = cli.run("run", "nano", "--set", "partition.rho=1", "--set", "baselines=[]").stdout
    assert "0.0% of" in output and "– of the negatives are noise" in output
