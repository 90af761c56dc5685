"""Charts as inline SVG: drawn by matplotlib, coloured by the page.

The bytes depend on the numbers alone (no date, fixed hash salts, matplotlib's own defaults), and the colours are
the page's CSS variables, so that a chart follows light and dark mode.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
INK, GRID, POSITIVE, NEGATIVE, NOISE = "#000001", "#000002", "#000003", "#000004", "#000005"
SERIES = ("#000006", "#000007", "#000008", "#000009", "#00000a", "#00000b")
CSS_COLOURS = {
    INK: "var(--ink)",
    GRID: "var(--line)",
    POSITIVE: "var(--positive)",
    NEGATIVE: "var(--negative)",
    NOISE: "var(--noise)",
    **{colour: f"var(--series-{i})" for i, colour in enumerate(SERIES, start=1)},
}
STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
}


class Chart:
    """One chart in the making; `svg` is the finished element."""

    def __init__(self, name: str, width: float, height: float) -> None:
        self.name = name
        self.figure = Figure(figsize=(width, height), layout="constrained")
        self.axes: Axes = self.figure.add_subplot()
        self.svg = ""

    def render(self) -> str:
        """The SVG element, without what differs between writers or would clash with another chart's."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        root = ElementTree.fromstring(buffer.getvalue())
        for parent in root.iter():
            for child in [c for c in parent if c.tag.endswith("}metadata")]:
                parent.remove(child)
            if parent.tag == f"{{{SVG}}}g":
                parent.attrib.pop("id", None)
        for size in ("width", "height"):
            root.attrib.pop(size, None)
        root.set("aria-hidden", "true")
        ElementTree.register_namespace("", SVG)
        ElementTree.register_namespace("xlink", XLINK)
        text = ElementTree.tostring(root, encoding="unicode")
        text = re.sub(r"<style.*?</style>|font: [^;\"]*;?", "", text, flags=re.DOTALL)
        for colour, variable in CSS_COLOURS.items():
            text = text.replace(colour, variable)
        return text


@contextmanager
def chart(name: str, width: float = 8, height: float = 3) -> Iterator[Chart]:
    """A chart drawn with the report's style, whatever the user's matplotlibrc says; sizes in inches."""
    with matplotlib.style.context([STYLE | {"svg.hashsalt": name}], after_reset=True):
        drawn = Chart(name, width, height)
        yield drawn
        drawn.svg = drawn.render()


def influence_histogram(histogram: dict[str, list[Any]], threshold: float | None) -> str:
    """SVG of counts per bin, positive on top of negative, planted noise as an outline, `threshold` in nats."""
    edges, negative = histogram["edges"], histogram["negative"]
    total = [p + n for p, n in zip(histogram["positive"], negative, strict=True)]
    with chart("influence") as drawn:
        axes = drawn.axes
        axes.stairs(total, edges, baseline=negative, fill=True, color=POSITIVE, label="positive")
        axes.stairs(negative, edges, fill=True, color=NEGATIVE, label="negative")
        if "noise" in histogram:
            axes.stairs(histogram["noise"], edges, color=NOISE, linewidth=1.5, label="planted noise")
        if threshold is not None:
            axes.axvline(
                threshold,
                color=INK,
                linewidth=1.2,
                linestyle="--",
                label=f"threshold {threshold:.3f}".replace("-", "−"),
            )
        axes.set_xlabel("influence = base loss − reference loss (nats)")
        axes.set_ylabel("response tokens")
        axes.set_xlim(edges[0], edges[-1])
        axes.legend()
    return drawn.svg


def position_bars(by_position: list[dict[str, Any]], overall: float) -> str:
    """SVG of the negative share in each tenth of the responses; `overall` share as a line."""
    shares = [part["negative_share"] or 0.0 for part in by_position]
    names = [f"{10 * i}–{10 * (i + 1)} %" for i in range(len(shares))]
    with chart("position", height=2.6) as drawn:
        axes = drawn.axes
        axes.bar(names, shares, color=NEGATIVE, width=0.8)
        axes.axhline(overall, color=INK, linewidth=1.2, linestyle="--")
        for place, share in enumerate(shares):
            axes.text(place, 1.03, f"{share:.0%}", ha="center", transform=axes.get_xaxis_transform())
        axes.set_xlabel("place in the response")
        axes.set_ylabel("called negative")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.margins(x=0.01)
    return drawn.svg
