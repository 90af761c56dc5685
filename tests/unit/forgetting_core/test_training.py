"""The training loop: the same weights however a step is cut, after an interruption, and on every architecture."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from forgetting_core.attention import ROW_BY_ROW
from forgetting_core.config import (
    ExecutionConfig,
    ForgetConfig,
    LambdaConfig,
    LoraConfig,
    ScoreConfig,
    SftConfig,
)
from forgetting_core.errors import InputError, Interrupted, NumericalError
from forgetting_core.models import load_checkpoint
from forgetting_core.partition import LABELS_FILE
from forgetting_core.progress import Progress
from forgetting_core.ranks import Ranks
from forgetting_core.scoring import score_split, token_losses
from forgetting_core.tables import LABEL_SCHEMA, TokenRows, list_array, write_parquet
from forgetting_core.token_loss import TokenLossModel
from forgetting_core.training import TrainingRun, fine_tune
from forgetting_core.training_data import TrainingData
from tests.tiny import CONFIGS, save_model, token_rows, write_rows

FULL = {"mode": "full", "learning_rate": 1e-2, "rows_per_step": 6, "warmup_ratio": 0.3, "dtype": "float32"}


@pytest.fixture(scope="module")
def rows() -> TokenRows:
    return token_rows(20)


@pytest.fixture(scope="module")
def data(rows: TokenRows, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(rows, tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def labels(rows: TokenRows, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import pyarrow as pa

    folder = tmp_path_factory.mktemp("labels")
    sign = np.where(np.arange(len(rows.input_ids)) % 3 == 0, -1, 1) * rows.response_mask()
    columns = [pa.array(range(len(rows)), pa.int64()), list_array(sign.astype(np.int8), rows.offsets, pa.int8())]
    write_parquet(folder / LABELS_FILE, [pa.Table.from_arrays(columns, schema=LABEL_SCHEMA)], LABEL_SCHEMA)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("base"))


def train(
    config: Any,
    base: Path,
    data: Path,
    labels: Path | None,
    out: Path,
    *,
    loss_base: Path | None = None,
    validation: Path | None = None,
    progress: Progress | None = None,
    **execution: Any,
) -> dict[str, torch.Tensor]:
    out.mkdir(exist_ok=True)
    fine_tune(
        config,
        base=base,
        base_digest="0" * 64,
        data=data,
        token_labels=labels,
        loss_base=loss_base,
        validation=validation,
        out=out,
        work=out.with_name(f"{out.name}-work"),
        execution=ExecutionConfig(device="cpu", **execution),
        progress=progress or Progress(),
    )
    return load_file(next(out.glob("*.safetensors")))


def difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("float64", 1e-10)])
def test_the_weights_do_not_depend_on_the_micro_batch(
    base: Path, data: Path, labels: Path, tmp_path: Path, dtype: str, tolerance: float
) -> None:
    config = ForgetConfig(**{**FULL, "dtype": dtype})
    found = {
        size: train(config, base, data, labels, tmp_path / str(size), micro_batch=size)
        for size in (1, 2, 6, "auto")
    }
    for size in (1, 2, "auto"):
        assert difference(found[6], found[size]) < tolerance
    untrained = load_file(base / "model.safetensors")
    assert difference(untrained, {name: value.to(torch.float32) for name, value in found[6].items()}) > 1e-3


class Listener(Progress):
    """Keeps (step, curves, milliseconds) of what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[int, dict[str, float], int]] = []

    def log(self, step: int, metrics: dict[str, float], milliseconds: int) -> None:
        self.heard.append((step, metrics, milliseconds))


def stored_curves(checkpoint: Path) -> list[tuple[int, dict[str, float], int]]:
    """The same from the file beside the weights."""
    lines = (checkpoint / "aux/metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [
        (record.pop("step"), {f"train/{name}": record[name] for name in record if name != "milliseconds"}, at)
        for record in records
        for at in [record["milliseconds"]]
    ]


