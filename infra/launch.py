"""Running a step's computation in a process of its own.

One process per step: a crash, an out-of-memory kill or a library's global state (random generators, default dtypes)
stays in it, its memory goes back to the system, and the command line itself never imports torch. The processes are
forked from a server that has imported the heavy libraries once.
"""

import contextlib
import ctypes
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from typing import Any

from infra.child_environment import restrict

Message = dict[str, Any]
Target = Callable[[Any, "Channel"], Any]

_EXIT_SECONDS = 5.0
_STOP_GRACE_SECONDS = 60.0
_PR_SET_PDEATHSIG = 1
logger = logging.getLogger(__name__)


class Channel:
    """The child's end: sends messages up, and knows when it was asked to stop."""

    def __init__(self, connection: Connection, slot: int) -> None:
        self._connection = connection
        self.slot = slot
        """From 0; no other child of the launcher has the same one at the same time."""
        self.stop_requested = False
        self.on_stop: Callable[[], None] = lambda: None
        """Called in a signal handler when the child is asked to stop."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    def send(self, message: Message) -> None:
        """Hand `message` (plain data) to the parent."""
        self._connection.send(("message", message))

    def _stop(self, *_: object) -> None:
        self.stop_requested = True
        self.on_stop()


class Launcher:
    """Starts children, at most `concurrent` at the same time, and stops them all on request."""

    def __init__(self, concurrent: int, preload: Sequence[str]) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["__main__", *preload])
        # now, because starting it lets both signals through again, in `beyond` too
        resource_tracker.ensure_running()
        self._slots: SimpleQueue[int] = SimpleQueue()
        for number in range(concurrent):
            self._slots.put(number)
        self._children: set[Any] = set()
        self._overdue: dict[Any, float] = {}
        """Children that were killed because they did not end in so many seconds"""
        self._starting = threading.Lock()
        """Held while a child starts, so that `stop` misses none"""
        self.stopping = threading.Event()

    def run(
        self,
        target: Target,
        job: Any,
        on_message: Callable[[Message], None],
        within: AbstractContextManager[None] | None = None,
    ) -> Any:
        """`target(job, channel)` in a child; its result, or its exception raised here.

        The first message, `{"kind": "start"}`, comes when a slot is free and `within`, which lasts as long as the
        child, is entered.

        `target` is a module-level function and `job` picklable. Raises `ChildDiedError` when the child ends without
        either, `StoppedError` when `stop` was called before it began, or it did not end in time then.
        """
        with self._slot() as slot, within or contextlib.nullcontext():
            on_message({"kind": "start"})
            receiver, sender = self._context.Pipe(duplex=False)
            child = self._context.Process(target=_main, args=(target, job, sender, slot))
            with self._starting:
                if self.stopping.is_set():
                    raise StoppedError("not started: the run was asked to stop")
                # Prefect sends SIGTERM to the whole group: the fork server would take the children with it
                with beyond(signal.SIGINT, signal.SIGTERM):
                    child.start()
                self._children.add(child)
            sender.close()
            try:
                return self._listen(child, receiver, on_message)
            finally:
                _end(child)
                self._children.discard(child)
                self._overdue.pop(child, None)
                receiver.close()

    @contextlib.contextmanager
    def _slot(self) -> Iterator[int]:
        number = self._slots.get()
        try:
            yield number
        finally:
            self._slots.put(number)

    def stop(self, within: float | None = None) -> None:
        """Ask every child to save what it has and end; no further one starts.

        One that has not ended `within` so many seconds is killed with its group; None: it has the time it needs.
        """
        self.stopping.set()
        # from a thread, since this may be called by a signal handler that interrupted the start of a child
        threading.Thread(target=self._terminate, args=(within,)).start()

    def _terminate(self, within: float | None) -> None:
        with self._starting:
            children = list(self._children)
        for child in children:
            child.terminate()
        if within is None:
            return
        deadline = time.monotonic() + within
        for child in children:
            # not `join`: the thread that listens to the child does that, and only one can
            if not wait([child.sentinel], max(0.0, deadline - time.monotonic())):
                logger.warning("a step's process did not end within %g s of being asked to: it is killed", within)
                self._overdue[child] = within
                _kill_group(child)

    def _listen(self, child: Any, receiver: Connection, on_message: Callable[[Message], None]) -> Any:
        while True:
            try:
                kind, value = receiver.recv()
            except EOFError:
                child.join()
                if child in self._overdue:
                    raise StoppedError(
                        f"killed: it did not end within {self._overdue[child]:g} s of being asked to;"
                        " its last checkpoint counts"
                    ) from None
                raise ChildDiedError(child.exitcode) from None
            if kind == "message":
                on_message(value)
            elif kind == "result":
                return value
            else:
                error, trace = value
                error.add_note(trace)
                raise error


@contextlib.contextmanager
def beyond(*signals: signal.Signals) -> Iterator[None]:
    """Processes that this thread starts meanwhile do not get these signals unless they ask, nor do their children.

    They are sent to every process of a group; who should stop, and when, is for this process to say.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class StoppedError(RuntimeError):
    """A computation did not start or did not finish, because the run was asked to stop."""


class ChildDiedError(RuntimeError):
    """The child ended without a word."""

    def __init__(self, exit_code: int) -> None:
        cause = f"signal {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exit status {exit_code}"
        hint = (
            "; the system may be out of memory: lower execution.micro_batch" if exit_code == -signal.SIGKILL else ""
        )
        super().__init__(f"the step's process died with {cause}{hint}")


def _end(child: Any) -> None:
    """Make sure that the child and all of its group are gone; one that still works is asked to save first."""
    child.join(_EXIT_SECONDS)
    if child.is_alive():
        child.terminate()
        child.join(_STOP_GRACE_SECONDS)
    if child.exitcode != 0:
        _kill_group(child)
        child.join()


def _kill_group(child: Any) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _main(target: Target, job: Any, connection: Connection, slot: int) -> None:
    die_with_parent()
    os.setpgid(0, 0)  # so that whatever the computation starts can be ended with it
    threading.Thread(target=_end_with_creator, daemon=True).start()
    restrict()
    # A library that prints must not end up in the JSON on the parent's standard output.
    os.dup2(sys.stderr.fileno(), 1)
    channel = Channel(connection, slot)
    try:
        connection.send(("result", target(job, channel)))
    except BaseException as error:
        connection.send(("error", (_portable(error), "".join(traceback.format_exception(error)))))
    connection.close()


def _portable(error: BaseException) -> BaseException:
    """`error` if it survives the way to the parent, else one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever a foreign exception's own pickling raises
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _end_with_creator() -> None:
    """End the group of this process when the process that asked for it has died, however that comes about.

    It is not the parent: that is the fork server, which waits for its children when nobody else is left.
    """
    creator = multiprocessing.parent_process()
    assert creator is not None
    creator.join()
    os.killpg(0, signal.SIGKILL)


def die_with_parent(by: signal.Signals = signal.SIGKILL) -> None:
    """Have the system send this process a signal when its parent has died, however that comes about."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, by)
