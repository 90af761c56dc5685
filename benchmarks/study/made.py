"""By what the records were made: what each of them keeps of it, and what a table says of all its records.

Nothing here tells which machine it was, only of what kind.
"""

import os
import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from infra.provenance import provenance

LIBRARIES = ("torch", "transformers", "lm-eval", "numpy")
"""Those that numbers depend on."""
UNKNOWN = "unknown"
"""What a record says that was written before it kept this."""


def made_now() -> dict[str, Any]:
    """`date` (UTC), `git_commit`, `git_dirty`, `python`, `libraries` and `machine` (system, processor, cores)."""
    import torch

    by = provenance()
    instructions = torch.backends.cpu.get_cpu_capability()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "git_commit": by["git_commit"],
        "git_dirty": by["git_dirty"],
        "python": by["python"],
        "libraries": {name: by["libraries"][name] for name in LIBRARIES},
        "machine": f"{platform.system()} {platform.machine()} ({instructions}), {os.cpu_count()} CPU cores",
    }


def made_of(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """`dates`, the first and the last (None where no record has one), and how many records have which `commits`,
    `libraries` and `machines`: {text: number of records}, the most frequent first.
    """
    found = [record.get("made") for record in records]
    dates = sorted(made["date"] for made in found if made)
    return {
        "dates": [dates[0], dates[-1]] if dates else None,
        "commits": _counted(_commit(made) if made else UNKNOWN for made in found),
        "libraries": _counted(_libraries(made) if made else UNKNOWN for made in found),
        "machines": _counted(made["machine"] if made else UNKNOWN for made in found),
    }


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items(), key=lambda one: (-one[1], one[0])))


def _commit(made: Mapping[str, Any]) -> str:
    return (made["git_commit"] or UNKNOWN) + (" with changes" if made["git_dirty"] else "")


def _libraries(made: Mapping[str, Any]) -> str:
    versions = {"Python": made["python"], **made["libraries"]}
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
