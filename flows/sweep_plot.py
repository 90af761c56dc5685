"""The plot of a sweep: a panel per metric, against ρ, with the models that do not depend on ρ as lines."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.display import headline_columns

Metrics = Mapping[str, Mapping[str, Mapping[str, float]]]
"""{model: {task: {metric: value}}}"""
SWEPT = {"forget": "#1f5fa8", "ignore": "#c77a1a", "npo": "#8a4fa3", "random": "#b23a48"}
"""Models that depend on ρ, and their colours."""
FIXED = {"sft": ("#444444", "--"), "base": ("#888888", ":"), "reference": ("#3a8a4d", "-.")}
PANELS_PER_ROW = 3


def plot_sweep(runs: Mapping[str, Metrics], title: str, path: Path) -> Path | None:
    """Draw `runs` (metrics by ρ) to `path` (SVG) and to a PNG beside it; None when there are no metrics."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    columns = headline_columns(tasks for metrics in runs.values() for tasks in metrics.values())
    if not columns:
        return None
    wide = min(len(columns), PANELS_PER_ROW)
    high = math.ceil(len(columns) / wide)
    with rc_context({"svg.fonttype": "none", "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(max(5, 4 * wide), 3.2 * high), layout="constrained")
        panels = [figure.add_subplot(high, wide, place + 1) for place in range(len(columns))]
        for axes, (task, metric) in zip(panels, columns, strict=True):
            _draw(axes, runs, task, metric)
        drawn = dict(zip(*reversed(panels[0].get_legend_handles_labels()), strict=True))
        names = [name for name in (*SWEPT, *FIXED) if name in drawn]
        figure.legend(
            [drawn[name] for name in names],
            names,
            title="bars and bands: one standard error",
            loc="outside lower center",
            ncols=len(names),
            frameon=False,
        )
        figure.suptitle(f"{title}: sweep over ρ")
        path.parent.mkdir(parents=True, exist_ok=True)
        for suffix in (".svg", ".png"):
            figure.savefig(path.with_suffix(suffix), dpi=150)
    return path


def _draw(axes: Any, runs: Mapping[str, Metrics], task: str, metric: str) -> None:
    """One panel; bars and bands are one standard error."""
    for model, colour in SWEPT.items():
        points = sorted((float(rho), *_value(metrics, model, task, metric)) for rho, metrics in runs.items())
        points = [point for point in points if not math.isnan(point[1])]
        if points:
            x, values, errors = zip(*points, strict=True)
            axes.errorbar(
                x, values, errors, color=colour, marker="o", markersize=4, capsize=3, linewidth=1.5, label=model
            )
    last = list(runs.values())[-1]
    for model, (colour, style) in FIXED.items():
        y, error = _value(last, model, task, metric)
        if not math.isnan(y):
            axes.axhline(y, color=colour, linestyle=style, linewidth=1.2, label=model)
            axes.axhspan(y - error, y + error, color=colour, alpha=0.08, linewidth=0)
    axes.set_xticks([float(rho) for rho in runs], list(runs))
    axes.set_xlabel("ρ, share of tokens called positive")
    axes.set_title(f"{task} {metric}", fontsize=10)


def _value(metrics: Metrics, model: str, task: str, metric: str) -> tuple[float, float]:
    """(value, standard error); NaN where the model lacks the metric, 0 where the harness has no error."""
    values = metrics.get(model, {}).get(task, {})
    return values.get(metric, math.nan), values.get(f"{metric}_stderr", 0.0)
