"""Charts in which models are compared: training curves, and metrics against ρ.

A model looks the same in all of them, and can be told by its dashes and markers alone.
"""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from forgetting_core.report.charts import INK, SERIES, Chart, chart
from forgetting_core.report.curves import CURVES, Curve, Thinned, thinned
from forgetting_core.report.sweep import Sweep
from forgetting_core.report.token_text import visible

LOOKS: dict[str, dict[str, Any]] = {
    "forget": {"color": SERIES[0], "linestyle": "-", "marker": "o"},
    "ignore": {"color": SERIES[1], "linestyle": "--", "marker": "s"},
    "npo": {"color": SERIES[4], "linestyle": (0, (5, 1)), "marker": "v"},
    "random": {"color": SERIES[5], "linestyle": (0, (3, 1, 1, 1, 1, 1)), "marker": "P"},
    "sft": {"color": SERIES[2], "linestyle": "-.", "marker": "^"},
    "reference": {"color": SERIES[3], "linestyle": ":", "marker": "D"},
    "base": {"color": INK, "linestyle": (0, (1, 3)), "marker": "x"},
}
WIDTH, HEIGHT = 4.6, 2.9
MARKERS = 8
"""Along a curve of any length."""


def curve_charts(curves: Mapping[str, Mapping[str, Curve]]) -> list[str]:
    """An SVG for each quantity that any model has, over optimizer steps."""
    return band_charts(
        {model: {name: thinned(curve) for name, curve in of.items()} for model, of in curves.items()}
    )


def band_charts(bands: Mapping[str, Mapping[str, Thinned]]) -> list[str]:
    """Likewise, of {model: {quantity: a curve and how far it reaches}}."""
    return [_band_chart(name, bands) for name in CURVES if any(name in of_model for of_model in bands.values())]


def _band_chart(name: str, bands: Mapping[str, Mapping[str, Thinned]]) -> str:
    with chart(f"curve-{name}", WIDTH, HEIGHT) as drawn:
        axes = drawn.axes
        for model, look in LOOKS.items():
            band = bands.get(model, {}).get(name)
            if band is not None:
                every = max(1, len(band.steps) // MARKERS)
                axes.fill_between(band.steps, band.low, band.high, color=look["color"], alpha=0.15, linewidth=0)
                axes.plot(
                    band.steps, band.values, label=model, **look, linewidth=1.6, markersize=4, markevery=every
                )
        axes.set_title(CURVES[name], loc="left", fontsize=10)
        axes.set_xlabel("optimizer step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
        _legend(drawn)
    return drawn.svg


def sweep_charts(sweep: Sweep) -> list[str]:
    """An SVG for each metric, against ρ; bars are one standard error."""
    return [_sweep_chart(column, sweep) for column in sweep.columns]


def _sweep_chart(column: tuple[str, str], sweep: Sweep) -> str:
    with chart(f"sweep-{'-'.join(column)}", WIDTH, HEIGHT) as drawn:
        axes: Axes = drawn.axes
        for model, lines in sweep.swept.items():
            points = sorted((float(rho), cells[column]) for rho, cells in lines.items() if column in cells)
            if points:
                axes.errorbar(
                    [rho for rho, _ in points],
                    [cell["value"] for _, cell in points],
                    [cell["stderr"] or 0.0 for _, cell in points],
                    label=model,
                    **LOOKS[model],
                    linewidth=1.6,
                    markersize=4.5,
                    elinewidth=1,
                    capsize=3,
                )
        for model, cells in sweep.fixed.items():
            if column in cells:
                look = LOOKS[model] | {"marker": None}
                axes.axhline(cells[column]["value"], label=model, **look, linewidth=1.2)
        axes.set_title(visible(" ".join(column)), loc="left", fontsize=10)
        rhos = sorted({rho for lines in sweep.swept.values() for rho in lines}, key=float)
        axes.set_xticks([float(rho) for rho in rhos], rhos)
        axes.set_xlabel("ρ, share of tokens called positive")
        _legend(drawn)
    return drawn.svg


def _legend(drawn: Chart) -> None:
    handles, names = drawn.axes.get_legend_handles_labels()
    drawn.figure.legend(handles, names, loc="outside upper left", ncols=5, handlelength=3, columnspacing=1.2)
