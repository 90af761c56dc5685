import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra.curve_spool import ABANDONED, Spool, SpoolError, Target
from infra.lineage_writer import Point

TARGET = Target("tiny", "forget", "ff", "run", "pipeline", "")


def point(step):
    return Point(step, {"train/loss": 0.1 * step}, step)


def spool_of(folder, count):
    spool = Spool.create(folder, TARGET)
    for step in range(count):
        spool.append(point(step))
    return spool


def test_points_come_back_in_batches_with_the_end_in_the_last(tmp_path):
    spool = spool_of(tmp_path, 3)
    first = spool.unsent(2)
    assert (first.points, first.status) == ([point(0), point(1)], None)
    spool.sent.offset = first.end
    assert spool.unsent(2).points == [point(2)]
    spool.sent.offset = spool.unsent(2).end
    assert spool.unsent(2) is None
    spool.end("FAILED")
    last = spool.unsent(2)
    assert (last.points, last.status) == ([], "FAILED")


def test_spool_is_taken_over_only_when_its_run_let_go_and_from_where_it_was_sent(tmp_path):
    spool = spool_of(tmp_path, 3)
    assert Spool.take(spool.path) is None
    spool.sent.offset, spool.sent.skipped = spool.unsent(2).end, 4
    spool.remember()
    spool.release()
    taken = Spool.take(spool.path)
    assert taken.target == TARGET
    assert taken.sent.skipped == 4
    rest = taken.unsent(10)
    assert (rest.points, rest.status) == ([point(2)], ABANDONED)
    taken.remove()
    assert list(tmp_path.iterdir()) == []
    assert Spool.take(spool.path) is None


def test_line_that_a_kill_cut_short_is_left_out(tmp_path):
    spool = spool_of(tmp_path, 2)
    spool.release()
    with spool.path.open("ab") as file:
        file.write(b'{"step": 2, "met')
    batch = Spool.take(spool.path).unsent(10)
    assert (batch.points, batch.status) == ([point(0), point(1)], ABANDONED)


def test_points_of_a_killed_process_are_all_there_and_free(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from tests.unit.infra.test_curve_spool import spool_of;"
        "spool = spool_of(Path(sys.argv[1]), 100); print(spool.path, flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True)
    path = Path(process.stdout.readline().strip())
    assert Spool.take(path) is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert Spool.take(path).unsent(1000).points == [point(step) for step in range(100)]


def test_damage_is_named_after_what_comes_before_it(tmp_path):
    spool = spool_of(tmp_path, 2)
    with spool.path.open("ab") as file:
        file.write(b'{"step": 2}\n')
    batch = spool.unsent(10)
    assert batch.points == [point(0), point(1)]
    spool.sent.offset = batch.end
    with pytest.raises(SpoolError, match=f"damaged at byte {batch.end}"):
        spool.unsent(10)
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    with pytest.raises(SpoolError, match=r"empty\.jsonl"):
        Spool.take(empty)


def test_spool_of_a_run_that_is_over_takes_no_point(tmp_path):
    spool = spool_of(tmp_path, 1)
    spool.release()
    with pytest.raises(OSError, match="the run is over"):
        spool.append(point(1))
