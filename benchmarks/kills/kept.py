"""What became of trials, kept in a file from which a benchmark of hours goes on when it was ended."""

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.kills.attempt import Result
from benchmarks.kills.trial import draw


def keep(path: Path, results: Sequence[Result], strays: Sequence[str]) -> None:
    """Add settled results, and what was left that belongs to none of them, in one write: others add theirs."""
    found = [
        {
            "seed": item.trial.seed,
            "outcome": item.outcome,
            "said": item.said,
            "began": round(item.began, 1),
            "ended": round(item.ended, 1),
            "code": item.code,
        }
        for item in results
    ]
    records = [*found, *({"stray": stray} for stray in strays)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        file.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode())


def read(path: Path) -> tuple[list[Result], list[str]]:
    """The results by their seeds, and the strays; nothing where no file is."""
    results, strays = [], []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        record = json.loads(line)
        if "stray" in record:
            strays.append(record["stray"])
        else:
            results.append(Result(trial=draw(record.pop("seed")), **record))
    return sorted(results, key=lambda result: result.trial.seed), strays
