"""Which code, on which machine, with which libraries: what a commit records beside its identity."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = (
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "peft",
    "lm-eval",
    "tokenizers",
    "pyarrow",
    "numpy",
    "safetensors",
    "prefect",
    "mlflow",
    "s3fs",
)
GIT_COMMIT_VARIABLE = "FORGETTING_GIT_COMMIT"
PROJECT = Path(__file__).resolve().parent.parent


def provenance() -> dict[str, Any]:
    """Git commit and dirty flag of this code, versions, host.

    Outside a checkout the commit is what the environment says, as that of an image does, or None.
    """
    # an installed copy may lie inside somebody else's repository
    checkout = _git("rev-parse", "--show-toplevel") == str(PROJECT)
    return {
        "git_commit": _git("rev-parse", "HEAD") if checkout else os.environ.get(GIT_COMMIT_VARIABLE) or None,
        "git_dirty": bool(_git("status", "--porcelain", "--untracked-files=no")) if checkout else None,
        "python": platform.python_version(),
        "libraries": {name: found for name in LIBRARIES if (found := _version(name)) is not None},
        "host": platform.node(),
        "platform": platform.platform(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(PROJECT), *arguments], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
