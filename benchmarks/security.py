"""`python -m benchmarks security`: every attack that the tests know, run again and counted by what it is after.

An attack is a test marked `security("what it is after")`; it survives when the test passes. So there is one list of
attacks, and `make test` runs it as well; `--quick` leaves out those that take minutes.
"""

from collections import Counter, defaultdict
from pathlib import Path

import pytest

from benchmarks.rows import Row

PROJECT = Path(__file__).resolve().parents[1]
SHOWN = 3


class _Counts:
    """Hears of every attack and how it ended."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Counter[str]] = defaultdict(Counter)
        self.lost: dict[str, list[str]] = defaultdict(list)
        self._aims: dict[str, str] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            marker = item.get_closest_marker("security")
            assert marker is not None  # they were selected by it
            self._aims[item.nodeid] = marker.args[0]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        aim = self._aims[report.nodeid]
        if report.failed:
            self.lost[aim].append(report.nodeid)
        elif report.skipped:
            self.outcomes[aim]["skipped"] += 1
        elif report.when == "call":
            self.outcomes[aim]["survived"] += 1


def measure(quick: bool) -> list[Row]:
    """A row for each thing that attacks are after. Raises `RuntimeError` when the tests cannot be collected."""
    counts = _Counts()
    chosen = "security and not slow" if quick else "security"
    options = ["-q", "-p", "no:xdist", "--rootdir", str(PROJECT), "-m", chosen, str(PROJECT / "tests")]
    status = pytest.main(options, plugins=[counts])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"pytest ended with {status!r}: the attacks could not be run")
    return [_row(aim, counts) for aim in sorted({*counts.outcomes, *counts.lost})]


def _row(aim: str, counts: _Counts) -> Row:
    lost = sorted(set(counts.lost[aim]))
    survived, skipped = counts.outcomes[aim]["survived"], counts.outcomes[aim]["skipped"]
    tried = survived + len(lost)
    note = f"tried {tried}, survived {survived}" + (f", not possible here {skipped}" if skipped else "")
    # what could not be tried has not been survived
    holds = not lost if tried else None
    return Row(aim, len(lost), "lost", "0", holds, "; ".join([note, *lost[:SHOWN]]))
