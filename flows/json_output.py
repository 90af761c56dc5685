"""`--json`: one document on standard output, nothing else."""

import json
import sys
from typing import Any


def print_json(document: dict[str, Any]) -> None:
    """Write `document`; NaN and infinity, which JSON has not, are refused."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
