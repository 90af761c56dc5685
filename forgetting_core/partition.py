"""Which response tokens are positive: the top ρ by influence, exactly (design §6)."""

from decimal import ROUND_FLOOR, Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from forgetting_core.config import PartitionConfig
from forgetting_core.errors import InputError, NumericalError
from forgetting_core.json_files import write_json
from forgetting_core.progress import Progress
from forgetting_core.tables import LABEL_SCHEMA, flatten, list_array, read_parquet, write_parquet

LABELS_FILE = "token_labels.parquet"


def influence(loss_base: np.ndarray, loss_reference: np.ndarray) -> np.ndarray:
    """float32 loss_base − loss_reference in nats, with −0 written as +0; NaN where either is NaN."""
    return np.subtract(loss_base, loss_reference, dtype=np.float32) + np.float32(0)


def positive_count(rho: str, tokens: int) -> int:
    """k = ⌊ρ·N⌋ with ρ an exact decimal."""
    return int((Decimal(rho) * tokens).to_integral_value(ROUND_FLOOR))


def top_share(score: np.ndarray, rho: str) -> np.ndarray:
    """bool (N,): the k = ⌊ρ·N⌋ highest of `score` (N,), float32; ties go to the earlier token.

    Linear in N: only the threshold is selected, nothing is sorted.
    """
    count = positive_count(rho, len(score))
    if count == 0:
        return np.zeros(len(score), dtype=bool)
    threshold = np.partition(score, len(score) - count)[len(score) - count]
    chosen = score > threshold
    ties = np.flatnonzero(score == threshold)
    chosen[ties[: count - int(chosen.sum())]] = True
    return chosen


def label_tokens(score: np.ndarray, offsets: np.ndarray, config: PartitionConfig) -> np.ndarray:
    """int8 (T,): +1 positive, −1 negative, 0 where `score` is NaN (not a response token).

    `score` float32 (T,) in (row, position) order; `offsets` int64 (R+1,).
    """
    label = np.zeros(len(score), dtype=np.int8)
    groups = [slice(None)] if config.scope == "corpus" else map(slice, offsets[:-1], offsets[1:])
    for group in groups:
        response = np.flatnonzero(~np.isnan(score[group]))
        chosen = top_share(score[group][response], config.rho)
        label[group][response] = np.where(chosen, 1, -1)
    return label


def read_losses(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(loss float32 (T,), offsets int64 (R+1,)) of a token-loss artifact."""
    return flatten(read_parquet(folder, ["loss"])["loss"])


def partition(
    config: PartitionConfig, *, loss_base: Path, loss_reference: Path, out: Path, progress: Progress
) -> dict[str, Any]:
    """Write `token_labels.parquet` and `aux/statistics.json`; the two folders hold token losses of the same split.

    Raises `InputError` when they do not, `NumericalError` when a loss is infinite.
    """
    base, offsets = read_losses(loss_base)
    reference, reference_offsets = read_losses(loss_reference)
    if not np.array_equal(offsets, reference_offsets) or not np.array_equal(np.isnan(base), np.isnan(reference)):
        raise InputError("partition: base and reference losses cover different tokens; score the same split twice")
    score = influence(base, reference)
    infinite = np.flatnonzero(np.isinf(score))
    if len(infinite):
        row = int(np.searchsorted(offsets, infinite[0], side="right")) - 1
        position = int(infinite[0] - offsets[row])
        raise NumericalError(f"partition: the influence of row {row}, position {position} is not finite")
    label = label_tokens(score, offsets, config)
    rows = pa.array(np.arange(len(offsets) - 1))
    table = pa.Table.from_arrays([rows, list_array(label, offsets, pa.int8())], schema=LABEL_SCHEMA)
    write_parquet(out / LABELS_FILE, [table], LABEL_SCHEMA)
    statistics = describe(score, label)
    write_json(out / "aux" / "statistics.json", statistics)
    progress.advance(int((label != 0).sum()), int((label != 0).sum()), "tokens")
    return statistics


def describe(score: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    """Counts, the threshold (lowest positive influence, nats) and mean influence of each side."""
    sides = {"positive": score[label == 1], "negative": score[label == -1]}
    found: dict[str, Any] = {f"{name}_tokens": len(values) for name, values in sides.items()}
    found["tokens"] = sum(len(values) for values in sides.values())
    found["threshold"] = float(sides["positive"].min()) if len(sides["positive"]) else None
    for name, values in sides.items():
        found[f"mean_influence_{name}"] = float(values.mean(dtype=np.float64)) if len(values) else None
    return found
