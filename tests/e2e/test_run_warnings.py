"""A run that forgets far too much succeeds, and says so wherever a person or a program looks."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli import Cli, ran, states

ABSURD = ("forget.lambda={schedule: constant, t_min: 0, t_max: 5}", "forget.learning_rate=5e-3", "forget.epochs=4")
CHANGES = [f"--set={change}" for change in (*ABSURD, "forget.eval_steps=9", "baselines=[base]")]
KINDS = ("negative loss running away", "held-out loss rising", "positives' gain below the noise")


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli(tmp_path_factory.mktemp("warnings") / "state")


@pytest.fixture(scope="module")
def document(cli: Cli) -> dict[str, Any]:
    return cli.json("run", "nano", *CHANGES)


def test_the_document_has_every_warning_with_figures_and_what_to_change(document: dict[str, Any]) -> None:
    assert [warning.partition(": ")[0] for warning in document["warnings"]] == list(KINDS)
    assert all(
        "forget.lambda.t_max (now 5; try 0.5)" in warning and "npo" in warning for warning in document["warnings"]
    )


def test_the_terminal_tells_them_again_when_everything_is_cached(cli: Cli, document: dict[str, Any]) -> None:
    finished = cli.run("run", "nano", *CHANGES)
    assert "report: cached" in finished.stderr
    told = [line for line in finished.stderr.splitlines() if line.startswith("warning: ")]
    assert told == [f"warning: {warning}" for warning in document["warnings"]]


def test_the_page_and_the_registered_model_carry_them(cli: Cli, document: dict[str, Any]) -> None:
    page = (Path(document["steps"]["report"]["uri"]) / "report.html").read_text(encoding="utf-8")
    assert all(kind.replace("'", "&#39;") in page for kind in KINDS)
    assert page.index('id="warnings"') < page.index('id="benchmarks"')
    assert "loss of held-out rows (nats)" in page

    from mlflow import MlflowClient

    version = MlflowClient(f"sqlite:///{cli.state_dir / 'mlflow.db'}").get_model_version_by_alias("nano", "current")
    assert version.tags["warnings"] == ", ".join(KINDS)


def test_the_curve_of_the_held_out_loss_ends_where_the_evaluation_does(document: dict[str, Any]) -> None:
    folder = Path(document["steps"]["forget"]["uri"])
    lines = [json.loads(line) for line in (folder / "aux/metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["validation/loss"] for line in lines if "validation/loss" in line}
    assert list(losses) == [0, 9, 18, 27, 36]
    for step, model in ((0, "base"), (36, "forget")):
        assert losses[step] == pytest.approx(document["metrics"][model]["held_out"]["loss"], rel=1e-5)


def test_measuring_less_often_trains_again_to_the_very_model(cli: Cli, document: dict[str, Any]) -> None:
    again = cli.json("run", "nano", *CHANGES, "--set=forget.eval_steps=null")
    assert ran(again) == {"forget", "report"}
    assert again["steps"]["forget"]["digest"] == document["steps"]["forget"]["digest"]
    assert states(again)["evaluate[forget,held_out]"] == "cached"
