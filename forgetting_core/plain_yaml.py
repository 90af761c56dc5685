"""YAML of people we do not know: plain data of bounded size, whatever its text says.

A few lines can stand for a thousand million values: anchors that name anchors are shared while they are read, and
every copy and every merge unfolds them. So the size is told from the parsed nodes, before anything is made of them.
"""

from typing import Any

import yaml

MOST_VALUES = 100_000
DEEPEST = 60


def parse_yaml(text: str) -> Any:
    """The plain data in `text`. Raises `ValueError` for what is no YAML, or unfolds beyond the bounds."""
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        check_size(node)
        return None if node is None else loader.construct_document(node)
    except RecursionError:
        raise ValueError(f"nested deeper than {DEEPEST} levels") from None
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def check_size(node: yaml.Node | None) -> None:
    """Raises `ValueError` when a document unfolds to more than `MOST_VALUES` values or `DEEPEST` levels."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node, level: int) -> int:
        if level > DEEPEST:  # which an anchor that holds itself always reaches
            raise ValueError(f"nested deeper than {DEEPEST} levels, or an anchor that contains itself")
        if id(node) not in sizes:
            below: list[yaml.Node] = []
            if isinstance(node, yaml.SequenceNode):
                below = node.value
            elif isinstance(node, yaml.MappingNode):
                below = [item for pair in node.value for item in pair]
            sizes[id(node)] = 1 + sum(size(item, level + 1) for item in below)
            if sizes[id(node)] > MOST_VALUES:
                raise ValueError(f"anchors and aliases unfold to more than {MOST_VALUES} values")
        return sizes[id(node)]

    if node is not None:
        size(node, 0)
