"""Ctrl-C on the command line: the first one lets the running step save and end, a second one gives that up."""

import os
import signal
import sys
import threading

from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import get_current_settings

from infra.launch import Launcher, beyond
from infra.lineage_connection import import_ahead
from tasks.context import LAUNCHED


class Interrupt:
    """Listens for Ctrl-C from the moment the first flow of this process launches steps.

    A flow that launches after Ctrl-C is stopped at once, so a sweep ends as a whole. Before there is anything to
    save, Ctrl-C ends the process as usual.
    """

    def __init__(self) -> None:
        self._requested = False
        self._launcher: Launcher | None = None

    def listen(self) -> None:
        """Hear of every launcher of this context. For the main thread."""
        if get_current_settings().api.url is None:
            _start_prefect_server()
        LAUNCHED.set(self._launched)

    def _launched(self, launcher: Launcher) -> None:
        self._launcher = launcher
        if self._requested:
            launcher.stop()
        else:
            signal.signal(signal.SIGINT, self._stop)

    def _stop(self, *_: object) -> None:
        # not print: the signal may have come in the middle of one
        os.write(sys.stderr.fileno(), b"\ninterrupted: saving what is done; press Ctrl-C again to give that up\n")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._requested = True
        assert self._launcher is not None  # listens only from then on
        self._launcher.stop()


def _start_prefect_server() -> None:
    """Start Prefect's embedded server as Prefect would, but so that Ctrl-C leaves it up to record the end."""

    def start() -> None:
        with beyond(signal.SIGINT):
            SubprocessASGIServer().start()

    # a thread of its own, so that Ctrl-C works here meanwhile
    thread = threading.Thread(target=start, daemon=True)
    thread.start()
    import_ahead()  # the server takes seconds
    thread.join()
