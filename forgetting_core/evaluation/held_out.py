"""The step `evaluate` of held-out rows: how well a model predicts responses it was not trained on.

Apart from the benchmarks, so that it does not wait for the harness to be imported.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from peft import PeftModel
from transformers import PreTrainedModel

from forgetting_core.config import Dtype, ExecutionConfig, ScoreConfig
from forgetting_core.errors import InputError
from forgetting_core.evaluation import HELD_OUT, METRICS_FILE, SAMPLES
from forgetting_core.json_files import read_json_lines, write_json, write_json_lines
from forgetting_core.models import load_checkpoint, resolve_device
from forgetting_core.progress import Progress
from forgetting_core.scoring import token_losses
from forgetting_core.tables import TokenRows
from forgetting_core.token_loss import TokenLossModel

SAMPLES_FILE = f"{SAMPLES}/{HELD_OUT}.jsonl"


@dataclass(frozen=True)
class RowLosses:
    """The rows of a split that have response tokens. (R,) each."""

    rows: np.ndarray
    """Their places in the split, int64."""
    sums: np.ndarray
    """Of the token losses in nats, float64."""
    tokens: np.ndarray
    """Number of response tokens, int64."""
    digests: list[str]
    """SHA-256 of each row's `input_ids`, little-endian int32: equal for splits that can be paired row by row."""


def evaluate_held_out(
    *,
    base: Path,
    checkpoint: Path | None,
    validation: Path,
    dtype: Dtype,
    out: Path,
    execution: ExecutionConfig,
    progress: Progress,
) -> dict[str, Any]:
    """Write `metrics.json` with the mean loss per response token of the split `validation`, in nats, as `held_out`.

    `samples/held_out.jsonl` has a line for each row with a response token: its place in the split as `doc_id`, its
    digest as `doc`, its mean loss in nats, and its tokens as its `weight`.

    Returns `{"metrics": …}`. Raises `NumericalError` for a loss that is not finite.
    """
    device = resolve_device(execution.device)
    model = load_checkpoint(
        base, checkpoint, dtype=dtype, device=device, trust_remote_code=execution.trust_remote_code
    )
    rows = row_losses(model, validation, micro_batch=execution.micro_batch, progress=progress)
    loss = mean_loss(rows)
    write_json(out / METRICS_FILE, {HELD_OUT: loss})
    write_row_losses(out, rows)
    return {"metrics": {HELD_OUT: loss}}


def row_losses(
    model: PreTrainedModel | PeftModel, validation: Path, *, micro_batch: int | str, progress: Progress
) -> RowLosses:
    """The losses of a split, row by row. Raises `InputError` when no row has a response token."""
    rows = TokenRows.read(validation)
    scored = answered_rows(rows)
    losses = token_losses(
        TokenLossModel(model),
        rows,
        block_rows=ScoreConfig().block_rows,
        micro_batch=micro_batch,
        progress=progress,
    )
    spans = list(rows.rows())
    of_row = [losses[spans[row]][~np.isnan(losses[spans[row]])] for row in scored]
    return RowLosses(
        rows=scored,
        sums=np.array([values.sum(dtype=np.float64) for values in of_row]),
        tokens=np.array([len(values) for values in of_row]),
        digests=[hashlib.sha256(rows.input_ids[spans[row]].astype("<i4").tobytes()).hexdigest() for row in scored],
    )


def answered_rows(rows: TokenRows) -> np.ndarray:
    """int64 (S,): the validation rows that have a response token. Raises `InputError` when none has."""
    answered = np.flatnonzero(rows.count(rows.response_mask()))
    if not len(answered):
        raise InputError(
            f"none of the {len(rows)} validation rows has a response token, so nothing can be measured on them; "
            "most likely data.max_length cuts the answers off: raise it. To measure nothing there, set "
            "split.validation_rows: 0, and leave out eval_steps and evaluate.diversity"
        )
    return answered


def mean_loss(rows: RowLosses) -> dict[str, float]:
    """`loss` (nats per response token), `loss_stderr` (with two rows or more) and `tokens`."""
    loss, error = ratio_with_stderr(rows.sums, rows.tokens)
    result: dict[str, float] = {"loss": loss, "tokens": int(rows.tokens.sum())}
    return result if error is None else {**result, "loss_stderr": error}


def loss_change(before: RowLosses, after: RowLosses) -> tuple[float, float | None]:
    """(Mean loss of a split under one model minus that under another, its standard error), nats per response token.

    Paired: hard rows are hard for both models, so the error is that of the rows' differences, and far smaller than
    those of the two losses. None for a single row. Raises `InputError` for two different splits.
    """
    if before.digests != after.digests:
        raise InputError("held-out losses of different validation rows cannot be paired; evaluate both models anew")
    return ratio_with_stderr(after.sums - before.sums, after.tokens)


def write_row_losses(folder: Path, rows: RowLosses) -> None:
    """`samples/held_out.jsonl`: see `evaluate_held_out`."""
    columns = (rows.rows.tolist(), rows.digests, rows.sums / rows.tokens, rows.tokens.tolist())
    write_json_lines(
        folder / SAMPLES_FILE,
        (
            {"doc_id": row, "doc": digest, "metrics": {"loss": float(loss)}, "weight": tokens}
            for row, digest, loss, tokens in zip(*columns, strict=True)
        ),
    )


def read_row_losses(folder: Path) -> RowLosses:
    """Of an evaluation's artifact. Raises `InputError` for a file that is none of `write_row_losses`."""
    lines = list(read_json_lines(folder / SAMPLES_FILE))
    try:
        tokens = np.array([line["weight"] for line in lines])
        return RowLosses(
            rows=np.array([line["doc_id"] for line in lines]),
            sums=np.array([line["metrics"]["loss"] for line in lines]) * tokens,
            tokens=tokens,
            digests=[line["doc"] for line in lines],
        )
    except KeyError as error:
        raise InputError(
            f"{folder / SAMPLES_FILE}: expected a row's loss in every line, one lacks {error}"
        ) from error


def ratio_with_stderr(sums: np.ndarray, counts: np.ndarray) -> tuple[float, float | None]:
    """(Σ sums / Σ counts, its standard error when rows, not tokens, are the independent draws).

    The ratio estimator of cluster sampling (Cochran, Sampling Techniques, 1977, chapter 6): tokens of one row are
    correlated, so counting them one by one would understate the error. None for a single row.
    """
    mean = float(sums.sum() / counts.sum())
    rows = len(sums)
    if rows < 2:
        return mean, None
    residuals = sums - mean * counts
    return mean, float(np.sqrt(rows / (rows - 1) * np.square(residuals).sum()) / counts.sum())
