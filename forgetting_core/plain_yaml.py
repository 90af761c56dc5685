"""YAML of people we do not know: plain data of bounded size, each key once, whatever its text says.

PyYAML's safe loader runs no code, but it keeps the last of two equal keys in silence, recurses as deep as the text
nests, and shares what anchors name while it reads: a few lines can stand for a thousand million values, which every
copy and every merge unfolds. So all this is told from the parsed nodes, before anything is made of them.
"""

from typing import Any, TextIO

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

MOST_VALUES = 100_000
"""With aliases written out."""
DEEPEST = 60


def parse_yaml(text: str) -> Any:
    """The plain data in `text`. Raises `ValueError` with line and column for what `PlainLoader` refuses."""
    try:
        return PlainLoader(text).get_single_data()
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


class PlainLoader(yaml.SafeLoader):
    """The safe loader within bounds; raises `yaml.YAMLError` for what is no YAML or beyond them."""

    def __init__(self, text: str | TextIO) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """A value and all below it."""
        if self._depth == DEEPEST:
            raise ComposerError(None, None, f"nested deeper than {DEEPEST} levels", self.peek_event().start_mark)
        self._depth += 1
        node: Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> Node | None:
        """The document."""
        node: Node | None = super().get_single_node()
        if node is not None and _values(node, {}) > MOST_VALUES:
            problem = f"its aliases stand for more than {MOST_VALUES:,} values; write out what is meant"
            raise ComposerError(None, None, problem, node.start_mark)
        return node

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        """The value of a node."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError) as error:
            # of Python's own types: a date that there is not, a number that is none or has too many digits
            shown = node.value[:40] if isinstance(node, ScalarNode) else node.tag
            raise ConstructorError(None, None, f"{shown!r} has no value: {error}", node.start_mark) from error


def _values(node: Node, counted: dict[Node, int]) -> int:
    """How many values `node` holds with every alias written out; 0 stands for one that is being counted."""
    if node in counted:
        if not counted[node]:
            raise ComposerError(None, None, "an alias stands for what it is itself a part of", node.start_mark)
        return counted[node]
    counted[node] = 0
    below: list[Node] = []
    if isinstance(node, SequenceNode):
        below = node.value
    elif isinstance(node, MappingNode):
        _refuse_twice(node)
        below = [part for pair in node.value for part in pair]
    counted[node] = 1 + sum(_values(item, counted) for item in below)
    return counted[node]


def _refuse_twice(node: MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if isinstance(key, ScalarNode):
            if (key.tag, key.value) in seen:
                raise ComposerError(None, None, f"the key `{key.value}` is there twice; keep one", key.start_mark)
            seen.add((key.tag, key.value))
