"""Which response tokens are positive: the top ρ by influence, exactly (design §6), or a control's choice.

The controls tell the labels' share of the gain from the loss's: as many tokens at random, as many without the
reference model, or the very noise where it was planted.
"""

from decimal import ROUND_FLOOR, Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from forgetting_core.config import PartitionConfig
from forgetting_core.errors import InputError, NumericalError
from forgetting_core.json_files import write_json
from forgetting_core.progress import Progress
from forgetting_core.tables import LABEL_SCHEMA, NOISE_FIELD, flatten, list_array, read_parquet, write_parquet

LABELS_FILE = "token_labels.parquet"


def influence(loss_base: np.ndarray, loss_reference: np.ndarray) -> np.ndarray:
    """float32 loss_base − loss_reference in nats, with −0 written as +0; NaN where either is NaN."""
    return np.subtract(loss_base, loss_reference, dtype=np.float32) + np.float32(0)


def positive_count(rho: str, tokens: int) -> int:
    """k = ⌊ρ·N⌋ with ρ an exact decimal."""
    return int((Decimal(rho) * tokens).to_integral_value(ROUND_FLOOR))


def count_positives(score: np.ndarray, config: PartitionConfig) -> int:
    """k for tokens of influence `score` (N,): their share ρ, or how many reach the threshold."""
    if config.threshold is None:
        assert config.rho is not None  # validated
        return positive_count(config.rho, len(score))
    return int((score >= np.float64(config.threshold)).sum())  # in float64: the threshold is not rounded


def highest(score: np.ndarray, count: int) -> np.ndarray:
    """bool (N,): the `count` highest of `score` (N,), float32; ties go to the earlier token.

    Linear in N: only the threshold is selected, nothing is sorted.
    """
    if count == 0:
        return np.zeros(len(score), dtype=bool)
    threshold = np.partition(score, len(score) - count)[len(score) - count]
    chosen = score > threshold
    ties = np.flatnonzero(score == threshold)
    chosen[ties[: count - int(chosen.sum())]] = True
    return chosen


def ranking(config: PartitionConfig, score: np.ndarray, loss_base: np.ndarray) -> np.ndarray:
    """float32 (T,): what tokens are ranked by, for the labellings that rank.

    `loss_only` leaves the reference out of the influence: a high base loss is positive, the selection of hard
    examples that reducible loss is compared with (arXiv 2206.07137). It prefers noise, which is hard, too.
    """
    if config.labelling == "random":
        return np.random.Generator(np.random.PCG64(config.seed)).random(len(score), dtype=np.float32)
    return loss_base if config.labelling == "loss_only" else score


def label_tokens(
    score: np.ndarray, offsets: np.ndarray, config: PartitionConfig, ranked_by: np.ndarray | None = None
) -> np.ndarray:
    """int8 (T,): +1 positive, −1 negative, 0 where `score` is NaN (not a response token).

    `score`, the influence, is float32 (T,) in (row, position) order and decides how many are positive; `ranked_by`
    (T,), by default the same, decides which. `offsets` int64 (R+1,).
    """
    ranked_by = score if ranked_by is None else ranked_by
    label = np.zeros(len(score), dtype=np.int8)
    groups = [slice(None)] if config.scope == "corpus" else map(slice, offsets[:-1], offsets[1:])
    for group in groups:
        response = np.flatnonzero(~np.isnan(score[group]))
        count = count_positives(score[group][response], config)
        label[group][response] = np.where(highest(ranked_by[group][response], count), 1, -1)
    return label


def label_planted_noise(data: Path, response: np.ndarray) -> np.ndarray:
    """int8 (T,): −1 for the tokens of `response`, bool (T,), that the split `data` calls noise, +1 for the others.

    Raises `InputError` when the split calls nothing noise or clean, or is another one.
    """
    table = read_parquet(data)
    if NOISE_FIELD.name not in table.column_names:
        raise InputError(
            f"partition.labelling: oracle_noise needs data that say what is noise, and no row of {data} does (by a "
            "field `noise` of the raw rows, as `synthetic` has it); choose influence, random or loss_only"
        )
    noise, _ = flatten(table[NOISE_FIELD.name])
    if len(noise) != len(response):
        raise InputError(f"partition: {data} has other tokens than the losses; score this split again")
    return np.where(response, np.where(noise == 1, -1, 1), 0).astype(np.int8)


def read_losses(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(loss float32 (T,), offsets int64 (R+1,)) of a token-loss artifact."""
    return flatten(read_parquet(folder, ["loss"])["loss"])


def partition(
    config: PartitionConfig,
    *,
    loss_base: Path,
    loss_reference: Path,
    data: Path | None = None,
    out: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Write `token_labels.parquet` and `aux/statistics.json`; the two folders hold token losses of the same split.

    `data`, that split, is read by the labelling `oracle_noise` only. Raises `InputError` when the splits differ or
    noise is unknown, `NumericalError` when a loss is infinite.
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
    if config.labelling == "oracle_noise":
        assert data is not None, "the planted noise is in the split"
        label = label_planted_noise(data, ~np.isnan(score))
    else:
        label = label_tokens(score, offsets, config, ranking(config, score, base))
    rows = pa.array(np.arange(len(offsets) - 1))
    table = pa.Table.from_arrays([rows, list_array(label, offsets, pa.int8())], schema=LABEL_SCHEMA)
    write_parquet(out / LABELS_FILE, [table], LABEL_SCHEMA)
    statistics = describe(score, label)
    if not config.has_common_threshold:
        statistics["threshold"] = None
    write_json(out / "aux" / "statistics.json", statistics)
    progress.advance(int((label != 0).sum()), int((label != 0).sum()), "tokens")
    return statistics


def describe(score: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    """Counts, the positive share, the threshold (lowest positive influence, nats), mean influence of each side."""
    sides = {"positive": score[label == 1], "negative": score[label == -1]}
    found: dict[str, Any] = {f"{name}_tokens": len(values) for name, values in sides.items()}
    found["tokens"] = sum(len(values) for values in sides.values())
    found["positive_share"] = found["positive_tokens"] / found["tokens"] if found["tokens"] else None
    found["threshold"] = float(sides["positive"].min()) if len(sides["positive"]) else None
    for name, values in sides.items():
        found[f"mean_influence_{name}"] = float(values.mean(dtype=np.float64)) if len(values) else None
    return found
