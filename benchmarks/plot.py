"""The plot of a growth: time per token against tokens, a line for each row that has a curve."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.rows import Row

SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "growth",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def plot_growth(rows: Sequence[Row], path: Path) -> None:
    """Draw the curves of `rows` to the SVG `path`, a panel each; a linear time ends in a flat line."""
    curves = [row for row in rows if row.curve]
    with rc_context(SETTINGS):
        figure = Figure(figsize=(4 * len(curves), 3), layout="constrained")
        for place, row in enumerate(curves, 1):
            axes = figure.add_subplot(1, len(curves), place)
            tokens, nanoseconds = zip(*row.curve, strict=True)
            axes.plot(tokens, nanoseconds, color="#1f5fa8", marker="o", markersize=4)
            axes.loglog()
            axes.set_title(row.what, fontsize=9)
            axes.set_xlabel("tokens")
            axes.set_ylabel("ns per token")
        figure.savefig(path, metadata={"Date": None})