class StopAfter(Progress):
    """Asks the step to stop after so many optimizer steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def log(self, step: int, metrics: dict[str, float], milliseconds: int) -> None:
        self.stop_requested = step == self.steps


@pytest.mark.parametrize("mode", ["full", "lora"])
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_an_interrupted_run_ends_with_the_very_weights_of_an_undisturbed_one(
    base: Path, data: Path, labels: Path, tmp_path: Path, mode: str, stop: int
) -> None:
    lora = {"lora": LoraConfig(r=4, dropout=0.3)} if mode == "lora" else {}
    config = ForgetConfig(**{**FULL, "mode": mode, "epochs": 2, **lora})
    whole = train(config, base, data, labels, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(config, base, data, labels, tmp_path / "cut", progress=StopAfter(stop))
    resumed = train(config, base, data, labels, tmp_path / "cut")
    assert difference(whole, resumed) == 0
    curves = [json.loads(line) for line in (tmp_path / "cut/aux/metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in curves] == list(range(1, 9))


def test_a_killed_run_resumes_from_its_last_checkpoint_and_drops_later_curves(
    base: Path, data: Path, labels: Path, tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    class KillAfter(Listener):
        def log(self, step: int, metrics: dict[str, float], milliseconds: int) -> None:
            super().log(step, metrics, milliseconds)
            if step == 6:
                raise Killed

    config = ForgetConfig(**{**FULL, "epochs": 2})
    whole = train(config, base, data, labels, tmp_path / "whole")
    killed, resumed = KillAfter(), Listener()
    with pytest.raises(Killed):
        train(config, base, data, labels, tmp_path / "cut", progress=killed, checkpoint_every=4)
    assert (tmp_path / "cut-work/step-4").is_dir()
    with (tmp_path / "cut-work/metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "millis')
    weights = train(config, base, data, labels, tmp_path / "cut", progress=resumed)
    assert difference(whole, weights) == 0
    # whoever listens to the attempt that completes hears what the file says: the first steps with their first times
    assert [step for step, _, _ in resumed.heard] == list(range(1, 9))
    assert resumed.heard[:4] == killed.heard[:4]
    assert resumed.heard == stored_curves(tmp_path / "cut")


@pytest.mark.parametrize("architecture", CONFIGS)
def test_lora_trains_every_linear_layer_but_the_head_of_any_architecture(
    architecture: str, data: Path, labels: Path, tmp_path: Path
) -> None:
    base = save_model(tmp_path / "base", architecture)
    config = ForgetConfig(**{**FULL, "mode": "lora", "lora": LoraConfig(r=2, dropout=0)})
    adapter = train(config, base, data, labels, tmp_path / "out")
    model = load_checkpoint(base, tmp_path / "out", dtype="float32", device="cpu")
    linear = {
        name
        for name, module in load_checkpoint(base, None, dtype="float32", device="cpu").named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    }
    trained = {name.removeprefix("base_model.model.").rsplit(".lora_", 1)[0] for name in adapter}
    assert trained == linear
    assert all(value.abs().max() > 0 for name, value in adapter.items())
    input_ids = torch.arange(10).unsqueeze(0)
    select = torch.ones(1, 10, dtype=torch.bool)
    select[:, 0] = False
    before = TokenLossModel(load_checkpoint(base, None, dtype="float32", device="cpu"))(input_ids, select)
    after = TokenLossModel(model)(input_ids, select)
    assert not torch.allclose(before, after)


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_the_same_step_twice_gives_the_same_bytes(
    base: Path, data: Path, labels: Path, tmp_path: Path, mode: str
) -> None:
    config = ForgetConfig(**{**FULL, "mode": mode})
    for name in ("first", "second"):
        train(config, base, data, labels, tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "first").iterdir() if path.is_file())
    assert files == sorted(path.name for path in (tmp_path / "second").iterdir() if path.is_file())
    assert "tokenizer.json" in files
    for name in files:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name
        assert str(tmp_path).encode() not in (tmp_path / "first" / name).read_bytes()


def test_the_rows_of_a_step_share_lines_without_padding(base: Path, rows: TokenRows, tmp_path: Path) -> None:
    data = TrainingData(rows, rows.response_mask().astype(np.int8))
    run = TrainingRun(ForgetConfig(**FULL), data, base, tmp_path, ExecutionConfig(device="cpu"), Progress())
    lengths = [64, 30, 20, 10, 4, 50]
    step = TokenRows(*(np.zeros(sum(lengths), np.int32) for _ in range(2)), np.cumsum([0, *lengths]))
    batches = run.passes.micro_batches(step, np.ones(sum(lengths), np.int8), np.arange(len(lengths)))
    assert sum(batch.input_ids.numel() for batch in batches) == sum(lengths)
    assert len(batches) < len(lengths)


def test_every_rank_attends_row_by_row_on_a_cpu(
    base: Path, rows: TokenRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank that is not the main one is told whether rows may share lines, and asks nothing itself."""
    monkeypatch.setattr(Ranks, "main_says", lambda self, ask: True)
    data = TrainingData(rows, rows.response_mask().astype(np.int8))
    run = TrainingRun(ForgetConfig(**FULL), data, base, tmp_path, ExecutionConfig(device="cpu"), Progress())
    assert run.model.model.config._attn_implementation == ROW_BY_ROW


