"""Charts of a comparison: differences with their intervals and seeds, and training curves over the seeds."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from forgetting_core.report.charts import INK, chart
from forgetting_core.report.curves import Curve, Thinned, thinned
from forgetting_core.report.model_charts import LOOKS, WIDTH, band_charts
from forgetting_core.report.token_text import visible

UNKNOWN_LOOK = {"color": INK, "linestyle": "-", "marker": "o"}


def difference_chart(line: Mapping[str, Any], against: str) -> str:
    """SVG of one metric: for each model its difference to `against`, the interval, and a faint dot per seed."""
    differences = line["differences"]
    name = f"difference-{line['task']}-{line['metric']}"
    with chart(name, WIDTH, 0.9 + 0.34 * len(differences)) as drawn:
        axes = drawn.axes
        for place, (model, found) in enumerate(differences.items()):
            look = LOOKS.get(model, UNKNOWN_LOOK)
            seeds = list(found["per_seed"].values())
            axes.plot(seeds, [place] * len(seeds), "o", color=look["color"], alpha=0.35, markersize=4)
            if found["low"] is not None:
                axes.plot([found["low"], found["high"]], [place, place], color=look["color"], linewidth=1.6)
            axes.plot(found["mean"], place, color=look["color"], marker=look["marker"], markersize=6)
        axes.axvline(0, color=INK, linewidth=1, linestyle="--")
        axes.set_yticks(range(len(differences)), list(differences))
        axes.set_ylim(len(differences) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:+g}".replace("-", "−"))
        axes.set_title(visible(f"{line['task']} {line['metric']}, minus {against}"), loc="left", fontsize=10)
    return drawn.svg


Curves = Mapping[str, Mapping[str, list[Curve]]]
"""{model: {quantity: a curve per seed}}"""


def curve_charts(curves: Curves) -> list[str]:
    """An SVG per quantity: means over the seeds, a band from the lowest seed to the highest."""
    return band_charts(
        {model: {name: _over_seeds(seeds) for name, seeds in of.items()} for model, of in curves.items()}
    )


def _over_seeds(seeds: list[Curve]) -> Thinned:
    """Step by step: where a seed lacks a step (no negative token in it, say), the others' is left out too."""
    common = functools.reduce(np.intersect1d, [curve.steps for curve in seeds])
    few = [thinned(Curve(common, curve.values[np.isin(curve.steps, common)])) for curve in seeds]
    values = np.stack([curve.values for curve in few])
    return Thinned(few[0].steps, values.mean(axis=0), values.min(axis=0), values.max(axis=0))
