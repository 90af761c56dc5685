"""Partitioning against Python tuples that are sorted, and against merely reading the losses and writing labels."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

from benchmarks.losses import grouped, make_losses, write_losses
from benchmarks.memory import MB, in_own_process
from benchmarks.rows import Row, at_least, at_most, millions, no_growth, reported
from benchmarks.timing import take_turns
from forgetting_core.config import PartitionConfig
from forgetting_core.labelling import label_by_rank, positive_count
from forgetting_core.partition import partition
from forgetting_core.progress import Progress
from forgetting_core.tables import LABEL_SCHEMA, list_array, read_groups, write_parquet

RHO = "0.7"
IN_MEMORY = 5_000_000
FROM_FILES = {True: 25_000_000, False: 100_000_000}
EXTRAPOLATED = 1_000_000_000


def measure(quick: bool) -> list[Row]:
    """The rows of partitioning."""
    return [*_in_memory(), *_from_files(FROM_FILES[quick])]


def plain_labels(base: np.ndarray, reference: np.ndarray, offsets: np.ndarray, rho: str) -> list[list[int]]:
    """Labels of each row by the plain way: a tuple for every token, sorted, and labels set one by one."""
    rows = list(pairwise(offsets))
    tokens = []
    for row, (start, end) in enumerate(rows):
        for position, score in enumerate((base[start:end] - reference[start:end]).tolist()):
            if score == score:
                tokens.append((score, row, position))
    tokens.sort(key=lambda token: (-token[0], token[1], token[2]))
    labels = [[0] * int(end - start) for start, end in rows]
    count = positive_count(rho, len(tokens))
    for place, (_, row, position) in enumerate(tokens):
        labels[row][position] = 1 if place < count else -1
    return labels


def our_labels(base: np.ndarray, reference: np.ndarray, offsets: np.ndarray, rho: str) -> np.ndarray:
    """int8 (T,): the labels by what the step does between reading and writing."""
    groups = grouped(base, reference, offsets)
    return np.concatenate([label for _, label in label_by_rank(lambda: iter(groups), PartitionConfig(rho=rho))])


def _in_memory() -> Iterator[Row]:
    losses = make_losses(IN_MEMORY, seed=0, ties=True)
    ours = take_turns({"ours": lambda: our_labels(*losses, RHO)}, rounds=5)
    yield at_most(f"labels of {millions(IN_MEMORY)} tokens in memory", ours.median("ours"), "s", 0.15)
    plain: list[list[list[int]]] = []
    times = take_turns({"plain": lambda: plain.append(plain_labels(*losses, RHO))}, rounds=1, warm_up=0)
    note = f"{ours.median('ours'):.3f} s to {times.median('plain'):.1f} s of sorted tuples"
    yield at_least(
        "the same, times as fast", times.median("plain") / ours.median("ours"), "× the plain way", 100, note
    )
    different = int((np.concatenate(plain[0]) != our_labels(*losses, RHO)).sum())
    yield at_most("labels that differ from the plain way's, many ties", different, "", 0)


def _from_files(tokens: int) -> Iterator[Row]:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        parts = write_losses(root / "losses", tokens)
        half = sum(_link(root / "losses", root / "half", parts[: len(parts) // 2]))
        times = take_turns(
            {
                "ours": lambda: step(root / "losses", root / "labels"),
                "bare": lambda: bare_pass(root / "losses", root / "column"),
                "half": lambda: step(root / "half", root / "labels"),
            },
            rounds=5,
        )
        seconds, bare = times.median("ours"), times.median("bare")
        what = f"{millions(tokens)} tokens from Parquet to labels"
        ratio = times.ratio("ours", to="bare")
        yield at_most(what, ratio, "× a bare pass", 3, f"{seconds:.2f} s to {bare:.2f} s")
        per_token = {half: times.best("half") / half, tokens: times.best("ours") / tokens}
        note = ", ".join(f"{1e9 * each:.1f} ns at {millions(size)}" for size, each in per_token.items())
        what = f"time per token of {millions(tokens)} against {millions(half)}"
        yield no_growth(what, per_token[tokens] / per_token[half], note)
        what = f"{millions(EXTRAPOLATED)} tokens, extrapolated"
        yield reported(
            what, seconds * EXTRAPOLATED / tokens, "s", f"a bare pass {bare * EXTRAPOLATED / tokens:.0f} s"
        )
        peak = in_own_process(step, root / "losses", root / "labels").peak
        yield at_most(f"memory for {millions(tokens)} tokens, the whole process", peak / MB, "MB", 1500)


def step(losses: Path, out: Path) -> None:
    """The step itself."""
    folders = {f"loss_{model}": losses / model for model in ("base", "reference")}
    partition(PartitionConfig(rho=RHO), **folders, out=out, progress=Progress())


def bare_pass(losses: Path, out: Path) -> None:
    """The bytes that cannot be avoided: both losses are read, and a column of int8 is written."""

    def tables() -> Iterator[pa.Table]:
        pairs = zip(*(read_groups(losses / model, "loss") for model in ("base", "reference")), strict=True)
        for (base, offsets), (reference, _) in pairs:
            column = list_array((base > reference).view(np.int8), offsets, pa.int8())
            yield pa.Table.from_arrays([pa.array(np.arange(len(column))), column], schema=LABEL_SCHEMA)

    write_parquet(out / "column.parquet", tables(), LABEL_SCHEMA)


def _link(losses: Path, target: Path, parts: list[int]) -> list[int]:
    """The first `parts` of the losses in a folder of their own."""
    for model in ("base", "reference"):
        (target / model).mkdir(parents=True)
        for part in sorted((losses / model).iterdir())[: len(parts)]:
            (target / model / part.name).hardlink_to(part)
    return parts
