"""JSON files of artifacts: canonical, because their bytes can be part of an artifact's identity."""

import json
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """Canonical JSON file: sorted keys, two spaces, newline at the end; NaN and infinity refused."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
