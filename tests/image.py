"""What the Dockerfile says and what a build would be sent, for the tests of the image."""

import subprocess
from pathlib import Path

import dockerfile
from docker.utils.build import exclude_paths

PROJECT = Path(__file__).resolve().parents[1]
DOCKERFILE = PROJECT / "infra" / "docker" / "Dockerfile"


def instructions(*names: str) -> list[dockerfile.Command]:
    return [each for each in dockerfile.parse_file(str(DOCKERFILE)) if each.cmd.upper() in names]


def context(root: Path) -> set[str]:
    """The files below `root` that a build would be sent."""
    patterns = [
        line for line in (PROJECT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")
    ]
    return {path for path in exclude_paths(str(root), patterns) if (root / path).is_file()}


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True)
    return listed.stdout.splitlines()
