"""`python -m benchmarks load`: many runs at once, a store with many commits, and an MLflow with many runs."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.load.big_store import measure_big_store
from benchmarks.load.crowd import measure_crowd
from benchmarks.load.many_runs import measure_many_runs
from benchmarks.rows import Row

PARTS: tuple[Callable[[Path, bool], Iterator[Row]], ...] = (measure_crowd, measure_big_store, measure_many_runs)


def measure(quick: bool) -> list[Row]:
    """The rows of all parts."""
    rows: list[Row] = []
    for part in PARTS:
        with tempfile.TemporaryDirectory(prefix="load-") as folder:
            rows += part(Path(folder), quick)
    return rows
