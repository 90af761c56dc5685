"""The curves of one step on disk, before MLflow has them: a file of points, and how far it was sent.

`{key}.jsonl` holds the `Target`, then a line per point as it comes, then how the step ended. `{key}.sent` says up
to which byte MLflow has acknowledged, and is replaced after each batch. Whoever has the lock on the first writes
the second: the run that computes, and after it, if it could not send all, any later run.
"""

import fcntl
import json
import os
import threading
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from infra.lineage_writer import Point

ABANDONED = "KILLED"
"""How the step ended when its process could not say so."""
PIPELINE = "pipeline"
"""Instead of a step, in the target of the spool that only tells how a whole run ended."""


@dataclass(frozen=True)
class Target:
    """Where the points of a spool belong."""

    recipe: str
    step: str
    fingerprint: str
    run_id: str | None
    """The step's MLflow run; None when MLflow was down when the step began: then the sender opens one."""
    pipeline_run_id: str | None
    mirror: str
    """Put before the names of the curves on the pipeline run."""


@dataclass(frozen=True)
class Batch:
    """Complete lines that were not sent yet."""

    points: list[Point]
    end: int
    """The offset to remember once they are acknowledged."""
    status: str | None
    """How the step ended, when these are the last of its points."""


@dataclass
class Sent:
    """What is remembered of the sending."""

    offset: int = 0
    run_id: str | None = None
    """The run that the sender opened for a spool whose target has none."""
    skipped: int = 0
    """Values that no chart survives, so far."""


class SpoolError(ValueError):
    """A spool cannot be read; the message names the file."""


class Spool:
    """One spool, locked by this process until `release`. Made by `create` or `take`."""

    def __init__(self, path: Path, file: IO[bytes], target: Target, *, live: bool) -> None:
        self.path = path
        self.target = target
        self._file = file
        self._live = live
        self._append_lock = threading.Lock()
        self._sent_path = path.with_suffix(".sent")
        self.sent = self._remembered()

    @classmethod
    def create(cls, folder: Path, target: Target) -> "Spool":
        """A new spool in `folder`. Raises `OSError`."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:12]}.jsonl"  # sorted by age
        # its lock is taken before anybody sees it under its name
        unseen = path.with_suffix(".new")
        file = unseen.open("ab", buffering=0)
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(_line(asdict(target)))
        unseen.rename(path)
        return cls(path, file, target, live=True)

    @classmethod
    def take(cls, path: Path) -> "Spool | None":
        """A spool that an earlier run left; None when somebody has it. Raises `SpoolError`."""
        try:
            file = path.open("r+b")
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_ino != os.fstat(file.fileno()).st_ino:
                raise FileNotFoundError(path)
        except (BlockingIOError, FileNotFoundError):
            file.close()
            return None
        try:
            return cls(path, file, Target(**json.loads(file.readline())), live=False)
        except (ValueError, TypeError) as error:
            file.close()
            raise SpoolError(f"{path}: not a file of curves: {error}") from error

    @property
    def key(self) -> str:
        """Unlike that of any other spool."""
        return self.path.stem

    @property
    def written(self) -> int:
        """When it was last added to, in milliseconds since the epoch."""
        return int(self.path.stat().st_mtime * 1000)

    def append(self, point: Point) -> None:
        """Add a point, in the hands of the system when this returns. Raises `OSError`, such as for a full disk."""
        self._write(point._asdict())

    def end(self, status: str) -> None:
        """No further points: the step ended as `status`."""
        self._write({"status": status})
        self._live = False

    def unsent(self, max_points: int) -> Batch | None:
        """The next points to send; None while there are none. Raises `SpoolError` and `OSError`."""
        live = self._live  # before reading: what is written until then is read
        points: list[Point] = []
        with self.path.open("rb") as file:
            if not self.sent.offset:
                file.readline()  # the target
            else:
                file.seek(self.sent.offset)
            end = file.tell()
            while len(points) < max_points:
                line = file.readline()
                if not line.endswith(b"\n"):  # nothing, or a line that is being written, or was when a kill came
                    status = None if live else ABANDONED
                    return Batch(points, end, status) if points or status else None
                try:
                    record = json.loads(line)
                    if record.keys() == {"status"}:
                        return Batch(points, file.tell(), str(record["status"]))
                    points.append(Point(**record))
                except (ValueError, TypeError, AttributeError) as error:
                    if points:
                        break  # those before it can be sent
                    raise SpoolError(f"{self.path}: damaged at byte {end}: {error}") from error
                end = file.tell()
        return Batch(points, end, None)

    def remember(self) -> None:
        """Make `sent` durable."""
        temporary = self._sent_path.with_suffix(".sent-new")
        with temporary.open("w") as file:
            json.dump(asdict(self.sent), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._sent_path)

    def remove(self) -> None:
        """All of it is in MLflow."""
        self.path.unlink(missing_ok=True)
        self._sent_path.unlink(missing_ok=True)
        self.release()

    def refuse(self) -> Path:
        """Set it aside, because MLflow will never take it; returns where."""
        aside = self.path.with_suffix(".refused")
        self.path.rename(aside)
        self.release()
        return aside

    def release(self) -> None:
        """Let others take it."""
        with self._append_lock:
            self._file.close()

    def _write(self, record: dict[str, Any]) -> None:
        with self._append_lock:
            if self._file.closed:
                raise OSError(f"{self.path} is written no more: the run is over")
            try:
                self._file.write(_line(record))
            except OSError:
                self._live = False  # what is half written is the end
                raise

    def _remembered(self) -> Sent:
        try:
            return Sent(**json.loads(self._sent_path.read_text()))
        except FileNotFoundError:
            return Sent()


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"
