"""The benchmark `fuzz`: libFuzzer on every target, ten minutes each; a row is how many inputs it tried.

It holds when none was found that breaks the target. One that was found is kept beside the results of the search,
below `.forgetting/fuzz`, where the corpus also grows from run to run.
"""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from benchmarks.fuzz.targets import TARGETS
from benchmarks.rows import Row

SECONDS, QUICK_SECONDS = 600, 30
SEED = 20261120
FOLDER = Path(".forgetting/fuzz")
LONGEST_INPUT = 4096
SLOWEST_SECONDS = 10
MOST_MEMORY_MB = 4096


def measure(quick: bool) -> list[Row]:
    """A row for each target. Ends the program when atheris is missing."""
    if find_spec("atheris") is None:
        sys.exit("fuzzing needs atheris, which is there for Linux and macOS: pip install 'forgetting[fuzz]'")
    return [_fuzz(name, QUICK_SECONDS if quick else SECONDS) for name in TARGETS]


def _fuzz(name: str, seconds: int) -> Row:
    folder = FOLDER / name
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    options = {
        "seed": SEED,
        "max_total_time": seconds,
        "max_len": LONGEST_INPUT,
        "timeout": SLOWEST_SECONDS,
        "rss_limit_mb": MOST_MEMORY_MB,
        "print_final_stats": 1,
        "artifact_prefix": f"{folder}/",
    }
    command = [sys.executable, "-m", "benchmarks.fuzz.child", name, str(corpus)]
    command += [f"-{option}={value}" for option, value in options.items()]
    with (folder / "log").open("wb") as log:
        status = subprocess.run(command, stdout=log, stderr=log, env=_own_path(), check=False).returncode
    said = (folder / "log").read_text(errors="replace")
    tried = int(_last(r"number_of_executed_units: +(\d+)", said))
    features = int(_last(r"cov: (\d+)", said))
    note = f"{seconds} s, seed {SEED}, {features} edges, {len(list(corpus.iterdir()))} inputs in the corpus"
    if status:
        note += f"; broken by an input, see {folder}/log"
    return Row(
        f"{name}: inputs tried, none of which breaks it", tried, "inputs", "none breaks it", not status, note
    )


def _last(pattern: str, said: str) -> str:
    found = re.findall(pattern, said)
    return found[-1] if found else "0"


def _own_path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
