"""Exactly the top ρ, ties and all."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgetting_core.config import PartitionConfig
from forgetting_core.errors import InputError, NumericalError
from forgetting_core.partition import highest, influence, label_tokens, partition, positive_count
from forgetting_core.progress import Progress
from forgetting_core.tables import (
    LOSS_SCHEMA,
    NOISE_FIELD,
    SPLIT_SCHEMA,
    flatten,
    list_array,
    read_parquet,
    write_parquet,
)

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
    count = positive_count(str(rho), len(score))
    assert np.array_equal(highest(score, count), by_sorting(score, str(rho)))


@given(FEW_VALUES, st.decimals(0, 1, places=3), st.decimals(0, 1, places=3))
@settings(max_examples=200, deadline=None)
def test_a_larger_share_keeps_every_positive_of_a_smaller_one(
    values: list[float], one: object, other: object
) -> None:
    score = np.array([value for value in values if value == value], dtype=np.float32)
    few, many = (
        highest(score, positive_count(rho, len(score))) for rho in sorted(map(str, (one, other)), key=float)
    )
    assert (many | ~few).all()


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


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Random losses of 31 rows under two models, and their split with every seventh token noise."""
    folder = tmp_path_factory.mktemp("scored")
    generator = np.random.Generator(np.random.PCG64(1))
    prompt = generator.random(4000) < 0.2
    base, reference = (np.where(prompt, NAN, generator.exponential(2, 4000)).tolist() for _ in range(2))
    offsets = [0, *sorted(generator.integers(0, 4000, 30).tolist()), 4000]
    write_losses(folder / "base", base, offsets)
    write_losses(folder / "reference", reference, offsets)
    noise = np.arange(len(base)) % 7 == 0
    ids = list_array(np.arange(len(base), dtype=np.int32), np.array(offsets), pa.int32())
    rows = len(offsets) - 1
    columns = [
        pa.array(range(rows)),
        ids,
        ids,
        pa.array(["f"] * rows),
        pa.array(range(rows)),
        pa.array(["s"] * rows),
    ]
    plain = pa.Table.from_arrays(columns, schema=SPLIT_SCHEMA)
    write_parquet(folder / "plain/part-0.parquet", [plain], SPLIT_SCHEMA)
    planted = list_array(noise.astype(np.int8), np.array(offsets), pa.int8())
    noisy = plain.append_column(NOISE_FIELD, planted)
    write_parquet(folder / "noisy/part-0.parquet", [noisy], noisy.schema)
    score = influence(np.array(base, np.float32), np.array(reference, np.float32))
    return {
        "folder": folder,
        "base": np.array(base, np.float32),
        "score": score,
        "offsets": offsets,
        "noise": noise,
        "response": ~np.isnan(score),
    }


def labels_of(scored: dict[str, Any], out: Path, data: str = "noisy", **config: Any) -> np.ndarray:
    folder = scored["folder"]
    partition(
        PartitionConfig(**config),
        loss_base=folder / "base",
        loss_reference=folder / "reference",
        data=folder / data if config.get("labelling") == "oracle_noise" else None,
        out=out,
        progress=Progress(),
    )
    labels, _ = flatten(read_parquet(out, ["label"])["label"])
    assert np.array_equal(labels != 0, scored["response"])
    return labels


@pytest.mark.parametrize("scope", ["corpus", "row"])
def test_a_threshold_takes_every_token_that_reaches_it(scored: dict[str, Any], tmp_path: Path, scope: str) -> None:
    labels = labels_of(scored, tmp_path, threshold="0.5", scope=scope)
    response = scored["response"]
    assert np.array_equal(labels[response] == 1, scored["score"][response].astype(np.float64) >= 0.5)
    statistics = json.loads((tmp_path / "aux/statistics.json").read_text())
    assert statistics["positive_share"] == statistics["positive_tokens"] / statistics["tokens"]
    assert statistics["threshold"] >= 0.5


def test_the_threshold_that_a_share_came_to_gives_the_same_labels(scored: dict[str, Any], tmp_path: Path) -> None:
    by_share = labels_of(scored, tmp_path / "share", rho="0.3")
    threshold = json.loads((tmp_path / "share/aux/statistics.json").read_text())["threshold"]
    assert np.array_equal(labels_of(scored, tmp_path / "threshold", threshold=threshold), by_share)


def test_no_token_reaches_a_high_threshold_and_all_a_low_one(scored: dict[str, Any], tmp_path: Path) -> None:
    assert (labels_of(scored, tmp_path / "high", threshold=1000) <= 0).all()
    assert (labels_of(scored, tmp_path / "low", threshold=-1000) >= 0).all()


@pytest.mark.parametrize("rule", [{"rho": "0.7"}, {"threshold": "0"}])
@pytest.mark.parametrize("scope", ["corpus", "row"])
@pytest.mark.parametrize("labelling", ["random", "loss_only"])
def test_a_control_has_as_many_positives_as_influence_has(
    scored: dict[str, Any], tmp_path: Path, labelling: str, scope: str, rule: dict[str, str]
) -> None:
    """In every row, where rows are ranked by themselves."""
    own = labels_of(scored, tmp_path / "own", scope=scope, **rule)
    control = labels_of(scored, tmp_path / "control", scope=scope, labelling=labelling, **rule)
    assert not np.array_equal(control, own)
    cuts = [0, len(own)] if scope == "corpus" else scored["offsets"]
    for first, stop in pairwise(cuts):
        assert (control[first:stop] == 1).sum() == (own[first:stop] == 1).sum()


def test_random_labels_follow_the_seed_and_nothing_else(scored: dict[str, Any], tmp_path: Path) -> None:
    first = labels_of(scored, tmp_path / "1", labelling="random")
    assert np.array_equal(first, labels_of(scored, tmp_path / "again", labelling="random"))
    other = labels_of(scored, tmp_path / "2", labelling="random", seed=7)
    both = (first == 1) & (other == 1)
    tokens = int(scored["response"].sum())
    assert both.sum() / tokens == pytest.approx(0.49, abs=0.03)  # two independent draws of 0.7
    thirds = np.array_split(first[scored["response"]] == 1, 3)
    assert [part.mean() for part in thirds] == pytest.approx([0.7] * 3, abs=0.05)
    tops = scored["score"][scored["response"]] > np.median(scored["score"][scored["response"]])
    assert (first[scored["response"]][tops] == 1).mean() == pytest.approx(0.7, abs=0.05)


def test_loss_only_calls_the_tokens_positive_that_are_hard_for_the_base(
    scored: dict[str, Any], tmp_path: Path
) -> None:
    labels = labels_of(scored, tmp_path, labelling="loss_only", rho="0.25")
    response = scored["response"]
    assert np.array_equal(labels[response] == 1, by_sorting(scored["base"][response], "0.25"))


def test_the_oracle_calls_planted_noise_negative_whatever_the_share(scored: dict[str, Any], tmp_path: Path) -> None:
    for rho in ("0", "0.7"):
        labels = labels_of(scored, tmp_path / rho, labelling="oracle_noise", rho=rho)
        assert np.array_equal(labels, np.where(scored["noise"], -1, 1) * scored["response"])


def test_the_oracle_needs_data_that_say_what_is_noise(scored: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"oracle_noise needs data that say what is noise.*choose influence"):
        labels_of(scored, tmp_path, data="plain", labelling="oracle_noise")
