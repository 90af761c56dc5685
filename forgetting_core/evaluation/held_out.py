"""The step `evaluate` of held-out rows: how well a model predicts responses it was not trained on.

Apart from the benchmarks, so that it does not wait for the harness to be imported.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from peft import PeftModel
from transformers import PreTrainedModel

from forgetting_core.config import Dtype, ExecutionConfig, ScoreConfig
from forgetting_core.errors import InputError
from forgetting_core.evaluation import HELD_OUT, METRICS_FILE, SAMPLES
from forgetting_core.json_files import write_json
from forgetting_core.models import load_checkpoint, resolve_device
from forgetting_core.progress import Progress
from forgetting_core.scoring import token_losses
from forgetting_core.tables import TokenRows
from forgetting_core.token_loss import TokenLossModel


@dataclass(frozen=True)
class RowLosses:
    """The rows of a split that have response tokens. (R,) each."""

    rows: np.ndarray
    """Their places in the split, int64."""
    sums: np.ndarray
    """Of the token losses in nats, float64."""
    tokens: np.ndarray
    """Number of response tokens, int64."""


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

    `samples/held_out.jsonl` has a line for each row with a response token: its place in the split, its mean loss in
    nats, and its tokens as its weight.

    Returns `{"metrics": …}`. Raises `NumericalError` for a loss that is not finite.
    """
    model = load_checkpoint(base, checkpoint, dtype=dtype, device=resolve_device(execution.device))
    rows = row_losses(model, validation, micro_batch=execution.micro_batch, progress=progress)
    loss = mean_loss(rows)
    write_json(out / METRICS_FILE, {HELD_OUT: loss})
    _write_samples(out / SAMPLES / f"{HELD_OUT}.jsonl", rows)
    return {"metrics": {HELD_OUT: loss}}


def row_losses(
    model: PreTrainedModel | PeftModel, validation: Path, *, micro_batch: int | str, progress: Progress
) -> RowLosses:
    """The losses of a split, row by row. Raises `InputError` when no row has a response token."""
    rows = TokenRows.read(validation)
    losses = token_losses(
        TokenLossModel(model),
        rows,
        block_rows=ScoreConfig().block_rows,
        micro_batch=micro_batch,
        progress=progress,
    )
    of_row = [losses[span][~np.isnan(losses[span])] for span in rows.rows()]
    scored = [place for place, row in enumerate(of_row) if len(row)]
    if not scored:
        raise InputError(f"{validation}: no validation row has a response token; set split.validation_rows: 0")
    return RowLosses(
        rows=np.array(scored),
        sums=np.array([of_row[place].sum(dtype=np.float64) for place in scored]),
        tokens=np.array([len(of_row[place]) for place in scored]),
    )


def mean_loss(rows: RowLosses) -> dict[str, float]:
    """`loss` (nats per response token), `loss_stderr` (with two rows or more) and `tokens`."""
    loss, error = ratio_with_stderr(rows.sums, rows.tokens)
    result: dict[str, float] = {"loss": loss, "tokens": int(rows.tokens.sum())}
    return result if error is None else {**result, "loss_stderr": error}


def _write_samples(path: Path, rows: RowLosses) -> None:
    path.parent.mkdir(parents=True)
    with path.open("w", encoding="utf-8", newline="\n") as lines:
        for row, total, tokens in zip(rows.rows.tolist(), rows.sums, rows.tokens.tolist(), strict=True):
            record = {"doc_id": row, "metrics": {"loss": float(total / tokens)}, "weight": tokens}
            lines.write(json.dumps(record, sort_keys=True) + "\n")


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
