"""The ρ sweep: the metrics of the models that depend on ρ for each of its values, beside those that do not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forgetting_core.evaluation import is_headline
from forgetting_core.report.benchmarks import Metrics, benchmark_table
from forgetting_core.run_facts import SweepPoint

SWEPT = ("forget", "ignore", "npo", "random")
"""Models that depend on ρ."""
Cell = dict[str, Any]
"""`{"value", "stderr", "difference"}` of `benchmark_table`."""


@dataclass(frozen=True)
class Sweep:
    """Metrics as columns, and a line for each ρ and model."""

    columns: list[tuple[str, str]]
    """(task, metric); counts are left out, and what is no headline."""
    swept: dict[str, dict[str, dict[tuple[str, str], Cell]]]
    """{model: {ρ: {column: cell}}}"""
    fixed: dict[str, dict[tuple[str, str], Cell]]
    """{model: {column: cell}}"""


def read_sweep(points: Sequence[SweepPoint], own: Mapping[str, Metrics]) -> Sweep | None:
    """The sweep in `points`, or None when it has fewer than two; `own` metrics have what does not depend on ρ."""
    if len(points) < 2:
        return None
    tables = {
        point.rho: benchmark_table({m: _plain(metrics) for m, metrics in point.metrics.items()}) for point in points
    }
    ours = benchmark_table(own)
    columns = [
        (line["task"], line["metric"])
        for line in ours
        if not _is_count(line) and is_headline(line["task"], line["metric"])
    ]
    swept = {
        model: {rho: cells for rho, table in tables.items() if (cells := _cells(table, model, columns))}
        for model in SWEPT
    }
    fixed = {model: _cells(ours, model, columns) for model in own if model not in SWEPT}
    return Sweep(columns, {model: lines for model, lines in swept.items() if lines}, fixed)


def _plain(metrics: Mapping[str, Mapping[str, float]]) -> Metrics:
    return {task: dict(values) for task, values in metrics.items()}


def _is_count(line: dict[str, Any]) -> bool:
    return all(isinstance(cell["value"], int) for cell in line["models"].values())


def _cells(table: list[dict[str, Any]], model: str, columns: list[tuple[str, str]]) -> dict[tuple[str, str], Cell]:
    found = {(line["task"], line["metric"]): line["models"].get(model) for line in table}
    return {column: cell for column in columns if (cell := found.get(column)) is not None}
