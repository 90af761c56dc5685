"""Held-out loss during a training: the loss of the model as it is, at the steps asked for, and no trace."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forgetting_core.config import ForgetConfig, LoraConfig, SftConfig, identity
from forgetting_core.errors import InputError, Interrupted
from forgetting_core.evaluation.held_out import loss_change, mean_loss, row_losses
from forgetting_core.metrics_file import VALIDATION_CHANGE as CHANGE
from forgetting_core.metrics_file import VALIDATION_CHANGE_STDERR as STDERR
from forgetting_core.metrics_file import VALIDATION_LOSS as LOSS
from forgetting_core.models import load_checkpoint
from forgetting_core.progress import Progress
from forgetting_core.recipe import parse_recipe
from forgetting_core.tables import IGNORE_INDEX, TokenRows
from tests.tiny import token_rows, write_rows
from tests.unit.forgetting_core.test_training import (
    FULL,
    Listener,
    StopAfter,
    base,
    data,
    difference,
    labels,
    rows,
    train,
)

__all__ = ["base", "data", "labels", "rows"]

LORA = {"mode": "lora", "lora": LoraConfig(r=4, dropout=0.3)}


@pytest.fixture(scope="module")
def validation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(token_rows(12, seed=9), tmp_path_factory.mktemp("validation"))


def measured(checkpoint: Path) -> dict[int, float]:
    """{step: held-out loss} as stored."""
    return {record["step"]: record[LOSS] for record in records(checkpoint)}


def records(checkpoint: Path) -> list[dict[str, float]]:
    """What was measured, with `step`."""
    lines = map(json.loads, (checkpoint / "aux/metrics.jsonl").read_text().splitlines())
    return [
        {name: line[name] for name in ("step", LOSS, CHANGE, STDERR) if name in line}
        for line in lines
        if LOSS in line
    ]


@pytest.mark.parametrize("micro_batch", [1, "auto"])
def test_the_first_and_the_last_value_are_those_of_the_base_and_of_the_finished_model(
    base: Path, data: Path, labels: Path, validation: Path, tmp_path: Path, micro_batch: Any
) -> None:
    config = ForgetConfig(**{**FULL, "epochs": 2}, eval_steps=3)
    listener = Listener()
    out = tmp_path / "out"
    train(config, base, data, labels, out, validation=validation, progress=listener, micro_batch=micro_batch)
    found = measured(out)
    assert list(found) == [0, 3, 6, 8]
    models = (load_checkpoint(base, checkpoint, dtype="float32", device="cpu") for checkpoint in (None, out))
    ends = [row_losses(model, validation, micro_batch="auto", progress=Progress()) for model in models]
    for value, expected in zip((found[0], found[8]), ends, strict=True):
        assert value == pytest.approx(mean_loss(expected)["loss"], rel=1e-5)
    told = {step: curves for step, curves, _ in listener.heard if LOSS in curves}
    assert {step: curves[LOSS] for step, curves in told.items()} == found
    assert told[0].keys() == {LOSS} and told[8].keys() > {LOSS, CHANGE, STDERR, "train/loss_positive"}
    assert (told[8][CHANGE], told[8][STDERR]) == pytest.approx(loss_change(*ends), rel=1e-3)


@pytest.mark.parametrize("mode", [{}, LORA, {**LORA, "dtype": "bfloat16"}], ids=["full", "lora", "bfloat16"])
def test_measuring_changes_no_weight(
    base: Path, data: Path, labels: Path, validation: Path, tmp_path: Path, mode: dict[str, Any]
) -> None:
    config = ForgetConfig(**{**FULL, **mode})
    without, measuring = tmp_path / "without", tmp_path / "measuring"
    train(config, base, data, labels, without)
    often = config.model_copy(update={"eval_steps": 1})
    train(often, base, data, labels, measuring, validation=validation)
    for path in without.iterdir():
        if path.is_file():
            assert path.read_bytes() == (measuring / path.name).read_bytes(), path.name


def test_a_resumed_training_measures_every_step_once(
    base: Path, data: Path, labels: Path, validation: Path, tmp_path: Path
) -> None:
    config = ForgetConfig(**{**FULL, **LORA, "epochs": 2}, eval_steps=2)
    whole = train(config, base, data, labels, tmp_path / "whole", validation=validation)
    for steps in (1, 4):
        with pytest.raises(Interrupted):
            train(config, base, data, labels, tmp_path / "cut", validation=validation, progress=StopAfter(steps))
    resumed = Listener()
    weights = train(config, base, data, labels, tmp_path / "cut", validation=validation, progress=resumed)
    assert difference(whole, weights) == 0
    assert records(tmp_path / "cut") == records(tmp_path / "whole")
    assert [step for step, _, _ in resumed.heard] == list(range(9))
    assert [step for step, curves, _ in resumed.heard if LOSS in curves] == [0, 2, 4, 6, 8]


def test_validation_rows_without_a_response_are_refused(base: Path, data: Path, tmp_path: Path) -> None:
    some = token_rows(3)
    silent = write_rows(
        TokenRows(some.input_ids, np.full_like(some.labels, IGNORE_INDEX), some.offsets), tmp_path / "rows"
    )
    with pytest.raises(
        InputError, match=r"data\.max_length cuts .* split\.validation_rows: 0, and leave out eval_steps"
    ):
        config = SftConfig(objective="sft", **FULL, eval_steps=1)
        train(config, base, data, None, tmp_path / "out", validation=silent)


@pytest.mark.parametrize("section", ["forget", "reference"])
def test_a_recipe_without_validation_rows_cannot_measure_their_loss(section: str) -> None:
    given = {"name": "x", "model": {"path": "m"}, "data": {"train": ["a"]}, section: {"eval_steps": 10}}
    with pytest.raises(InputError, match=rf"{section}.eval_steps: 10 has no rows .* set split.validation_rows"):
        parse_recipe(given)
    parse_recipe({**given, "split": {"validation_rows": 8}})


def test_a_recipe_that_measures_nothing_keeps_its_identity() -> None:
    assert "eval_steps" not in identity(ForgetConfig())
    assert identity(ForgetConfig(eval_steps=5)) == {**identity(ForgetConfig()), "eval_steps": 5}
