"""The files of a benchmark: the document with everything, the table for people, a plot where growth is asked."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import machine, software
from benchmarks.plot import plot_growth
from benchmarks.rows import Row, markdown_table


def write_results(name: str, rows: Sequence[Row], out: Path, command: str, seconds: float) -> None:
    """Write `NAME.json`, `NAME.md` and, where rows have a curve, `NAME.svg`; `seconds` is what measuring took."""
    out.mkdir(parents=True, exist_ok=True)
    document = {
        "benchmark": name,
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(seconds, 1),
        "machine": machine(),
        "software": software(),
        "rows": [asdict(row) for row in rows],
    }
    (out / f"{name}.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    picture = f"{name}.svg" if any(row.curve for row in rows) else None
    if picture:
        plot_growth(rows, out / picture)
    (out / f"{name}.md").write_text(_markdown(document, rows, picture), encoding="utf-8")


def read_rows(path: Path) -> list[Row]:
    """The rows of a document."""
    found = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return [Row(**{**row, "curve": tuple(map(tuple, row["curve"]))}) for row in found]


def _markdown(document: Mapping[str, Any], rows: Sequence[Row], picture: str | None) -> str:
    on, by = document["machine"], document["software"]
    gpu = f", {on['gpu']}" if on["gpu"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in by["libraries"].items())
    changes = " with changes" if by["git_dirty"] else ""
    lines = [
        f"# {document['benchmark']}",
        "",
        markdown_table(rows),
        *([f"![Growth]({picture})", ""] if picture else []),
        f"- Command: `{document['command']}`, {document['seconds']:.0f} s on {document['date']}",
        f"- Machine: {on['cpu']} ({on['instructions']}), {on['cores']} cores, {on['memory_gib']} GiB{gpu}, "
        f"{on['system']}",
        f"- Code: {by['git_commit'] or 'unknown commit'}{changes}; Python {by['python']}, {versions}",
    ]
    return "\n".join(lines) + "\n"
