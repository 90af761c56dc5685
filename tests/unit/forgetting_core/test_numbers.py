"""NaN and infinity stop a step where they arise, are named, and never written; ascent that runs away is told."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from forgetting_core.batching import optimizer_steps
from forgetting_core.config import (
    ExecutionConfig,
    ForgetConfig,
    LambdaConfig,
    LoraConfig,
    PartitionConfig,
    ScoreConfig,
    SftConfig,
    identity,
)
from forgetting_core.errors import InputError, NumericalError
from forgetting_core.evaluation.held_out import evaluate_held_out
from forgetting_core.evaluation.reporting_lm import ReportingLM
from forgetting_core.models import load_base, load_tokenizer, save_checkpoint
from forgetting_core.partition import partition
from forgetting_core.progress import Progress
from forgetting_core.running_away import RUNAWAY_NATS, end_length, rise
from forgetting_core.scoring import LOSSES_FILE, score_split
from forgetting_core.tables import LOSS_SCHEMA, TokenRows, list_array, write_parquet
from tests.unit.forgetting_core.test_training import (
    FULL,
    StopAfter,
    base,
    data,
    difference,
    labels,
    rows,
    stored_curves,
    train,
)

__all__ = ["base", "data", "labels", "rows"]

BREAKS = {**FULL, "learning_rate": 1e30, "weight_decay": 1e20}
"""Weights that are infinite after the first step whose rate is not 0."""
RUNS_AWAY = ForgetConfig(**FULL, epochs=12, lambda_=LambdaConfig(schedule="constant", t_min=0, t_max=5))


def damaged(source: Path, folder: Path, name: str, change: Any) -> Path:
    """A copy of the model with one of its tensors changed."""
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    weights = load_file(folder / "model.safetensors")
    change(weights[name])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def blind_spot(base: Path, rows: TokenRows, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A model for which one token is NaN, and the only row that has it (with a response after it)."""
    response = rows.response_mask()
    for row, span in enumerate(rows.rows()):
        for place in range(span.start, span.stop - 1):
            token = int(rows.input_ids[place])
            if token > 8 and (rows.input_ids == token).sum() == 1 and response[place + 1 : span.stop].any():
                folder = tmp_path_factory.mktemp("blind") / "model"
                return damaged(
                    base, folder, "model.embed_tokens.weight", lambda w, at=token: w[at].fill_(float("nan"))
                ), row
    raise AssertionError("no such token")


def kept(work: Path) -> list[str]:
    return sorted(path.name for path in work.glob("step-*"))


def test_a_loss_names_the_step_the_micro_batch_and_its_rows(
    base: Path, data: Path, labels: Path, rows: TokenRows, tmp_path: Path
) -> None:
    config = ForgetConfig(**{**FULL, "learning_rate": 1e30, "warmup_ratio": 0})
    with pytest.raises(NumericalError) as caught:
        train(config, base, data, labels, tmp_path / "out", micro_batch=2)
    found = re.search(
        r"the loss of micro-batch (\d) of 3 of optimizer step (\d) is \S+ \(rows ([\d, ]+)\)", str(caught.value)
    )
    assert found
    batch, step = int(found[1]) - 1, int(found[2]) - 1
    expected = list(optimizer_steps(config, len(rows)))[step][2 * batch : 2 * batch + 2]
    assert found[3] == ", ".join(map(str, expected))
    assert "no training checkpoint was written before" in str(caught.value)


def test_a_gradient_that_overflows_under_a_finite_loss_names_step_and_rows(
    base: Path, data: Path, tmp_path: Path
) -> None:
    steep = damaged(base, tmp_path / "steep", "lm_head.weight", lambda weight: weight.mul_(1e25))
    config = SftConfig(objective="sft", **FULL)
    with pytest.raises(NumericalError, match=r"the gradient of optimizer step 1 is inf \(rows \d+(, \d+){5}\)"):
        train(config, steep, data, None, tmp_path / "out")


def test_broken_weights_are_not_saved_and_the_checkpoint_before_them_is_kept(
    base: Path, data: Path, labels: Path, tmp_path: Path
) -> None:
    """The first step is one of warm-up, with rate 0; the second breaks the weights."""
    config = ForgetConfig(**{**BREAKS, "epochs": 2})
    with pytest.raises(NumericalError, match=r"weights are not finite after optimizer step 2 \(") as caught:
        train(config, base, data, labels, tmp_path / "out", checkpoint_every=1)
    assert "checkpoint after optimizer step 1 is kept" in str(caught.value)
    assert kept(tmp_path / "out-work") == ["step-1"]
    good = load_file(tmp_path / "out-work/step-1/weights.safetensors")
    assert all(bool(value.isfinite().all()) for value in good.values())
    assert not list((tmp_path / "out").iterdir())


def test_an_interruption_does_not_save_broken_weights_either(
    base: Path, data: Path, labels: Path, tmp_path: Path
) -> None:
    config = ForgetConfig(**{**BREAKS, "epochs": 2})
    with pytest.raises(NumericalError, match="weights are not finite after optimizer step 2 "):
        train(config, base, data, labels, tmp_path / "out", progress=StopAfter(2))
    assert kept(tmp_path / "out-work") == []


