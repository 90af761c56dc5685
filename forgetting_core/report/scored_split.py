"""A split with everything that is known of its tokens: the losses, the label, planted noise, where a row came from.

Four artifacts are joined here, and refused when they are not about the same tokens.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from forgetting_core.errors import InputError
from forgetting_core.partition import influence, read_losses
from forgetting_core.tables import NOISE_FIELD, TokenRows, flatten, read_parquet


@dataclass(frozen=True)
class ScoredSplit:
    """A split whose tokens are scored and labelled. T tokens in R rows."""

    rows: TokenRows
    loss_base: np.ndarray
    """float32 (T,) nats, NaN where not a response token; likewise the next two"""
    loss_reference: np.ndarray
    influence: np.ndarray
    label: np.ndarray
    """int8 (T,): +1 positive, −1 negative, 0 not a response token"""
    noise: np.ndarray | None
    """bool (T,): planted noise; None where nobody knows"""
    sources: list[str]
    """R: the row's `source`, else its file"""
    origins: list[str]
    """R: where the raw row is: its `source` if it has one, file, row"""

    @property
    def response(self) -> np.ndarray:
        """bool (T,): the response tokens."""
        return self.label != 0

    def row_of_token(self) -> np.ndarray:
        """int64 (T,): the row of each token."""
        return np.repeat(np.arange(len(self.rows)), self.rows.lengths)


def read_scored_split(data: Path, loss_base: Path, loss_reference: Path, token_labels: Path) -> ScoredSplit:
    """Join the four artifacts.

    Raises `InputError` when losses or labels are of other tokens than `data` has, or no row has a response token.
    """
    table = read_parquet(data)
    input_ids, offsets = flatten(table["input_ids"])
    labels, _ = flatten(table["labels"])
    rows = TokenRows(input_ids, labels, offsets)
    response = rows.response_mask()
    if not response.any():
        raise InputError(f"{data}: no row has a response token; nothing to report on")
    base, reference = read_losses(loss_base), read_losses(loss_reference)
    signs = flatten(read_parquet(token_labels, ["label"])["label"])
    for folder, (values, found), is_response in (
        (loss_base, base, ~np.isnan(base[0])),
        (loss_reference, reference, ~np.isnan(reference[0])),
        (token_labels, signs, signs[0] != 0),
    ):
        if not np.array_equal(found, offsets) or not np.array_equal(is_response, response):
            raise InputError(
                f"{folder}: {len(values)} tokens that are not those of {data}; score and partition this split again"
            )
    places = list(zip(*(table[name].to_pylist() for name in ("source", "source_file", "source_row")), strict=True))
    noisy = NOISE_FIELD.name in table.schema.names
    return ScoredSplit(
        rows=rows,
        loss_base=base[0],
        loss_reference=reference[0],
        influence=influence(base[0], reference[0]),
        label=signs[0],
        noise=flatten(table[NOISE_FIELD.name])[0] == 1 if noisy else None,
        sources=[file if source is None else source for source, file, _ in places],
        origins=[f"{source} · {file}, row {n}" if source else f"{file}, row {n}" for source, file, n in places],
    )
