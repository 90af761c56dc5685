"""JSON files of artifacts: canonical, because their bytes can be part of an artifact's identity."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from forgetting_core.errors import InputError


def write_json(path: Path, value: Any) -> None:
    """Canonical JSON file: sorted keys, two spaces, newline at the end; NaN and infinity refused."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def write_json_lines(
    path: Path, records: Iterable[Mapping[str, Any]], default: Callable[[Any], Any] | None = None
) -> None:
    """Canonical JSON lines: sorted keys, a newline after each; `default` makes JSON of what is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as lines:
        for record in records:
            lines.write(json.dumps(record, ensure_ascii=False, sort_keys=True, default=default) + "\n")


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file. Raises `InputError` naming the line that is no JSON."""
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise InputError(f"{path}, line {number}: expected JSON: {error}") from error
