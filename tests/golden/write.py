"""`python -m tests.golden.write`: the code of every step as it is now becomes the code that the tests expect."""

import json
from pathlib import Path
from typing import Any

from tasks.compare import COMPARE
from tasks.evaluate import EVALUATE
from tasks.forget import FORGET
from tasks.partition import PARTITION
from tasks.prepare import PREPARE
from tasks.reference import REFERENCE
from tasks.report import REPORT
from tasks.score import SCORE
from tasks.source import step_source
from tasks.split import SPLIT

SPECS = (PREPARE, SPLIT, REFERENCE, SCORE, PARTITION, FORGET, EVALUATE, REPORT, COMPARE)
SOURCES = Path(__file__).parent / "sources.json"
COMMAND = "python -m tests.golden.write"


def sources() -> dict[str, Any]:
    """{step: {version, source_digest, functions}} of today's code."""
    return {
        spec.name: {
            "version": spec.version,
            "source_digest": step_source(spec).digest,
            "functions": step_source(spec).functions,
        }
        for spec in SPECS
    }


if __name__ == "__main__":
    SOURCES.write_text(json.dumps(sources(), indent=1) + "\n", encoding="utf-8")
