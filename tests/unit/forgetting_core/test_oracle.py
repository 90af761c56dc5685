"""Our numbers against an independent implementation of the method, on a tiny model (design §6)."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from forgetting_core.batching import optimizer_steps
from forgetting_core.config import (
    ExecutionConfig,
    ForgetConfig,
    IgnoreConfig,
    LambdaConfig,
    LoraConfig,
    PartitionConfig,
    SftConfig,
)
from forgetting_core.labelling import ScoredRows, label_by_rank
from forgetting_core.models import load_checkpoint
from forgetting_core.partition import influence
from forgetting_core.progress import Progress
from forgetting_core.scoring import token_losses
from forgetting_core.token_loss import TokenLossModel
from forgetting_core.training import TrainingRun
from forgetting_core.training_data import TrainingData
from tests.oracle import ORACLE, Oracle, needs_oracle

pytestmark = needs_oracle
PUBLISHED = {
    "learning_rate": 1e-3,
    "rows_per_step": 6,
    "order": "file",
    "dtype": "float32",
    "normalization": "microbatch",
}


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle()


@pytest.mark.parametrize("model, stored", [("tiny_base", "loss_base"), ("tiny_ref", "loss_ref")])
def test_token_losses_agree(oracle: Oracle, model: str, stored: str) -> None:
    loaded = TokenLossModel(load_checkpoint(ORACLE / model, None, dtype="float32", device="cpu"))
    found = token_losses(loaded, oracle.rows, block_rows=64, micro_batch="auto", progress=Progress())
    response = oracle.rows.response_mask()
    assert np.array_equal(~np.isnan(found), response)
    assert np.abs(found[response] - oracle.tokens[stored][response]).max() < 1e-5


@pytest.mark.parametrize("rho", ["0.3", "0.5", "0.7", "0.9"])
def test_labels_agree_on_the_stored_losses(oracle: Oracle, rho: str) -> None:
    tokens = oracle.tokens
    score = influence(tokens["loss_base"].astype(np.float32), tokens["loss_ref"].astype(np.float32))
    score[~oracle.labelled()] = np.nan
    rows = ScoredRows(score, score, oracle.rows.offsets)
    ((_, label),) = label_by_rank(lambda: iter([rows]), PartitionConfig(rho=rho))
    positive = oracle.flat(tokens[f"pos_rho{rho}"])
    negative = oracle.flat(tokens[f"neg_rho{rho}"])
    assert set(np.flatnonzero(label == 1)) == set(positive)
    # int(N·(1−ρ)) drops a token that ends in neither of the stored sets
    assert set(negative) <= set(np.flatnonzero(label == -1))
    assert (label != 0).sum() - len(positive) - len(negative) in (0, 1)


def train(
    config: ForgetConfig | IgnoreConfig | SftConfig,
    oracle: Oracle,
    sign: np.ndarray,
    work: Path,
    init: Path | None = None,
) -> tuple[TrainingRun, list[float]]:
    """Run our loop on stored signs; the micro-batch losses before division by the accumulation."""
    execution = ExecutionConfig(device="cpu", micro_batch=2)
    data = TrainingData(oracle.rows, sign)
    run = TrainingRun(config, data, ORACLE / "tiny_base", work, execution, Progress())
    if init is not None:
        run.model.model.load_state_dict(load_file(init), strict=False)
    losses: list[float] = []
    for step, rows in enumerate(optimizer_steps(config, len(oracle.rows))):
        run.step(step, rows)
        losses += [value * 3 for value in run.micro_losses]
    return run, losses


def largest_difference(run: TrainingRun, stored: Path) -> float:
    weights = dict(run.model.model.named_parameters())
    expected = load_file(stored)
    names = {
        name: name.replace(".lora_A.", ".lora_A.default.").replace(".lora_B.", ".lora_B.default.")
        for name in expected
    }
    return max(float((weights[names[name]].detach() - value).abs().max()) for name, value in expected.items())


def effective_sign(oracle: Oracle, run: str) -> np.ndarray:
    """int8 (T,): the tokens that the recorded run really used."""
    with np.load(ORACLE / "runs" / run / "effective_masks.npz") as arrays:
        used = arrays["micro_row_j_sign"]
    sign = np.zeros(len(oracle.rows.input_ids), dtype=np.int8)
    sign[oracle.flat(used[:, 1:3])] = used[:, 3]
    return sign


def published(**settings: object) -> ForgetConfig:
    lambda_ = LambdaConfig(schedule="published", t_min=1e-5, t_max=0.25)
    return ForgetConfig(**{"mode": "full", **PUBLISHED, "lambda_": lambda_, **settings})


def assert_trajectory(oracle: Oracle, name: str, losses: list[float]) -> None:
    micro, _ = oracle.trajectory(name)
    expected = [record["loss"] for record in micro]
    assert len(losses) == len(expected)
    assert np.abs(np.array(losses) - expected).max() < 1e-5


def test_plain_fine_tuning_agrees(oracle: Oracle, tmp_path: Path) -> None:
    sign = oracle.rows.response_mask().astype(np.int8)
    run, losses = train(SftConfig(objective="sft", mode="full", **PUBLISHED), oracle, sign, tmp_path)
    assert_trajectory(oracle, "sft", losses)
    assert largest_difference(run, ORACLE / "runs/sft/model.safetensors") < 1e-5


def test_ignoring_agrees(oracle: Oracle, tmp_path: Path) -> None:
    sign = np.maximum(oracle.sign("0.7"), 0)
    run, losses = train(IgnoreConfig(objective="ignore", mode="full", **PUBLISHED), oracle, sign, tmp_path)
    assert_trajectory(oracle, "ignoring_rho0.7", losses)
    assert largest_difference(run, ORACLE / "runs/ignoring_rho0.7/model.safetensors") < 1e-5


def test_forgetting_agrees(oracle: Oracle, tmp_path: Path) -> None:
    run, losses = train(published(), oracle, oracle.sign("0.7"), tmp_path)
    assert_trajectory(oracle, "forget_rho0.7_fixedmask", losses)
    assert largest_difference(run, ORACLE / "runs/forget_rho0.7_fixedmask/model.safetensors") < 1e-5


def test_lora_forgetting_agrees(oracle: Oracle, tmp_path: Path) -> None:
    name = "lora0_rho0.7"
    config = published(mode="lora", lora=LoraConfig(r=8, alpha=16, dropout=0))
    folder = ORACLE / "runs" / name
    run, losses = train(config, oracle, effective_sign(oracle, name), tmp_path, folder / "init_adapter.safetensors")
    assert_trajectory(oracle, name, losses)
    assert largest_difference(run, folder / "adapter_model.safetensors") < 1e-5