def test_weights_that_break_in_the_last_step_are_no_model(
    base: Path, data: Path, labels: Path, tmp_path: Path
) -> None:
    config = ForgetConfig(**{**BREAKS, "rows_per_step": 10, "warmup_ratio": 0.5})
    with pytest.raises(NumericalError, match="weights are not finite after optimizer step 2"):
        train(config, base, data, labels, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_broken_weights_are_blamed_and_not_the_rows_that_meet_them(
    base: Path, data: Path, labels: Path, tmp_path: Path
) -> None:
    config = ForgetConfig(**{**BREAKS, "epochs": 2})
    with pytest.raises(NumericalError, match="weights are not finite after optimizer step 2 ") as caught:
        train(config, base, data, labels, tmp_path / "out")
    assert "rows" not in str(caught.value)


def test_a_weight_too_large_for_the_models_dtype_is_not_written(base: Path, tmp_path: Path) -> None:
    model = load_base(base, dtype="float32", device="cpu")
    with torch.no_grad():
        model.lm_head.weight[3, 4] = torch.finfo(torch.float32).max
    with pytest.raises(NumericalError, match=r"written as bfloat16 \(lm_head.weight\)"):
        save_checkpoint(model, tmp_path / "out", base=base, base_digest="0", dtype="bfloat16")
    assert not (tmp_path / "out").exists()


def test_an_adapter_is_checked_as_all_weights_are(base: Path, data: Path, labels: Path, tmp_path: Path) -> None:
    config = ForgetConfig(**{**BREAKS, "mode": "lora", "lora": LoraConfig(r=2), "dtype": "bfloat16"})
    with pytest.raises(NumericalError, match=r"after optimizer step 2 \(.*lora_"):
        train(config, base, data, labels, tmp_path / "out", checkpoint_every=1)
    assert kept(tmp_path / "out-work") == ["step-1"]


def test_scores_and_held_out_losses_name_the_rows(blind_spot: tuple[Path, int], data: Path, tmp_path: Path) -> None:
    """One bad row spoils those in its line, wherever the line has it: it is always among those named."""
    model, row = blind_spot
    execution = ExecutionConfig(device="cpu")
    common: dict[str, Any] = {"base": model, "checkpoint": None, "execution": execution, "progress": Progress()}
    named = rf"losses are not finite \(rows ([\d, ]+, )?{row}\b"
    with pytest.raises(NumericalError, match=named):
        score_split(ScoreConfig(dtype="float32", block_rows=4), data=data, out=tmp_path / "scores", **common)
    with pytest.raises(NumericalError, match=named):
        evaluate_held_out(validation=data, dtype="float32", out=tmp_path / "held out", **common)
    assert not (tmp_path / "held out").exists()


def test_a_validation_loss_names_the_step_and_the_validation_rows(
    blind_spot: tuple[Path, int], data: Path, tmp_path: Path
) -> None:
    model, row = blind_spot
    config = SftConfig(objective="sft", **FULL, eval_steps=1)
    expected = rf"the validation loss after optimizer step 0 is nan \(validation rows ([\d, ]+, )?{row}\b"
    with pytest.raises(NumericalError, match=expected):
        train(config, model, data, None, tmp_path / "out", validation=data)


def test_a_damaged_base_is_told_apart_from_an_unsupported_one(base: Path, data: Path, tmp_path: Path) -> None:
    model = damaged(base, tmp_path / "model", "model.norm.weight", lambda weight: weight.fill_(float("nan")))
    with pytest.raises(NumericalError, match=r"logits of this LlamaForCausalLM .* are not finite; .*damaged"):
        train(SftConfig(objective="sft", **FULL), model, data, None, tmp_path / "out")


def test_a_benchmark_item_without_a_likelihood_is_no_wrong_answer(base: Path, tmp_path: Path) -> None:
    from lm_eval.api.instance import Instance

    blind = damaged(base, tmp_path / "model", "model.norm.weight", lambda weight: weight.fill_(float("nan")))
    model = load_base(blind, dtype="float32", device="cpu")
    harness = ReportingLM(model, load_tokenizer(blind), items=1, progress=Progress())
    asked = Instance("loglikelihood", {}, ("Is it?", " yes"), 0, metadata=("a task", 0, 1))
    with pytest.raises(NumericalError, match=r"log-likelihood .* begins 'Is it\?'"):
        harness.loglikelihood([asked], disable_tqdm=True)


def losses(folder: Path, values: np.ndarray, rows: TokenRows) -> Path:
    columns = [
        pa.array(range(len(rows)), pa.int64()),
        list_array(values.astype(np.float32), rows.offsets, pa.float32()),
    ]
    write_parquet(folder / LOSSES_FILE, [pa.Table.from_arrays(columns, schema=LOSS_SCHEMA)], LOSS_SCHEMA)
    return folder


@pytest.mark.parametrize("other", [1.0, float("inf")], ids=["under the base", "under both"])
def test_an_infinite_loss_is_no_token_to_leave_out(rows: TokenRows, tmp_path: Path, other: float) -> None:
    """∞ − ∞ is NaN, which stands for tokens of the prompt."""
    response = rows.response_mask()
    place = int(np.flatnonzero(response)[20])
    row = int(rows.row_of(np.array([place]))[0])
    position = place - int(rows.offsets[row])
    found = {}
    for name, value in (("base", float("inf")), ("reference", other)):
        values = np.where(response, 2.0, np.nan)
        values[place] = value
        found[name] = losses(tmp_path / name, values, rows)
    with pytest.raises(NumericalError, match=rf"row {row}, position {position} .* inf \(base\)"):
        partition(
            PartitionConfig(),
            loss_base=found["base"],
            loss_reference=found["reference"],
            out=tmp_path / "labels",
            progress=Progress(),
        )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_damaged_behind_their_step_are_not_trained_on(
    base: Path, data: Path, labels: Path, rows: TokenRows, tmp_path: Path, value: float
) -> None:
    values = np.where(rows.response_mask(), 2.0, np.nan)
    values[np.flatnonzero(rows.response_mask())[7]] = value
    scores = losses(tmp_path / "scores", values, rows)
    with pytest.raises(InputError, match=r"lacks losses of response tokens .* score it again"):
        train(ForgetConfig(**FULL, negative="npo"), base, data, labels, tmp_path / "out", loss_base=scores)


def test_a_token_that_neither_model_scored_has_no_label_and_is_not_trained_on(
    base: Path, data: Path, rows: TokenRows, tmp_path: Path
) -> None:
    values = np.where(rows.response_mask(), 2.0, np.nan)
    values[np.flatnonzero(rows.response_mask())[7]] = np.nan
    scores = losses(tmp_path / "scores", values, rows)
    partition(
        PartitionConfig(), loss_base=scores, loss_reference=scores, out=tmp_path / "labels", progress=Progress()
    )
    with pytest.raises(InputError, match="partition again"):
        train(ForgetConfig(**FULL), base, data, tmp_path / "labels", tmp_path / "out")


class Notes(Progress):
    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def note(self, message: str) -> None:
        self.heard.append(message)


def test_ascent_that_runs_away_is_told_once_while_it_trains(
    base: Path, data: Path, labels: Path, tmp_path: Path
) -> None:
    notes = Notes()
    train(RUNS_AWAY, base, data, labels, tmp_path / "out", progress=notes)
    (told,) = notes.heard
    assert "lower forget.lambda.t_max (now 5; try 0.5)" in told and "stop_when_diverging would have stopped" in told
    negative = [curves["train/loss_negative"] for _, curves, _ in stored_curves(tmp_path / "out")]
    length = end_length(len(negative))
    step = int(re.search(r"at optimizer step (\d+)", told)[1])  # type: ignore[index]
    first = next(done for done in range(2 * length, 49) if rise(negative[:done], length).runs_away)
    assert step == first


def test_a_bounded_or_mild_forgetting_is_left_alone(base: Path, data: Path, labels: Path, tmp_path: Path) -> None:
    notes = Notes()
    mild = LambdaConfig(schedule="constant", t_min=0, t_max=1e-6)
    config = ForgetConfig(**FULL, epochs=12, lambda_=mild, stop_when_diverging=True)
    train(config, base, data, labels, tmp_path / "out", progress=notes)
    assert notes.heard == []


def test_a_training_that_is_asked_to_stop_does_so_with_figures_and_keeps_a_sound_checkpoint(
    base: Path, data: Path, labels: Path, tmp_path: Path
) -> None:
    stopping = RUNS_AWAY.model_copy(update={"stop_when_diverging": True})
    messages = []
    for _ in range(2):  # the second goes on from the checkpoint of the first, and knows how it began
        with pytest.raises(NumericalError) as caught:
            train(stopping, base, data, labels, tmp_path / "out", checkpoint_every=5)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    found = re.search(r"at optimizer step (\d+): .*rose from ([\d.]+) to ([\d.]+) nats", messages[0])
    assert found and float(found[3]) - float(found[2]) > RUNAWAY_NATS - 0.01
    last = (int(found[1]) - 1) // 5 * 5
    assert f"checkpoint after optimizer step {last} is kept" in messages[0]
    assert "lower forget.lambda.t_max (now 5; try 0.5), or bound the forgetting" in messages[0]
    assert kept(tmp_path / "out-work") == [f"step-{last}"]
    # sound: what goes on from it, here without being asked to stop, is the undisturbed training
    resumed = train(RUNS_AWAY, base, data, labels, tmp_path / "out")
    assert difference(resumed, train(RUNS_AWAY, base, data, labels, tmp_path / "whole")) == 0


def test_a_recipe_that_does_not_ask_for_the_stop_keeps_its_identity() -> None:
    assert "stop_when_diverging" not in identity(ForgetConfig())
    asked = identity(ForgetConfig(stop_when_diverging=True))
    assert asked == {**identity(ForgetConfig()), "stop_when_diverging": True}
