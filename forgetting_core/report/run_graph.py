"""The DAG of a run as a drawing: layers from top to bottom, in which every arrow points down.

The usual way of layered graphs (Sugiyama): an arrow that another way implies is left out, a step's layer is its
longest way from the top, long arrows get a place in each layer that they pass, and the places of a layer are
ordered by those of their neighbours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from forgetting_core.run_facts import StepFacts

WIDTH, HEIGHT = 158, 44
"""Of a step's box, in pixels."""
PASSING_WIDTH = 18
"""Of the place that an arrow takes in a layer."""
GAP, LAYER_GAP = 14, 30
SWEEPS = 8
Place = tuple[str, str]
"""(step, step) where both are the same, or (from, to) of an arrow that passes."""


@dataclass(frozen=True)
class Box:
    """A step and the left upper corner of its box."""

    step: StepFacts
    x: float
    y: float


@dataclass(frozen=True)
class Drawing:
    """What to draw, in pixels."""

    width: float
    height: float
    boxes: list[Box]
    arrows: list[str]
    """SVG path data, from the box above to the one below."""
    box_width: float = WIDTH
    box_height: float = HEIGHT


def draw_graph(steps: Sequence[StepFacts]) -> Drawing:
    """Lay the steps out; they come in an order in which inputs come first."""
    parents = _direct_parents(steps)
    layer_of: dict[str, int] = {}
    for step in steps:
        layer_of[step.label] = 1 + max((layer_of[parent] for parent in parents[step.label]), default=-1)
    ways = {
        (parent, step.label): [
            (parent, parent),
            *[(parent, step.label)] * (layer_of[step.label] - layer_of[parent] - 1),
            (step.label, step.label),
        ]
        for step in steps
        for parent in parents[step.label]
    }
    layers: list[list[Place]] = [[] for _ in range(1 + max(layer_of.values(), default=-1))]
    for step in steps:
        layers[layer_of[step.label]].append((step.label, step.label))
    for (parent, child), way in ways.items():
        for depth in range(layer_of[parent] + 1, layer_of[parent] + len(way) - 1):
            layers[depth].append((parent, child))
    centres = _centres(_ordered(layers, ways, layer_of))
    width = max((x + _width(place) / 2 for centre in centres for place, x in centre.items()), default=0)
    boxes = [
        Box(step, centres[layer_of[step.label]][step.label, step.label] - WIDTH / 2, _top(layer_of[step.label]))
        for step in steps
    ]
    arrows = [_path(way, layer_of[parent], centres) for (parent, _), way in ways.items()]
    return Drawing(width, _top(len(layers)) - LAYER_GAP, boxes, arrows)


def _direct_parents(steps: Sequence[StepFacts]) -> dict[str, list[str]]:
    """What each step reads, without what one of its other inputs is made from."""
    known = {step.label for step in steps}
    ancestors: dict[str, set[str]] = {}
    direct = {}
    for step in steps:
        reads = [label for label in dict.fromkeys(step.reads) if label in known]
        implied = {old for label in reads for old in ancestors[label]}
        ancestors[step.label] = implied.union(reads)
        direct[step.label] = [label for label in reads if label not in implied]
    return direct


def _ordered(
    layers: list[list[Place]], ways: Mapping[tuple[str, str], list[Place]], layer_of: Mapping[str, int]
) -> list[list[Place]]:
    """The layers with every place near its neighbours above and below: sorted by their mean, down and up again."""
    above: dict[tuple[int, Place], list[Place]] = {}
    below: dict[tuple[int, Place], list[Place]] = {}
    for (parent, _), way in ways.items():
        for depth, (upper, lower) in enumerate(pairwise(way), start=layer_of[parent]):
            above.setdefault((depth + 1, lower), []).append(upper)
            below.setdefault((depth, upper), []).append(lower)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        depths = range(1, len(layers)) if down else range(len(layers) - 2, -1, -1)
        for depth in depths:
            centre = _centres(layers)
            neighbours, other = (above, centre[depth - 1]) if down else (below, centre[depth + 1])
            mean = {
                place: sum(other[near] for near in nearby) / len(nearby)
                if (nearby := neighbours.get((depth, place)))
                else centre[depth][place]
                for place in layers[depth]
            }
            layers[depth] = sorted(layers[depth], key=mean.__getitem__)
    return layers


def _centres(layers: list[list[Place]]) -> list[dict[Place, float]]:
    """The x of the middle of every place; the layers are centred on each other."""
    widths = [sum(map(_width, layer)) + GAP * (len(layer) - 1) for layer in layers]
    centres = []
    for layer, width in zip(layers, widths, strict=True):
        x = (max(widths) - width) / 2
        centre = {}
        for place in layer:
            centre[place] = x + _width(place) / 2
            x += _width(place) + GAP
        centres.append(centre)
    return centres


def _width(place: Place) -> float:
    return WIDTH if place[0] == place[1] else PASSING_WIDTH


def _top(depth: int) -> float:
    return depth * (HEIGHT + LAYER_GAP)


def _path(way: list[Place], depth: int, centres: list[dict[Place, float]]) -> str:
    """From the lower edge of the first box, straight through the layers between, to the upper edge of the last."""
    x = centres[depth][way[0]]
    path = f"M{x:.1f} {_top(depth) + HEIGHT:.1f}"
    for below, place in enumerate(way[1:], start=depth + 1):
        y, bend = _top(below), LAYER_GAP / 2
        target = centres[below][place]
        path += f"C{x:.1f} {y - bend:.1f} {target:.1f} {y - bend:.1f} {target:.1f} {y:.1f}"
        x = target
        if below < depth + len(way) - 1:
            path += f"V{y + HEIGHT:.1f}"
    return path
