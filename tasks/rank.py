"""One rank: `python -m tasks.rank JOB.json`, started by `accelerate launch`; see `tasks.ranks`."""

import json
import os
import signal
import sys
import traceback
from importlib import import_module
from pathlib import Path

from forgetting_core.errors import Interrupted
from infra.launch import die_with_parent
from tasks.child import ReportedProgress, compute
from tasks.ranks import LAUNCHER_FILE, Lines, decode


class RankProgress(ReportedProgress):
    """The first rank reports; all of them stop after the same optimizer step."""

    def __init__(self, lines: Lines) -> None:
        super().__init__(lines.write if _rank() == 0 else lambda message: None)
        self._asked = False
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def advance(self, done: float, total: float, unit: str) -> None:
        """See `Progress.advance`; all ranks call it equally often."""
        from forgetting_core.ranks import any_rank

        self.stop_requested = any_rank(self._asked)
        super().advance(done, total, unit)

    def _ask(self, *_: object) -> None:
        self._asked = True


def main() -> int:
    """Compute; exit status 1 makes the launcher end the other ranks."""
    path = Path(sys.argv[1])
    die_with_parent()  # before anything that takes time, such as importing torch
    if os.getppid() != int(path.with_name(LAUNCHER_FILE).read_text()):
        return 1
    # what a library prints must not end up among the lines
    back = os.dup(1)
    os.dup2(sys.stderr.fileno(), 1)
    import_module("forgetting_core.preload")
    lines = Lines(back, path)
    try:
        job = decode(json.loads(path.read_text()))
        summary = compute(job, RankProgress(lines))
        if _rank() == 0:
            lines.write({"result": summary})
    except Interrupted as error:
        lines.error(error, "")
    except BaseException as error:
        lines.error(error, "".join(traceback.format_exception(error)))
        return 1
    from forgetting_core.ranks import leave

    leave()
    return 0


def _rank() -> int:
    return int(os.environ["RANK"])


if __name__ == "__main__":
    sys.exit(main())
