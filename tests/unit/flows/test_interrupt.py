"""Ctrl-C while the command is writing to the terminal."""

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[3]
WRITING = """
import signal, sys, threading
from flows.interrupt import Interrupt
from infra.launch import Launcher

def press_ctrl_c():  # on the thread that writes, as when there is no other
    sys.stdin.read(1)
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    print("pressed", flush=True)

launcher = Launcher(1, [])
Interrupt()._launched(launcher)
threading.Thread(target=press_ctrl_c).start()
sys.stderr.write("x" * 2**20)
print("stopping" if launcher.stopping.is_set() else "not heard")
"""


def test_ctrl_c_in_the_middle_of_a_line_stops_the_run_as_anywhere_else() -> None:
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        [sys.executable, "-c", WRITING],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=buffered | {"PYTHONPATH": str(PROJECT)},
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        os.read(process.stderr.fileno(), 1)  # it writes, and waits for the rest to be read
        process.stdin.write(b".")
        process.stdin.flush()
        pressed = process.stdout.readline()
        output, errors = process.communicate(timeout=60)
    assert (pressed, output) == (b"pressed\n", b"stopping\n"), errors[-2000:]
    assert b"press Ctrl-C again" in errors