@pytest.mark.parametrize("negative, t_max", [("ascent", 0.5), ("npo", 0.5), ("unlikelihood", 10)])
def test_every_way_to_forget_unlearns_the_negative_tokens(
    base: Path, data: Path, labels: Path, tmp_path: Path, negative: str, t_max: float
) -> None:
    """Against hardly any forgetting; unlikelihood is faint where a token is unlikely already."""
    scores = tmp_path / "scores"
    score_split(
        ScoreConfig(dtype="float32"),
        base=base,
        checkpoint=None,
        data=data,
        out=scores,
        execution=ExecutionConfig(device="cpu"),
        progress=Progress(),
    )
    found = []
    for weight in (1e-6, t_max):
        lambda_ = LambdaConfig(schedule="constant", t_min=0, t_max=weight)
        config = ForgetConfig(**FULL, epochs=3, lambda_=lambda_, negative=negative)
        train(config, base, data, labels, tmp_path / str(weight), loss_base=scores)
        found.append(stored_curves(tmp_path / str(weight))[-1][1]["train/loss_negative"])
    assert found[1] > found[0] + 0.1


def test_curves_hold_the_mean_losses_of_both_sides(base: Path, data: Path, labels: Path, tmp_path: Path) -> None:
    train(ForgetConfig(**FULL), base, data, labels, tmp_path / "forget")
    train(SftConfig(objective="sft", **FULL), base, data, None, tmp_path / "sft")
    forget = json.loads((tmp_path / "forget/aux/metrics.jsonl").read_text().splitlines()[0])
    sft = json.loads((tmp_path / "sft/aux/metrics.jsonl").read_text().splitlines()[0])
    assert {"loss_positive", "loss_negative", "lambda", "lr", "grad_norm", "tokens_per_s"} <= forget.keys()
    assert "loss_negative" not in sft and "lambda" not in sft


def test_a_diverging_run_stops_with_the_step_and_rows_named(
    base: Path, data: Path, labels: Path, tmp_path: Path
) -> None:
    with pytest.raises(NumericalError, match=r"optimizer step \d+ .*rows .*lower the learning rate"):
        train(
            ForgetConfig(**{**FULL, "learning_rate": 1e30, "warmup_ratio": 0}), base, data, labels, tmp_path / "x"
        )


def test_labels_of_another_split_are_refused(base: Path, labels: Path, tmp_path: Path) -> None:
    other = write_rows(token_rows(20, seed=5), tmp_path / "other")
    with pytest.raises(InputError, match="partition again"):
        train(ForgetConfig(**FULL), base, other, labels, tmp_path / "x")


def test_rows_longer_than_the_positions_are_refused(data: Path, labels: Path, tmp_path: Path) -> None:
    base = save_model(tmp_path / "base", "gpt_neo")
    long = write_rows(token_rows(5, longest=90), tmp_path / "long")
    with pytest.raises(InputError, match="64 positions"):
        train(SftConfig(objective="sft", **FULL), base, long, None, tmp_path / "x")


def test_bounded_forgetting_compares_every_token_with_its_own_base_loss(
    base: Path, rows: TokenRows, tmp_path: Path
) -> None:
    """Before the first step loss and base loss are equal, so each negative token contributes (2/β)·ln 2 of λ."""
    model = TokenLossModel(load_checkpoint(base, None, dtype="float32", device="cpu"))
    losses = token_losses(model, rows, block_rows=64, micro_batch="auto", progress=Progress())
    sign = (np.where(np.arange(len(rows.input_ids)) % 3 == 0, -1, 1) * rows.response_mask()).astype(np.int8)
    constant = LambdaConfig(schedule="constant", t_min=0, t_max=0.5)
    config = ForgetConfig(**{**FULL, "rows_per_step": 20}, lambda_=constant, negative="npo", beta=0.4)
    for micro_batch in (1, 6, "auto"):
        data = TrainingData(rows, sign, losses)
        execution = ExecutionConfig(device="cpu", micro_batch=micro_batch)
        run = TrainingRun(config, data, base, tmp_path, execution, Progress())
        run.step(0, np.arange(len(rows)))
        expected = losses[sign == 1].mean() + 0.5 * (2 / 0.4) * math.log(2)
        assert sum(run.micro_losses) == pytest.approx(expected, rel=1e-5)
