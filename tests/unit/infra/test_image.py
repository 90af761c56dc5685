"""The image: its Dockerfile is sound, and its context holds no more than it needs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import dockerfile

from tests.image import DOCKERFILE, context, instructions


def test_linter_has_nothing_to_say() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert hadolint, "install the project with its `dev` extra"
    linted = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True)
    assert (linted.returncode, linted.stdout) == (0, "")


def test_base_is_pinned_to_the_python_of_the_tests() -> None:
    [base] = instructions("FROM")
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", base.value[0])


def test_runs_as_nobody_in_particular_and_is_checked() -> None:
    assert [user.value for user in instructions("USER")] == [("10001:10001",)]
    assert dockerfile.parse_file(str(DOCKERFILE))[-1].cmd.upper() == "CMD"
    [check] = instructions("HEALTHCHECK")
    assert "http://127.0.0.1:8080/health" in check.value[-1]


def test_dependencies_are_a_layer_of_their_own_before_the_code() -> None:
    versions, code = instructions("COPY")
    assert versions.value[:-1] == ("pyproject.toml", "constraints.txt")
    [installed] = [step for step in instructions("RUN") if "--constraint constraints.txt" in step.value[0]]
    assert versions.start_line < installed.start_line < code.start_line


def test_no_secret_is_baked_in() -> None:
    assert [step.value for step in instructions("ARG")] == [("GIT_COMMIT",)]
    for each in instructions("ENV"):
        assert not [name for name in each.value[::2] if re.search("PASSWORD|SECRET|KEY|TOKEN", name)]


def test_context_is_code_without_state_data_and_secrets(tmp_path: Path) -> None:
    wanted = {"pyproject.toml", "constraints.txt", "prefect.yaml", "flows/dag.py", "flows/recipes/nano.yaml"}
    unwanted = {
        ".git/config",
        ".venv/bin/python",
        ".forgetting/store/v1/x",
        "models/smollm2/model.safetensors",
        "tests/conftest.py",
        "infra/secrets.env",
        "flows/__pycache__/dag.cpython-311.pyc",
    }
    for file in wanted | unwanted:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("")
    assert context(tmp_path) == wanted
