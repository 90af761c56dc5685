"""Token losses of a split under one model: the two of them whose difference is influence."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from forgetting_core.batching import micro_batches, pad_right
from forgetting_core.config import ExecutionConfig, ScoreConfig
from forgetting_core.errors import NumericalError
from forgetting_core.models import check_lengths, load_checkpoint, resolve_device
from forgetting_core.progress import Progress
from forgetting_core.tables import LOSS_SCHEMA, TokenRows, list_array, write_parquet
from forgetting_core.token_loss import TokenLossModel

LOSSES_FILE = "token_losses.parquet"


def score_split(
    config: ScoreConfig,
    *,
    base: Path,
    checkpoint: Path | None,
    data: Path,
    out: Path,
    execution: ExecutionConfig,
    progress: Progress,
) -> dict[str, Any]:
    """Write `token_losses.parquet` for the rows of `data`, block by block, so that memory stays that of a block.

    `checkpoint` is a full model or an adapter of `base`; None scores the base itself.
    """
    device = resolve_device(execution.device)
    model = TokenLossModel(load_checkpoint(base, checkpoint, dtype=config.dtype, device=device))
    rows = TokenRows.read(data)
    total = _Mean()

    def blocks() -> Iterator[pa.RecordBatch]:
        for block, losses in block_losses(model, rows, config.block_rows, execution.micro_batch, progress):
            total.add(losses)
            offsets = rows.offsets[block.start : block.stop + 1]
            column = list_array(losses, offsets - offsets[0], pa.float32())
            yield pa.record_batch([pa.array(np.arange(block.start, block.stop)), column], schema=LOSS_SCHEMA)

    write_parquet(out / LOSSES_FILE, blocks(), LOSS_SCHEMA)
    return {"tokens": total.tokens, "loss": total.sum / max(total.tokens, 1)}


class _Mean:
    tokens = 0
    sum = 0.0

    def add(self, losses: np.ndarray) -> None:
        self.tokens += int((~np.isnan(losses)).sum())
        self.sum += float(np.nansum(losses, dtype=np.float64))


def token_losses(
    model: TokenLossModel, rows: TokenRows, *, block_rows: int, micro_batch: int | str, progress: Progress
) -> np.ndarray:
    """float32 (T,): −log p of each response token of `rows` in nats, NaN elsewhere."""
    blocks = [losses for _, losses in block_losses(model, rows, block_rows, micro_batch, progress)]
    return np.concatenate(blocks) if blocks else np.empty(0, np.float32)


@torch.inference_mode()
def block_losses(
    model: TokenLossModel, rows: TokenRows, block_rows: int, micro_batch: int | str, progress: Progress
) -> Iterator[tuple[range, np.ndarray]]:
    """(rows of the block, their losses float32 (T_block,)) in row order.

    Rows are batched within their block only, since float results depend on the shape of a batch. Raises
    `NumericalError` naming the row when a loss is not finite.
    """
    device = next(model.parameters()).device
    response = rows.response_mask()
    counts = rows.count(response)
    check_lengths(model.model, int(rows.lengths.max(initial=0)))
    done, total = 0, int(counts.sum())
    for first in range(0, len(rows), block_rows):
        block = range(first, min(first + block_rows, len(rows)))
        start = rows.offsets[block.start]
        losses = np.full(rows.offsets[block.stop] - start, np.nan, dtype=np.float32)
        scored = np.array([row for row in block if counts[row]], dtype=np.int64)
        for batch in micro_batches(scored, rows.lengths, micro_batch):
            input_ids = pad_right(rows, rows.input_ids, batch, torch.long).to(device)
            select = pad_right(rows, response, batch, torch.bool).to(device)
            values = model(input_ids, select).float().cpu().numpy()
            for row, loss in zip(batch, np.split(values, np.cumsum(counts[batch])[:-1]), strict=True):
                if not np.isfinite(loss).all():
                    raise NumericalError(f"scoring: row {row} has a loss that is not finite; try dtype float32")
                span = slice(rows.offsets[row], rows.offsets[row + 1])
                losses[span.start - start : span.stop - start][response[span]] = loss
            done += len(values)
            progress.advance(done, total, "tokens")
        yield block, losses
