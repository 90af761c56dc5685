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
from forgetting_core.labelling import ScoredRows, label_by_rank, positive_count
from forgetting_core.partition import influence, partition
from forgetting_core.progress import Progress
from forgetting_core.ranking import Chooser, find_cut, highest
from forgetting_core.tables import (
    LOSS_SCHEMA,
    NOISE_FIELD,
    ROWS_PER_GROUP,
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


ANY_VALUES = st.lists(
    st.floats(allow_nan=False, allow_infinity=False, width=32) | st.just(float("nan")), max_size=40
)


def chosen_of(groups: list[np.ndarray], count: int) -> np.ndarray:
    """What `find_cut` and its chooser take of numbers that come in groups."""
    choose = Chooser(find_cut(lambda: iter(groups), lambda _: count))
    return np.concatenate([np.zeros(0, bool), *map(choose, groups)])


@given(st.lists(FEW_VALUES | ANY_VALUES, max_size=4), st.decimals(0, 1, places=3))
@settings(max_examples=300, deadline=None)
def test_selection_equals_sorting_with_ties(lists: list[list[float]], rho: object) -> None:
    """Of numbers read in groups, some of which are no candidates, and of the candidates in one array."""
    groups = [np.array(values, dtype=np.float32) for values in lists]
    score = np.concatenate([np.zeros(0, np.float32), *groups])
    candidates = score[~np.isnan(score)]
    expected = by_sorting(candidates, str(rho))
    count = positive_count(str(rho), len(candidates))
    assert np.array_equal(highest(candidates, count), expected)
    chosen = chosen_of(groups, count)
    assert np.array_equal(chosen[~np.isnan(score)], expected)
    assert not chosen[np.isnan(score)].any()


@pytest.mark.parametrize(
    "values", [[0.0, -0.0], [np.finfo(np.float32).max, -np.finfo(np.float32).max], [1e-45, 0.0]]
)
def test_selection_knows_the_ends_of_float32(values: list[float]) -> None:
    score = np.array(values * 3, dtype=np.float32)
    for count in range(7):
        assert np.array_equal(chosen_of([score[:2], score[2:]], count), by_sorting(score, str(count / 6 + 1e-9)))


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
    scored = ScoredRows(score, score, offsets)
    ((_, label),) = label_by_rank(lambda: iter([scored]), PartitionConfig(rho=rho, scope="row"))
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


@pytest.mark.parametrize("scope", ["corpus", "row"])
def test_how_the_losses_are_cut_into_files_changes_no_byte(tmp_path: Path, scope: str) -> None:
    """More rows than are read at a time, rows without a token among them."""
    generator = np.random.Generator(np.random.PCG64(5))
    offsets = np.concatenate([[0], np.cumsum(generator.integers(0, 4, 9000))])
    base, reference = (np.round(generator.normal(2, 1, offsets[-1]) * 8) / 8 for _ in range(2))
    base[::3] = reference[::3] = NAN
    cuts = {"whole": [0, 9000], "parts": [0, 512, 5000, 5001, 9000]}
    for name, edges in cuts.items():
        for model, loss in (("base", base), ("reference", reference)):
            for first, stop in pairwise(edges if model == "reference" else [0, 9000]):
                part = offsets[first : stop + 1]
                written = write_losses(
                    tmp_path / "part", loss[part[0] : part[-1]].tolist(), (part - part[0]).tolist()
                )
                target = tmp_path / name / model / f"part-{first:05d}.parquet"
                target.parent.mkdir(parents=True, exist_ok=True)
                (written / "token_losses.parquet").rename(target)
        losses = {f"loss_{model}": tmp_path / name / model for model in ("base", "reference")}
        out = tmp_path / name / "labels"
        partition(PartitionConfig(rho="0.4", scope=scope), **losses, out=out, progress=Progress())
    files = [tmp_path / name / "labels/token_labels.parquet" for name in cuts]
    assert files[0].read_bytes() == files[1].read_bytes()
    labels, found = flatten(read_parquet(files[0].parent, ["label"])["label"])
    assert np.array_equal(found, offsets)
    score = influence(base.astype(np.float32), reference.astype(np.float32))
    groups = [slice(None)] if scope == "corpus" else [slice(*edges) for edges in pairwise(offsets)]
    for group in groups:
        response = ~np.isnan(score[group])
        assert np.array_equal(labels[group][response] == 1, by_sorting(score[group][response], "0.4"))
        assert (labels[group][~response] == 0).all()


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


def test_the_oracle_refuses_data_with_more_rows_than_the_losses_at_the_end_of_a_group(tmp_path: Path) -> None:
    def write(name: str, column: str, kind: pa.DataType, value: float, rows: int) -> Path:
        lists = pa.array([[value]] * rows, pa.list_(kind))
        table = pa.table({"row": pa.array(range(rows), pa.int64()), column: lists})
        write_parquet(tmp_path / name / "part.parquet", [table], table.schema)
        return tmp_path / name

    base, reference = (write(name, "loss", pa.float32(), 1.0, ROWS_PER_GROUP) for name in ("base", "reference"))
    data = write("data", "noise", pa.int8(), 0, ROWS_PER_GROUP + 1)
    common = {"loss_base": base, "loss_reference": reference, "progress": Progress()}
    with pytest.raises(InputError, match="has other tokens than the losses"):
        partition(PartitionConfig(labelling="oracle_noise"), data=data, out=tmp_path / "out", **common)


def test_the_oracle_needs_data_that_say_what_is_noise(scored: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"oracle_noise needs data that say what is noise.*choose influence"):
        labels_of(scored, tmp_path, data="plain", labelling="oracle_noise")
