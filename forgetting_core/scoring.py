"""Token losses of a split under one model: the two of them whose difference is influence.

A split may be scored in shards of whole blocks, which put together are the same bytes.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import count, dropwhile, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from forgetting_core.attention import attend_row_by_row
from forgetting_core.batching import Passes
from forgetting_core.config import ExecutionConfig, ScoreConfig
from forgetting_core.errors import NumericalError
from forgetting_core.finite import listed
from forgetting_core.models import check_lengths, load_checkpoint, resolve_device
from forgetting_core.packing import keeps_rows_apart
from forgetting_core.progress import Progress
from forgetting_core.tables import LOSS_SCHEMA, TokenRows, count_rows, list_array, write_parquet
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
    `tables.shard_rows`. Raises `NumericalError` naming the rows when a loss is not finite.
    """
    device = resolve_device(execution.device)
    model = TokenLossModel(
        load_checkpoint(
            base, checkpoint, dtype=config.dtype, device=device, trust_remote_code=execution.trust_remote_code
        )
    )
    wanted = only or range(count_rows(data))

    def blocks() -> Iterator[tuple[int, TokenRows]]:
        of_split = TokenRows.read_blocks(data, config.block_rows)
        numbered = zip(count(0, config.block_rows), of_split, strict=False)
        until_stop = takewhile(lambda block: block[0] < wanted.stop, numbered)
        return dropwhile(lambda block: block[0] < wanted.start, until_stop)

    def scored() -> Iterator[pa.RecordBatch]:
        scorer = Scorer(model, execution.micro_batch, progress, (rows for _, rows in blocks()))
        for first, rows in blocks():
            losses = list_array(scorer.losses(rows, first), rows.offsets, pa.float32())
            yield pa.record_batch([pa.array(np.arange(first, first + len(rows))), losses], schema=LOSS_SCHEMA)

    return _write(scored(), out)


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
    """float32 (T,): −log p in nats of each response token, NaN elsewhere. Raises as `score_split` does."""
    scorer = Scorer(model, micro_batch, progress, [rows])
    numbered = zip(count(0, block_rows), rows.blocks(block_rows), strict=False)
    losses = [scorer.losses(block, first) for first, block in numbered]
    return np.concatenate(losses) if losses else np.empty(0, np.float32)


class Scorer:
    """Computes losses under one model, block by block, since float results depend on what is computed together."""

    def __init__(
        self, model: TokenLossModel, micro_batch: int | str, progress: Progress, blocks: Iterable[TokenRows]
    ) -> None:
        """`blocks` are those to come. Raises `InputError` where a row is longer than the model's positions."""
        self._model, self._progress = model, progress
        self._device = next(model.parameters()).device
        self._done = self._total = longest = 0
        for rows in blocks:
            self._total += int(rows.response_mask().sum())
            longest = max(longest, int(rows.lengths.max(initial=0)))
        check_lengths(model.model, longest)
        packed = False
        if micro_batch == "auto":
            attend_row_by_row(model.model, self._device.type)
            packed = keeps_rows_apart(model.model)
        self._passes = Passes.of(model.model, micro_batch, self._device.type, packed=packed)

    @torch.inference_mode()
    def losses(self, rows: TokenRows, first: int) -> np.ndarray:
        """float32 (T,) of a block, NaN where not a response token; `first` is the place of its first row."""
        response = rows.response_mask()
        losses = np.full(len(response), np.nan, dtype=np.float32)
        for batch in self._passes.micro_batches(rows, response, np.flatnonzero(rows.count(response))):
            tokens = batch.chosen_tokens
            found = self._model(**batch.inputs(self._device)).float().cpu().numpy()
            wrong = tokens[~np.isfinite(found)]
            if len(wrong):
                hit = np.unique(first + rows.row_of(wrong))  # rows of a line meet the same zero times NaN
                raise NumericalError(
                    f"scoring: losses are not finite (rows {listed(hit)}, of which one is enough to spoil those "
                    "that share its line); try dtype float32"
                )
            losses[tokens] = found
            self._done += len(tokens)
            self._progress.advance(self._done, self._total, "tokens")
        return losses
