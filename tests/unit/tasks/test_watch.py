import logging
import time
from functools import partial
from types import SimpleNamespace

import pytest

from infra.curve_spool import Spool
from infra.system_metrics import SystemMetrics
from tasks.watch import Watch


class Spools:
    """Opens spools in `folder`; nobody sends them."""

    def __init__(self, folder):
        self.folder = folder
        self.opened = []

    def open(self, target):
        self.opened.append(Spool.create(self.folder, target))
        return self.opened[-1]


def watch_of(folder, label="forget", run_id="run"):
    heard = []
    context = SimpleNamespace(
        recipe=SimpleNamespace(name="tiny"),
        lineage=SimpleNamespace(run_id="pipeline"),
        curves=Spools(folder),
        listener=lambda step, message: heard.append((step, message["kind"])),
    )
    return Watch(context, SimpleNamespace(label=label), "ff", run_id), context.curves, heard


def log(step):
    return {"kind": "log", "step": step, "metrics": {"train/loss": 1.0}, "milliseconds": 1000 + step}


def test_points_go_to_one_spool_that_ends_with_the_step(tmp_path):
    watch, spools, heard = watch_of(tmp_path, "forget[sft]")
    with pytest.raises(RuntimeError), watch:
        watch({"kind": "start"})
        watch(log(1))
        watch(log(2))
        raise RuntimeError("the step failed")
    (spool,) = spools.opened
    batch = spool.unsent(10)
    curves = [(point.step, point.milliseconds) for point in batch.points if "train/loss" in point.metrics]
    assert (curves, batch.status) == ([(1, 1001), (2, 1002)], "FAILED")
    assert (spool.target.run_id, spool.target.pipeline_run_id, spool.target.mirror) == (
        "run",
        "pipeline",
        "forget[sft]/",
    )
    assert heard == [("forget[sft]", "start"), ("forget[sft]", "log"), ("forget[sft]", "log")]


def test_spool_that_cannot_be_written_costs_the_curves_not_the_step(tmp_path, caplog):
    (tmp_path / "file").touch()
    watch, _, heard = watch_of(tmp_path / "file" / "curves")
    with caplog.at_level(logging.WARNING), watch:
        watch(log(1))
        watch(log(2))
    assert len(heard) == 2
    (warning,) = caplog.messages
    assert "forget: no further curves" in warning


def test_every_step_shows_what_the_machine_did_however_short_it_is(tmp_path):
    watch, spools, _ = watch_of(tmp_path, "score[base]")
    with watch:
        watch({"kind": "start"})
    (spool,) = spools.opened
    (point,) = spool.unsent(10).points
    assert 0 <= point.metrics["system/cpu_utilization_percentage"] <= 100
    assert point.metrics["system/system_memory_usage_megabytes"] > 0


def test_step_that_mlflow_never_heard_of_has_system_metrics_only_beside_curves(tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.watch.SystemMetrics", partial(SystemMetrics, interval=0.01))
    for label, messages in (("partition", []), ("forget", [log(1)])):
        watch, spools, _ = watch_of(tmp_path, label, run_id=None)
        with watch:
            watch({"kind": "start"})
            time.sleep(0.3)
            for message in messages:
                watch(message)
        assert len(spools.opened) == len(messages)
    points = spools.opened[0].unsent(1000).points
    samples = [point.step for point in points if "train/loss" not in point.metrics]
    assert samples == list(range(len(points) - 1))
