"""Held-out loss: how well a model predicts the responses of rows it was not trained on."""

from pathlib import Path

import numpy as np
from peft import PeftModel
from transformers import PreTrainedModel

from forgetting_core.config import ScoreConfig
from forgetting_core.errors import InputError
from forgetting_core.progress import Progress
from forgetting_core.scoring import token_losses
from forgetting_core.tables import TokenRows
from forgetting_core.token_loss import TokenLossModel


def held_out_loss(
    model: PreTrainedModel | PeftModel, validation: Path, *, micro_batch: int | str, progress: Progress
) -> dict[str, float]:
    """`loss` (nats per response token), `loss_stderr` (with two rows or more) and `tokens` of a split.

    Raises `InputError` when no row has a response token.
    """
    rows = TokenRows.read(validation)
    losses = token_losses(
        TokenLossModel(model),
        rows,
        block_rows=ScoreConfig().block_rows,
        micro_batch=micro_batch,
        progress=progress,
    )
    scored = [row for row in (losses[span][~np.isnan(losses[span])] for span in rows.rows()) if len(row)]
    if not scored:
        raise InputError(f"{validation}: no validation row has a response token; set split.validation_rows: 0")
    sums = np.array([row.sum(dtype=np.float64) for row in scored])
    counts = np.array([len(row) for row in scored])
    loss, error = ratio_with_stderr(sums, counts)
    result: dict[str, float] = {"loss": loss, "tokens": int(counts.sum())}
    return result if error is None else {**result, "loss_stderr": error}


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
