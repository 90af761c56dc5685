"""Other ways to choose and to forget, by the command line: what runs again, and what the user sees of it."""

from pathlib import Path
from typing import Any

import pytest

from infra.lineage import CURRENT_ALIAS
from tests.cli import Cli, ran

pytestmark = pytest.mark.slow
ALONE = ("--set", "baselines=[]")
BY_THRESHOLD = ("--set", "partition.threshold=0.0", "--set", "partition.rho=null")


def evaluated(model: str) -> set[str]:
    return {f"evaluate[{model},{task}]" for task in ("skills", "held_out")}


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli(tmp_path_factory.mktemp("variants") / "state")


@pytest.fixture(scope="module")
def first(cli: Cli) -> dict[str, Any]:
    return cli.json("run", "nano", *ALONE)


def test_a_threshold_and_its_share_are_shown_wherever_rho_is(cli: Cli, first: dict[str, Any]) -> None:
    from mlflow import MlflowClient

    planned = {step["step"]: step["reasons"] for step in cli.json("plan", "nano", *ALONE, *BY_THRESHOLD)["steps"]}
    changes = {reason["field"]: (reason["old"], reason["new"]) for reason in planned["partition"]}
    assert changes == {"partition.rho": ("0.7", None), "partition.threshold": (None, "0")}

    document = cli.json("run", "nano", *ALONE, *BY_THRESHOLD)
    assert ran(document) == {"partition", "forget", *evaluated("forget"), "report"}
    page = (Path(document["steps"]["report"]["uri"]) / "report.html").read_text(encoding="utf-8")
    assert "<title>nano, threshold=0 · forgetting</title>" in page

    lineage = cli.json("lineage", document["steps"]["forget"]["uri"], "--check")
    assert (lineage["rho"], lineage["threshold"], lineage["faults"]) == (None, "0", [])
    assert 0 < lineage["positive_share"] < 1

    client = MlflowClient(f"sqlite:///{cli.state_dir / 'mlflow.db'}")
    pipeline = client.get_run(document["mlflow_run_id"])
    assert pipeline.info.run_name.startswith("nano threshold=0")
    assert pipeline.data.params["threshold"] == "0" and "rho" not in pipeline.data.params
    assert pipeline.data.metrics["positive_share"] == lineage["positive_share"]
    assert client.get_model_version_by_alias("nano", CURRENT_ALIAS).tags["threshold"] == "0"


def test_baselines_with_other_labels_or_another_loss_run_beside_what_is_there(
    cli: Cli, first: dict[str, Any]
) -> None:
    document = cli.json("run", "nano", "--set", "baselines=[npo,random]")
    assert ran(document) == {
        "partition[random]",
        "forget[npo]",
        "forget[random]",
        *evaluated("npo"),
        *evaluated("random"),
        "report",
    }
    assert document["metrics"].keys() == {"npo", "random", "forget"}
    # what a baseline has computed is there for a recipe that has it as its own
    own = cli.json("run", "nano", *ALONE, "--set", "forget.negative=npo")
    assert ran(own) == {"report"}
    assert own["steps"]["forget"]["digest"] == document["steps"]["forget[npo]"]["digest"]
    labelled = cli.json("run", "nano", *ALONE, "--set", "partition.labelling=random")
    assert ran(labelled) == {"report"}


def test_the_planted_noise_labels_the_tokens_by_itself(cli: Cli, first: dict[str, Any]) -> None:
    document = cli.run("run", "nano", *ALONE, "--set", "partition.labelling=oracle_noise")
    assert "Planted noise: 100.0% of" in document.stdout
