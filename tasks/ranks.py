"""A computation in several ranks: `accelerate launch` starts them, and what they say is passed on.

The job goes out as a JSON file; messages, errors and the result come back as JSON lines on the ranks' common
standard output, which ends when the last of them has ended, however that came about. Each process of the chain dies
with its parent.
"""

import contextlib
import fcntl
import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

from forgetting_core import config as configs
from forgetting_core.config import ExecutionConfig
from forgetting_core.errors import InputError, Interrupted, NumericalError, OutOfMemoryError
from infra.launch import Channel, die_with_parent
from infra.provenance import PROJECT
from tasks.child import Job, Summary

ERRORS = {kind.__name__: kind for kind in (InputError, Interrupted, NumericalError, OutOfMemoryError)}
"""Those that mean something to whoever waits for the step."""
_CONNECTION = re.compile("gloo|NCCL|TCPStore|DistNetworkError|DistBackendError")
"""How the others say that a rank is gone."""
LOG_FILE = "ranks.log"
LAUNCHER_FILE = "launcher.pid"
"""By it a rank knows whether its parent died before it could bind itself to its life."""
LOG_TAIL = 2000


class RanksDiedError(RuntimeError):
    """A rank ended without a word, or could not be reached any more."""


def run_in_ranks(job: Job, channel: Channel) -> Summary:
    """`job.compute` in `job.execution.processes` ranks; the summary of the first. A target of `Launcher.run`.

    Raises what a rank raised, `RanksDiedError`, and `InputError` for more ranks than GPUs.
    """
    _check_gpus(job.execution)
    job.work.mkdir(parents=True, exist_ok=True)
    path = job.work / "job.json"
    path.write_text(json.dumps(_encode(job)))
    log = job.work / LOG_FILE
    with log.open("wb") as errors:
        launcher = subprocess.Popen(
            _command(job.execution, path),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(),
            preexec_fn=die_with_parent,
        )
    path.with_name(LAUNCHER_FILE).write_text(str(launcher.pid))
    channel.on_stop = lambda: _stop(launcher)
    if channel.stop_requested:
        _stop(launcher)
    result: Summary | None = None
    failure: BaseException | None = None
    assert launcher.stdout is not None
    try:
        for line in launcher.stdout:
            said = _parse(line)
            if said is None:
                sys.stderr.buffer.write(line)
            elif "result" in said:
                result = said["result"]
            elif "error" in said:
                failure = failure or _decode_error(said)
            else:
                channel.send(said)
    finally:
        _end(launcher)
    if failure is not None:
        raise failure
    if channel.stop_requested and result is None:
        raise Interrupted
    if result is None:
        tail = log.read_text(errors="replace")[-LOG_TAIL:]
        raise RanksDiedError(f"a rank died with exit status {launcher.returncode}; the end of {log}:\n{tail}")
    return result


class Lines:
    """The way back from a rank: whole lines, also when others write at the same moment."""

    def __init__(self, descriptor: int, lock: Path) -> None:
        self._descriptor = descriptor
        self._lock = lock

    def write(self, said: dict[str, Any]) -> None:
        """One line."""
        data = json.dumps(said).encode() + b"\n"
        with self._lock.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            while data:
                data = data[os.write(self._descriptor, data) :]

    def error(self, error: BaseException, trace: str) -> None:
        """How the rank ended."""
        kind = type(error).__name__
        text = str(error) if kind in ERRORS else f"{kind}: {error}"
        self.write({"error": kind, "text": text, "trace": trace})


def decode(document: dict[str, Any]) -> Job:
    """A job as `run_in_ranks` wrote it."""
    module, name = document["compute"]
    return Job(
        compute=getattr(import_module(module), name),
        config={key: getattr(configs, kind)(**value) for key, (kind, value) in document["config"].items()},
        inputs={key: tuple(map(Path, paths)) for key, paths in document["inputs"].items()},
        digests=document["digests"],
        out=Path(document["out"]),
        work=Path(document["work"]),
        execution=ExecutionConfig(**document["execution"]),
    )


def _parse(line: bytes) -> dict[str, Any] | None:
    """A line of `Lines`; None for what a library has printed, or a rank that was killed has left half."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def _encode(job: Job) -> dict[str, Any]:
    return {
        "compute": (job.compute.__module__, job.compute.__name__),
        "config": {
            key: (type(value).__name__, value.model_dump(mode="json", by_alias=True))
            for key, value in job.config.items()
        },
        "inputs": {key: [str(path) for path in paths] for key, paths in job.inputs.items()},
        "digests": job.digests,
        "out": str(job.out),
        "work": str(job.work),
        "execution": job.execution.model_dump(mode="json"),
    }


def _decode_error(said: dict[str, Any]) -> BaseException:
    kind = ERRORS.get(said["error"], RanksDiedError if _CONNECTION.search(said["text"]) else RuntimeError)
    error = kind(said["text"])
    error.add_note(said["trace"])
    return error


def _check_gpus(execution: ExecutionConfig) -> None:
    import torch

    gpus = torch.cuda.device_count() if execution.device != "cpu" else 0
    if 0 < gpus < execution.processes:
        raise InputError(
            f"execution.processes: {execution.processes} ranks need a GPU each, and this host has {gpus}; lower it,"
            " or set execution.device to `cpu`"
        )


def _command(execution: ExecutionConfig, job: Path) -> list[str]:
    ranks = execution.processes
    threads = max(1, len(os.sched_getaffinity(0)) // ranks)
    options = {
        "num_processes": ranks,
        "num_machines": 1,
        "num_cpu_threads_per_process": threads,
        "mixed_precision": "no",
        "dynamo_backend": "no",
        "main_process_port": 0,
    }
    # else a file in the home directory would have a say
    settings = job.with_name("accelerate.yaml")
    settings.write_text("{compute_environment: LOCAL_MACHINE, distributed_type: MULTI_GPU, mixed_precision: 'no'}")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", f"--config_file={settings}"]
    return [*launch, *(f"--{name}={value}" for name, value in options.items()), "--module", "tasks.rank", str(job)]


def _environment() -> dict[str, str]:
    """That of this process; the ranks' modules are those that it runs, whatever the current folder holds."""
    path = filter(None, (str(PROJECT), os.environ.get("PYTHONPATH")))
    return os.environ | {"PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"}


def _stop(launcher: "subprocess.Popen[bytes]") -> None:
    """Ask the ranks themselves: the launcher would kill those that take longer than half a minute to save."""
    if launcher.poll() is None:
        itself = psutil.Process(launcher.pid)
        for process in itself.children() or [itself]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()


def _end(launcher: "subprocess.Popen[bytes]") -> None:
    if launcher.poll() is None and sys.exc_info()[0] is not None:
        launcher.kill()
    launcher.wait()
