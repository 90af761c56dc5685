"""The files of the study: the document with all numbers, the table and the plot."""

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.study.grid import Run
from benchmarks.study.markdown import markdown
from benchmarks.study.plot import plot
from benchmarks.study.records import read_record
from benchmarks.study.table import tabulate
from benchmarks.study.verdict import judge
from infra.provenance import provenance

LIBRARIES = ("torch", "transformers", "lm-eval", "numpy")
PLOT = "study.svg"


def write_results(runs: Sequence[Run], state: Path, out: Path, command: str) -> Path | None:
    """Write `study.md`, `study.json` and `study.svg` of the runs that are recorded; the table's path.

    None when none is. Nothing in the files tells of this machine but its kind.
    """
    records = [record for run in runs if (record := read_record(run, state)) is not None]
    if not records:
        return None
    conditions = tabulate(records)
    study = {
        "made": _made(command),
        "runs": len(records),
        "runs_in_all": len(runs),
        "seeds": sorted({record["seed"] for record in records}),
        "verdict": judge(conditions),
        "conditions": conditions,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "study.json").write_text(json.dumps(study, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    plot(conditions, out / PLOT)
    table = out / "study.md"
    table.write_text(markdown(study, PLOT), encoding="utf-8")
    return table


def _made(command: str) -> dict[str, Any]:
    by = provenance()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": command,
        "git_commit": by["git_commit"],
        "git_dirty": by["git_dirty"],
        "python": by["python"],
        "libraries": {name: by["libraries"][name] for name in LIBRARIES},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
    }
