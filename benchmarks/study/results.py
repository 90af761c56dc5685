"""The files of the study: the document with all numbers, the table and the plot."""

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.study.grid import Run
from benchmarks.study.made import made_of
from benchmarks.study.markdown import markdown
from benchmarks.study.plot import plot
from benchmarks.study.records import is_current, read_record
from benchmarks.study.table import tabulate
from benchmarks.study.verdict import judge

PLOT = "study.svg"


def write_results(runs: Sequence[Run], state: Path, out: Path, command: str) -> Path | None:
    """Write `study.md`, `study.json` and `study.svg` of the runs that are recorded; the table's path.

    None when none is. The same records give the same files, wherever and whenever they are written.
    """
    found = [(run, record) for run in runs if (record := read_record(run, state)) is not None]
    if not found:
        return None
    records = [record for _, record in found]
    conditions = tabulate(records)
    study = {
        "command": command,
        "made": made_of(records),
        "tiny": any(run.tiny for run in runs),
        "runs": len(records),
        "runs_in_all": len(runs),
        "outdated": sum(not is_current(record, run) for run, record in found),
        "seeds": sorted({record["seed"] for record in records}),
        "verdict": judge(conditions, runs),
        "conditions": conditions,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "study.json").write_text(json.dumps(study, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    plot(conditions, out / PLOT)
    table = out / "study.md"
    table.write_text(markdown(study, PLOT), encoding="utf-8")
    return table
