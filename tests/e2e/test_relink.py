"""MLflow's database is deleted after two real runs: the store gives it back, and the next run links to it."""

import re
from typing import Any

import pytest
from mlflow import MlflowClient

from tests.cli import Cli, ran
from tests.mlflow_snapshot import snapshot

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli(tmp_path_factory.mktemp("relink") / "state")


def comparable(found: dict[str, Any]) -> dict[str, Any]:
    """Without what relinked runs say of their origin, and the curves that are in no checkpoint.

    Those are the machine's, and that of making the demo's base model.
    """
    for run in found["runs"].values():
        run["tags"].pop("relinked_from", None)
        kept = {
            name: points for name, points in run["metrics"].items() if not re.search("pretrain/|^system/", name)
        }
        run["metrics"] = kept
    return found


def dead_links(client: MlflowClient) -> set[str]:
    """Ids of runs that the notes link to and MLflow does not hold."""
    (experiment,) = client.search_experiments(filter_string="name = 'forgetting'")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    links = {link for run in runs for link in re.findall(r"/runs/(\w+)", run.data.tags["mlflow.note.content"])}
    assert links
    return links - {run.info.run_id for run in runs}


def test_a_deleted_database_comes_back_and_later_runs_link_to_it(cli: Cli) -> None:
    first = cli.json("run", "nano")
    second = cli.json("run", "nano", "--set", "partition.rho=0.5")
    database, lost = cli.state_dir / "mlflow.db", cli.state_dir / "lost.db"
    database.rename(lost)
    before = comparable(snapshot(f"sqlite:///{lost}"))

    relinked = cli.json("lineage", "--relink")
    assert [item["flow_run_id"] for item in relinked["changes"]] == [
        first["flow_run_id"],
        second["flow_run_id"],
    ]
    uri = f"sqlite:///{database}"
    after = comparable(snapshot(uri))
    assert after["runs"] == before["runs"]
    assert after["versions"] == before["versions"]
    assert after["models"] == before["models"]
    client = MlflowClient(uri, registry_uri=uri)
    assert dead_links(client) == set()
    for run, rho in ((first, "0.7"), (second, "0.5")):
        checked = cli.json("lineage", run["steps"]["forget"]["uri"], "--check")
        assert (checked["rho"], checked["faults"], checked["mlflow"]["without_run"]) == (rho, [], [])

    third = cli.json("run", "nano")
    assert ran(third) == set()
    (experiment,) = client.search_experiments(filter_string="name = 'forgetting'")
    children = client.search_runs(
        [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{third['mlflow_run_id']}'", max_results=100
    )
    assert len(children) == len(third["steps"])
    assert all(client.get_run(run.data.tags["producer_run_id"]).info.status == "FINISHED" for run in children)
    assert dead_links(client) == set()

    assert cli.json("lineage", "--relink")["changes"] == []
    assert "nothing changed" in cli.run("lineage", "--relink").stdout
