"""What a case is, and the good experiment that each of them spoils in one place."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.tiny import save_model

Make = Callable[[Path], None]
"""Writes `recipe.yaml`, and the files that it names, into an empty folder."""
RECIPE = "recipe.yaml"
ROWS = [{"prompt": f"What_is_{number}?", "completion": f"It_is_{number}."} for number in range(12)]
TRAINING = {"mode": "full", "rows_per_step": 8, "dtype": "float32"}
GOOD: Mapping[str, Any] = {
    "name": "good",
    "model": {"path": "model"},
    "data": {"train": ["data.jsonl"], "template": "plain", "max_length": 48},
    "split": {"reference_rows": 3},
    "reference": TRAINING,
    "score": {"dtype": "float32"},
    "forget": TRAINING,
    "evaluate": {"dtype": "float32"},
    "execution": {"device": "cpu"},
}
"""A recipe with nothing wrong; its addresses are relative to the folder it is in."""


@dataclass(frozen=True)
class Case:
    """One thing that is wrong."""

    name: str
    """What the user did, in a few words."""
    make: Make
    says: tuple[str, ...]
    """Parts of the message: what is wrong, where, what was expected, what to do."""
    slow: bool = False
    """Whether it takes seconds, for the sheer size of what is made."""

    def __str__(self) -> str:
        return self.name


def write_recipe(folder: Path, changes: Mapping[str, Any] | None = None, rows: Sequence[Any] | None = ROWS) -> None:
    """The good recipe with `changes` (`{"partition.rho": 2}`), and its data file unless `rows` is None.

    The model is made as well.
    """
    recipe: dict[str, Any] = {key: dict(value) if isinstance(value, dict) else value for key, value in GOOD.items()}
    for field, value in (changes or {}).items():
        *parents, last = field.split(".")
        section = recipe
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    (folder / RECIPE).write_text(yaml.safe_dump(recipe), encoding="utf-8")
    if rows is not None:
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "data.jsonl").write_text(lines, encoding="utf-8")
    save_model(folder / "model")


def changed(**changes: Any) -> Make:
    """The good experiment with other values in the recipe; a double underscore stands for a dot."""
    return lambda folder: write_recipe(
        folder, {field.replace("__", "."): value for field, value in changes.items()}
    )


def with_rows(*rows: Any, **changes: Any) -> Make:
    """The good experiment whose first rows are these; `changes` as in `changed`."""
    return lambda folder: write_recipe(
        folder, {field.replace("__", "."): value for field, value in changes.items()}, [*rows, *ROWS]
    )


def with_file(name: str, content: bytes | Callable[[], bytes]) -> Make:
    """The good experiment with this file as its data; what is large is made when it is needed."""

    def make(folder: Path) -> None:
        (folder / name).write_bytes(content() if callable(content) else content)
        write_recipe(folder, {"data.train": [name]}, rows=None)

    return make
