"""Token losses of a split under one model: the two of them whose difference is influence.

A split may be scored in shards of whole blocks, which put together are the same bytes.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from forgetting_core.batching import Passes
from forgetting_core.config import ExecutionConfig, ScoreConfig
from forgetting_core.errors import NumericalError
from forgetting_core.models import check_lengths, load_checkpoint, resolve_device
from forgetting_core.packing import keeps_rows_apart
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
    only: range | None = None,
) -> dict[str, Any]:
    """Write `token_losses.parquet` for the rows of `data`, block by block, so that memory stays that of a block.

    `checkpoint` is a full model or an adapter of `base`; None scores the base itself. `only` is a shard: see
    `tables.shard_rows`.
    """
    device = resolve_device(execution.device)
    model = TokenLossModel(load_checkpoint(base, checkpoint, dtype=config.dtype, device=device))
    rows = TokenRows.read(data)

    def blocks() -> Iterator[pa.RecordBatch]:
        for block, losses in block_losses(
            model, rows, config.block_rows, execution.micro_batch, progress, only=only
        ):
            offsets = rows.offsets[block.start : block.stop + 1]
            column = list_array(losses, offsets - offsets[0], pa.float32())
            yield pa.record_batch([pa.array(np.arange(block.start, block.stop)), column], schema=LOSS_SCHEMA)

    return _write(blocks(), out)


def merge_shards(shards: Sequence[Path], *, out: Path) -> dict[str, Any]:
    """Write the `token_losses.parquet` that scoring without shards would have written; `shards` in row order."""

    def blocks() -> Iterator[pa.RecordBatch]:
        for shard in shards:
            file = pq.ParquetFile(shard / LOSSES_FILE)
            for group in range(file.num_row_groups):  # a block each
                yield from file.read_row_group(group).combine_chunks().to_batches()

    return _write(blocks(), out)


def _write(blocks: Iterator[pa.RecordBatch], out: Path) -> dict[str, Any]:
    """The file, and its {"tokens", "loss"}: the number of losses and their mean in nats."""
    tokens, total = 0, 0.0

    def counted() -> Iterator[pa.RecordBatch]:
        nonlocal tokens, total
        for block in blocks:
            losses = block.column("loss").flatten().to_numpy()
            tokens += int((~np.isnan(losses)).sum())
            total += float(np.nansum(losses, dtype=np.float64))
            yield block

    write_parquet(out / LOSSES_FILE, counted(), LOSS_SCHEMA)
    return {"tokens": tokens, "loss": total / max(tokens, 1)}


def token_losses(
    model: TokenLossModel, rows: TokenRows, *, block_rows: int, micro_batch: int | str, progress: Progress
) -> np.ndarray:
    """float32 (T,): −log p of each response token of `rows` in nats, NaN elsewhere."""
    blocks = [losses for _, losses in block_losses(model, rows, block_rows, micro_batch, progress)]
    return np.concatenate(blocks) if blocks else np.empty(0, np.float32)


@torch.inference_mode()
def block_losses(
    model: TokenLossModel,
    rows: TokenRows,
    block_rows: int,
    micro_batch: int | str,
    progress: Progress,
    *,
    only: range | None = None,
) -> Iterator[tuple[range, np.ndarray]]:
    """(rows of the block, their losses float32 (T_block,)) in row order, of all rows or of the shard `only`.

    Rows are batched within their block only, since float results depend on the shape of a batch. Raises
    `NumericalError` naming the row when a loss is not finite.
    """
    wanted = only or range(len(rows))
    device = next(model.parameters()).device
    response = rows.response_mask()
    counts = rows.count(response)
    check_lengths(model.model, int(rows.lengths.max(initial=0)))
    passes = Passes.of(model.model, micro_batch, device.type, packed=keeps_rows_apart(model.model))
    done, total = 0, int(counts[wanted.start : wanted.stop].sum())
    for first in wanted[::block_rows]:
        block = range(first, min(first + block_rows, wanted.stop))
        start = rows.offsets[block.start]
        losses = np.full(rows.offsets[block.stop] - start, np.nan, dtype=np.float32)
        scored = block.start + np.flatnonzero(counts[block.start : block.stop])
        for batch in passes.micro_batches(rows, response, scored):
            tokens = batch.chosen_tokens
            losses[tokens - start] = model(**batch.inputs(device)).float().cpu().numpy()
            wrong = tokens[~np.isfinite(losses[tokens - start])]
            if len(wrong):
                row = rows.row_of(wrong[:1])[0]
                raise NumericalError(f"scoring: row {row} has a loss that is not finite; try dtype float32")
            done += len(tokens)
            progress.advance(done, total, "tokens")
        yield block, losses
