"""YAML as recipes are written in: plain data, each key once, and bounded, whatever is in the file.

PyYAML's safe loader runs no code, but it keeps the last of two equal keys in silence, recurses as deep as the text
nests, and lets a kilobyte of aliases stand for more values than there is memory.
"""

from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from forgetting_core.errors import InputError

MOST_BYTES = 1_000_000
"""Of a recipe's file."""
MOST_VALUES = 100_000
"""With aliases written out."""
DEEPEST = 64


def load_yaml(text: str, origin: str) -> Any:
    """The data in `text`. Raises `InputError` with `origin`, line and column for what is wrong or out of bounds."""
    try:
        return _Loader(text).get_single_data()
    except yaml.YAMLError as error:
        raise InputError(f"{origin}: not valid YAML: {error}") from error


class _Loader(yaml.SafeLoader):
    """The safe loader within bounds."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """A value and all below it."""
        if self._depth == DEEPEST:
            problem = f"nested more than {DEEPEST} deep; expected a recipe's few levels"
            raise ComposerError(None, None, problem, self.peek_event().start_mark)
        self._depth += 1
        node: Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> Node | None:
        """The document, before anything is made of it."""
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
            shown = node.value[:40] if isinstance(node, ScalarNode) else node.id
            raise ConstructorError(None, None, f"{shown!r} has no value: {error}", node.start_mark) from error


def _values(node: Node, known: dict[Node, int | None]) -> int:
    """How many values `node` holds with every alias written out. Raises for a key that is there twice."""
    if node in known:
        count = known[node]
        if count is None:
            raise ComposerError(None, None, "an alias stands for what it is itself a part of", node.start_mark)
        return count
    known[node] = None
    below: list[Node] = []
    if isinstance(node, SequenceNode):
        below = node.value
    elif isinstance(node, MappingNode):
        _refuse_twice(node)
        below = [part for pair in node.value for part in pair]
    known[node] = count = 1 + sum(_values(item, known) for item in below)
    return count


def _refuse_twice(node: MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if isinstance(key, ScalarNode):
            if (key.tag, key.value) in seen:
                raise ComposerError(None, None, f"the key `{key.value}` is there twice; keep one", key.start_mark)
            seen.add((key.tag, key.value))
