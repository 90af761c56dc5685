"""What an auditor reads: the experiment's page, and tables that hostile names cannot break."""

import json

import pytest
from mlflow import MlflowClient

from infra.lineage_mlflow import safe_key
from infra.lineage_notes import escape_markdown, pipeline_note
from infra.lineage_records import StepRecord, Trail
from tests.lineage import produced, start

NOTE = "mlflow.note.content"


def view_columns(client, experiment_id):
    view = json.loads(client.get_experiment(experiment_id).tags["mlflow.sharedViewState.pipeline-runs"])
    return json.loads(view["state"])["selectedColumns"]


def test_experiment_says_what_it_is_and_has_a_view_that_grows_with_the_metrics(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    lineage = start(uri)
    client = MlflowClient(uri, registry_uri=uri)
    assert "viewStateShareKey=pipeline-runs" in client.get_experiment(lineage.experiment_id).tags[NOTE]
    client.set_experiment_tag(lineage.experiment_id, NOTE, "edited")
    lineage.finish("FINISHED", metrics={"forget/a/acc": 0.5}, headline=["forget/a/acc"])
    again = start(uri)
    again.finish("FINISHED", headline=["forget/b/acc"])
    assert client.get_experiment(lineage.experiment_id).tags[NOTE] == "edited"
    columns = view_columns(client, lineage.experiment_id)
    assert columns[:2] == ["tags.`recipe`", "params.`rho`"]
    assert columns[-2:] == ["metrics.`forget/a/acc`", "metrics.`forget/b/acc`"]


@pytest.mark.security("markup in reports, in MLflow and in the terminal")
def test_escaped_text_is_one_line_without_markup():
    assert escape_markdown("a|b *c*\n<d> & e_f") == r"a\|b \*c\* &lt;d&gt; &amp; e\_f"


def test_table_that_does_not_fit_counts_what_is_left_out():
    item = produced("losses")
    records = [
        StepRecord(f"score[{n}]", "r" * 32, "ran", None, None, {}, [], {}, outputs=[item]) for n in range(100)
    ]
    note = pipeline_note(Trail("1", "r" * 32, "title", records, {}), limit=3000)
    shown = note.count("| ran")
    assert len(note) <= 3000
    assert note.endswith(f"{100 - shown} more in lineage.json of the pipeline run.")


@pytest.mark.parametrize(
    ("key", "safe"),
    [("acc,none", "acc_none"), ("a//b/../c", "a/c"), ("/x", "x"), ("..", "_"), ("token losses", "token losses")],
)
def test_keys_are_made_fit_for_mlflow(key, safe):
    assert safe_key(key) == safe
