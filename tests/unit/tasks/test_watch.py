import logging
from types import SimpleNamespace

import pytest

from infra.curve_spool import Spool
from tasks.watch import Watch


class Spools:
    """Opens spools in `folder`; nobody sends them."""

    def __init__(self, folder):
        self.folder = folder
        self.opened = []

    def open(self, target):
        self.opened.append(Spool.create(self.folder, target))
        return self.opened[-1]


def watch_of(folder, label="forget"):
    heard = []
    context = SimpleNamespace(
        recipe=SimpleNamespace(name="tiny"),
        lineage=SimpleNamespace(run_id="pipeline"),
        curves=Spools(folder),
        listener=lambda step, message: heard.append((step, message["kind"])),
    )
    return Watch(context, SimpleNamespace(label=label), "ff", "run"), context.curves, heard


def log(step):
    return {"kind": "log", "step": step, "metrics": {"train/loss": 1.0}}


def test_points_go_to_one_spool_that_ends_with_the_step(tmp_path):
    watch, spools, heard = watch_of(tmp_path, "forget[sft]")
    with pytest.raises(RuntimeError), watch:
        watch({"kind": "start"})
        assert spools.opened == []
        watch(log(1))
        watch(log(2))
        raise RuntimeError("the step failed")
    (spool,) = spools.opened
    batch = spool.unsent(10)
    assert ([point.step for point in batch.points], batch.status) == ([1, 2], "FAILED")
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
