"""The step `evaluate` of held-out rows: how well a model predicts responses it was not trained on.

Apart from the benchmarks, so that it does not wait for the harness to be imported.
"""

from pathlib import Path
from typing import Any

import numpy as np
from peft import PeftModel
from transformers import PreTrainedModel

from forgetting_core.config import Dtype, ExecutionConfig, ScoreConfig
from forgetting_core.errors import InputError
from forgetting_core.evaluation import HELD_OUT, METRICS_FILE
from forgetting_core.json_files import write_json
from forgetting_core.models import load_checkpoint, resolve_device
from forgetting_core.progress import Progress
from forgetting_core.scoring import token_losses
from forgetting_core.tables import TokenRows
from forgetting_core.token_loss import TokenLossModel


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

    Returns `{"metrics": …}`. Raises `NumericalError` for a loss that is not finite.
    """
    model = load_checkpoint(base, checkpoint, dtype=dtype, device=resolve_device(execution.device))
    loss = held_out_loss(model, validation, micro_batch=execution.micro_batch, progress=progress)
    write_json(out / METRICS_FILE, {HELD_OUT: loss})
    return {"metrics": {HELD_OUT: loss}}


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
