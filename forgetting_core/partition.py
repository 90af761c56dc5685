"""The step that labels tokens: two sets of token losses in, one of labels out, a group of rows at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from forgetting_core.config import PartitionConfig
from forgetting_core.errors import InputError, NumericalError
from forgetting_core.json_files import write_json
from forgetting_core.labelling import Labelled, ScoredRows, label_by_rank, label_planted_noise
from forgetting_core.progress import Progress
from forgetting_core.tables import (
    LABEL_SCHEMA,
    count_rows,
    flatten,
    list_array,
    read_groups,
    read_parquet,
    write_parquet,
)

LABELS_FILE = "token_labels.parquet"
_OTHER_TOKENS = "partition: base and reference losses cover different tokens; score the same split twice"


def influence(loss_base: np.ndarray, loss_reference: np.ndarray) -> np.ndarray:
    """float32 loss_base − loss_reference in nats, with −0 written as +0; NaN where either is NaN."""
    with np.errstate(invalid="ignore"):  # of two infinite losses, which the caller refuses
        return np.subtract(loss_base, loss_reference, dtype=np.float32) + np.float32(0)


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

    def read() -> Iterator[ScoredRows]:
        return read_scores(loss_base, loss_reference)

    if config.labelling == "oracle_noise":
        assert data is not None, "the planted noise is in the split"
        labelled = label_planted_noise(read, data)
    else:
        labelled = label_by_rank(read, config)
    tally = Tally()
    tables = _tables(labelled, tally, count_rows(loss_base), progress)
    write_parquet(out / LABELS_FILE, tables, LABEL_SCHEMA)
    statistics = tally.statistics()
    if not config.has_common_threshold:
        statistics["threshold"] = None
    write_json(out / "aux" / "statistics.json", statistics)
    return statistics


def read_scores(loss_base: Path, loss_reference: Path) -> Iterator[ScoredRows]:
    """The influence of all rows, in groups. Raises as `partition` does."""
    if count_rows(loss_base) != count_rows(loss_reference):
        raise InputError(_OTHER_TOKENS)
    first = 0
    pairs = zip(read_groups(loss_base, "loss"), read_groups(loss_reference, "loss"), strict=True)
    for (base, offsets), (reference, reference_offsets) in pairs:
        if not np.array_equal(offsets, reference_offsets) or not np.array_equal(
            np.isnan(base), np.isnan(reference)
        ):
            raise InputError(_OTHER_TOKENS)
        score = influence(base, reference)
        infinite = np.flatnonzero(~np.isfinite(score) & ~np.isnan(base))  # ∞ − ∞ is NaN, and no prompt
        if len(infinite):
            row = int(np.searchsorted(offsets, infinite[0], side="right")) - 1
            position = int(infinite[0] - offsets[row])
            raise NumericalError(
                f"partition: the influence of row {first + row}, position {position} is not finite: its losses "
                f"are {base[infinite[0]]} (base) and {reference[infinite[0]]} (reference); score the split again, "
                "with score.dtype float32"
            )
        yield ScoredRows(base, score, offsets)
        first += len(offsets) - 1


def _tables(labelled: Labelled, tally: "Tally", rows: int, progress: Progress) -> Iterator[pa.Table]:
    done = 0
    for scored, label in labelled:
        tally.add(scored.influence, label)
        first, done = done, done + len(scored.offsets) - 1
        numbers = pa.array(np.arange(first, done))
        yield pa.Table.from_arrays([numbers, list_array(label, scored.offsets, pa.int8())], schema=LABEL_SCHEMA)
        progress.advance(done, rows, "rows")


class Tally:
    """What is known of the two sides: sums over the tokens added so far."""

    def __init__(self) -> None:
        self._tokens = {"positive": 0, "negative": 0}
        self._influence = {"positive": 0.0, "negative": 0.0}
        self._lowest = np.inf

    def add(self, score: np.ndarray, label: np.ndarray) -> None:
        """Influence float32 (T,) in nats and label int8 (T,) of more tokens."""
        for side, sign in (("positive", 1), ("negative", -1)):
            values = score[label == sign]
            self._tokens[side] += len(values)
            self._influence[side] += float(values.sum(dtype=np.float64))
            if side == "positive":
                self._lowest = float(values.min(initial=self._lowest))

    def statistics(self) -> dict[str, Any]:
        """Counts, the positive share, the threshold (lowest positive influence, nats), mean influence by side."""
        tokens = sum(self._tokens.values())
        positive = self._tokens["positive"]
        return {
            **{f"{side}_tokens": number for side, number in self._tokens.items()},
            "tokens": tokens,
            "positive_share": positive / tokens if tokens else None,
            "threshold": self._lowest if positive else None,
            **{
                f"mean_influence_{side}": self._influence[side] / number if number else None
                for side, number in self._tokens.items()
            },
        }


def describe(score: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    """The statistics of all tokens at once: influence float32 (T,) in nats, label int8 (T,)."""
    tally = Tally()
    tally.add(score, label)
    return tally.statistics()
