"""Exactly the top ρ, ties and all."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgetting_core.config import PartitionConfig
from forgetting_core.errors import InputError, NumericalError
from forgetting_core.partition import influence, label_tokens, partition, positive_count, top_share
from forgetting_core.progress import Progress
from forgetting_core.tables import LOSS_SCHEMA, flatten, list_array, read_parquet, write_parquet

FEW_VALUES = st.lists(st.sampled_from([-1.5, -0.0, 0.0, 0.25, 3.0, float("nan")]), max_size=40)


def by_sorting(score: np.ndarray, rho: str) -> np.ndarray:
    """The definition: sort by (score descending, position ascending), take the first k."""
    order = sorted(range(len(score)), key=lambda index: (-score[index], index))
    chosen = np.zeros(len(score), dtype=bool)
    chosen[order[: positive_count(rho, len(score))]] = True
    return chosen


@given(FEW_VALUES, st.decimals(0, 1, places=3))
@settings(max_examples=300, deadline=None)
def test_selection_equals_sorting_with_ties(values: list[float], rho: object) -> None:
    score = np.array([value for value in values if value == value], dtype=np.float32)
    assert np.array_equal(top_share(score, str(rho)), by_sorting(score, str(rho)))


@given(st.lists(FEW_VALUES, max_size=6), st.sampled_from(["0", "0.3", "0.5", "1"]))
@settings(max_examples=200, deadline=None)
def test_row_scope_selects_within_each_row(rows: list[list[float]], rho: str) -> None:
    score = np.array([value for row in rows for value in row], dtype=np.float32)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    label = label_tokens(score, offsets, PartitionConfig(rho=rho, scope="row"))
    for start, end in pairwise(offsets):
        response = ~np.isnan(score[start:end])
        expected = by_sorting(score[start:end][response], rho)
        assert np.array_equal(label[start:end][response] == 1, expected)
        assert (label[start:end][~response] == 0).all()


def test_the_count_is_exact_where_floats_are_not() -> None:
    assert positive_count("0.29", 100) == 29  # 0.29 * 100 is 28.999… in floats
    assert positive_count("0.7", 10) == 7
    assert positive_count("1", 3) == 3 and positive_count("0", 3) == 0


def test_minus_zero_is_zero() -> None:
    score = influence(np.array([1.0, 2.0], np.float32), np.array([1.0, 2.0], np.float32))
    assert not np.signbit(score).any()


def write_losses(folder: Path, values: list[float], offsets: list[int]) -> Path:
    array = list_array(np.array(values, np.float32), np.array(offsets), pa.float32())
    rows = pa.array(range(len(offsets) - 1), pa.int64())
    table = pa.Table.from_arrays([rows, array], schema=LOSS_SCHEMA)
    write_parquet(folder / "token_losses.parquet", [table], LOSS_SCHEMA)
    return folder


def run(tmp_path: Path, base: list[float], reference: list[float], rho: str = "0.5") -> np.ndarray:
    out = tmp_path / f"out-{rho}"
    partition(
        PartitionConfig(rho=rho),
        loss_base=write_losses(tmp_path / "base", base, [0, 3, 3, 5]),
        loss_reference=write_losses(tmp_path / "reference", reference, [0, 3, 3, 5]),
        out=out,
        progress=Progress(),
    )
    labels, offsets = flatten(read_parquet(out, ["label"])["label"])
    assert offsets.tolist() == [0, 3, 3, 5]
    return labels


NAN = float("nan")


def test_labels_are_aligned_with_the_tokens(tmp_path: Path) -> None:
    labels = run(tmp_path, [NAN, 3, 1, NAN, 2], [NAN, 1, 1, NAN, 1.5], "0.4")
    assert labels.tolist() == [0, 1, -1, 0, -1]


def test_equal_labels_are_equal_bytes_for_two_rho(tmp_path: Path) -> None:
    run(tmp_path, [NAN, 3, 1, NAN, 2], [NAN, 1, 1, NAN, 1.5], "0.4")
    run(tmp_path, [NAN, 3, 1, NAN, 2], [NAN, 1, 1, NAN, 1.5], "0.5")
    first, second = (tmp_path / f"out-{rho}" / "token_labels.parquet" for rho in ("0.4", "0.5"))
    assert first.read_bytes() == second.read_bytes()


def test_losses_of_different_tokens_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="different tokens"):
        run(tmp_path, [NAN, 3, 1, NAN, 2], [NAN, 3, NAN, NAN, 2])


def test_an_infinite_influence_names_its_token(tmp_path: Path) -> None:
    with pytest.raises(NumericalError, match="row 2, position 1"):
        run(tmp_path, [NAN, 3, 1, NAN, float("inf")], [NAN, 3, 1, NAN, 2])
