"""The command line as a user starts it: a process of its own, with its own state directory."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = str(Path(sys.executable).parent / "forgetting")
SECONDS = 540


class Cli:
    """`forgetting` with one state directory; `environment` is added to this process's own."""

    def __init__(self, state_dir: Path, environment: dict[str, str] | None = None) -> None:
        self.state_dir = state_dir
        ours = ("FORGETTING_", "PREFECT_", "MLFLOW_", "AWS_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self.environment = (
            inherited | {"FORGETTING_STATE_DIR": str(state_dir), "COLUMNS": "200"} | (environment or {})
        )

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """The running command, in a process group of its own."""
        return subprocess.Popen(
            [COMMAND, *arguments],
            env=self.environment,
            cwd=self.state_dir.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, status: int = 0) -> "subprocess.CompletedProcess[str]":
        """The finished command; fails the test with its output unless it ends with `status`."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=SECONDS)
        assert process.returncode == status, f"exit status {process.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def json(self, *arguments: str, status: int = 0) -> Any:
        """The document on standard output of the command with `--json`."""
        return json.loads(self.run(*arguments, "--json", status=status).stdout)


@dataclass
class Result:
    """What a command has said that ran in the test's own process."""

    status: int
    output: str
    errors: str

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.output)
        return document


def states(document: dict[str, Any]) -> dict[str, str]:
    """{step: state} of a run or a plan."""
    steps = document["steps"]
    if isinstance(steps, dict):
        return {label: step["state"] for label, step in steps.items()}
    return {step["step"]: step["state"] for step in steps}


def ran(document: dict[str, Any]) -> set[str]:
    """The steps of a run that were computed."""
    return {label for label, state in states(document).items() if state == "ran"}
