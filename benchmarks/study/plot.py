"""The study at a glance: accuracy against ρ, a panel for each noise and reference."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.study.grid import CLEAN, NOISY

COLOURS = {
    "ignore": "#c77a1a",
    "npo": "#8a4fa3",
    "forget, t_max 0.25": "#1f5fa8",
    "forget, t_max 0.03": "#5aa5d8",
    "ignore, labels by base loss": "#7a8b3a",
    "ignore, random labels": "#b23a48",
}
LEVELS = {
    "base": ("#888888", ":"),
    "reference": ("#3a8a4d", "-."),
    "sft": ("#444444", "--"),
    "ignore, true noise labels": ("#c77a1a", ":"),
}
"""What has no ρ, drawn as lines across."""
PANEL = (3.2, 2.7)


def plot(conditions: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw `conditions`, as `table.tabulate` makes them, to the SVG `path`: the same bytes for the same numbers."""
    noises = list(dict.fromkeys(condition["noise"] for condition in conditions))
    references = [name for name in (CLEAN, NOISY) if any(name == one["reference"] for one in conditions)]
    size = (max(6, PANEL[0] * len(noises)), PANEL[1] * len(references) + 1)
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": "study",
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with rc_context(settings):
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(references), len(noises), sharex=True, sharey=True, squeeze=False)
        shown: dict[str, Any] = {}
        for axes in panels.flat:
            axes.set_visible(False)
        for condition in conditions:
            axes = panels[references.index(condition["reference"]), noises.index(condition["noise"])]
            axes.set_visible(True)
            _draw(axes, condition)
            shown |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        names = [name for name in (*COLOURS, *LEVELS) if name in shown]
        figure.legend(
            [shown[name] for name in names],
            names,
            title="bars: one standard error over seeds",
            loc="outside lower center",
            ncols=4,
            frameon=False,
        )
        figure.savefig(path, metadata={"Date": None})


def _draw(axes: Axes, condition: Mapping[str, Any]) -> None:
    for arm, colour in COLOURS.items():
        points = [
            (float(line["rho"]), line["accuracy"]["mean"], line["accuracy"]["stderr"] or 0.0)
            for line in condition["lines"]
            if line["arm"] == arm
        ]
        if points:
            rho, mean, stderr = zip(*points, strict=True)
            axes.errorbar(rho, mean, stderr, color=colour, marker="o", markersize=4, capsize=2, label=arm)
    for arm, (colour, style) in LEVELS.items():
        for line in condition["lines"]:
            if line["arm"] == arm:
                axes.axhline(line["accuracy"]["mean"], color=colour, linestyle=style, linewidth=1.2, label=arm)
    detection = condition["detection"]
    found = f", AUC {detection['mean']:.2f}" if detection else ""
    axes.set_title(f"noise {condition['noise']}, {condition['reference']} reference{found}", fontsize=9)
    axes.set_xlabel("ρ")
    axes.set_ylabel("exact match")
    axes.set_xticks(sorted({float(line["rho"]) for line in condition["lines"] if line["rho"]}))
    axes.tick_params(labelbottom=True, labelleft=True)  # sharing would hide them, beside empty places too
