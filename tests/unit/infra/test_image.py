"""The image: its Dockerfile is sound, its context holds no more than it needs, and its build steps work.

Without a Docker daemon the steps run in a fresh environment of the machine instead of the base image; those that
need the base image's own system (packages, users) are left out.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import dockerfile
import pytest
from docker.utils.build import exclude_paths

PROJECT = Path(__file__).resolve().parents[3]
DOCKERFILE = PROJECT / "infra" / "docker" / "Dockerfile"
SYSTEM_STEPS = ("apt-get", "useradd")


def installs(test: Callable[..., None]) -> Callable[..., None]:
    """A test that needs the image: the installation of everything takes minutes."""
    return pytest.mark.slow(pytest.mark.timeout(1800)(test))


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


def stage(files: list[str], folder: Path) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(PROJECT / file, folder / file)


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
    assert not instructions("ARG")
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


@dataclass
class Image:
    """What the build steps leave behind: a checkout and an environment with its programs."""

    checkout: Path
    environment: dict[str, str]

    def run(self, *command: str) -> str:
        """Run as the image would, from its working folder; its standard output."""
        done = subprocess.run(command, cwd=self.checkout, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Carry the instructions out, one after the other."""
    folder = tmp_path_factory.mktemp("image")
    venv.create(folder / "python", with_pip=True)
    built = Image(folder / "checkout", {**os.environ, "PATH": f"{folder / 'python' / 'bin'}:{os.environ['PATH']}"})
    for name in ("PYTHONPATH", "VIRTUAL_ENV"):
        built.environment.pop(name, None)
    source = folder / "context"
    stage(tracked(), source)
    sent = context(source)
    built.checkout.mkdir()
    for each in instructions("COPY", "RUN"):
        if each.cmd.upper() == "COPY":
            for path in sorted(sent if each.value[0] == "." else set(each.value[:-1])):
                (built.checkout / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source / path, built.checkout / path)
        elif not each.value[0].startswith(SYSTEM_STEPS):
            built.run("sh", "-ec", each.value[0])
    state = folder / "state"
    built.environment |= {"FORGETTING_STATE_DIR": str(state), "PREFECT_HOME": str(state / "prefect")}
    return built


@installs
def test_image_runs_a_recipe(image: Image) -> None:
    report = json.loads(image.run("forgetting", "run", "nano", "--json"))
    assert {step["state"] for step in report["steps"].values()} == {"ran"}


@installs
def test_image_holds_the_versions_that_were_tested(image: Image) -> None:
    tested = dict(line.split("==") for line in (PROJECT / "constraints.txt").read_text().splitlines())
    installed = {each["name"]: each["version"] for each in json.loads(image.run("pip", "list", "--format=json"))}
    # `+cpu`, where torch has no CUDA
    found = {name: version.partition("+")[0] for name, version in installed.items() if name in tested}
    assert len(found) > 100
    assert found == {name: tested[name] for name in found}


@installs
def test_image_finds_the_flow_where_deployments_name_it(image: Image) -> None:
    load = "from prefect.flows import load_flow_from_entrypoint as load"
    assert (
        image.run("python", "-c", f"{load}; print(load('flows/forgetting.py:forgetting').name)") == "forgetting\n"
    )


@installs
def test_image_serves_as_worker_of_both_kinds_and_as_servers(image: Image) -> None:
    [default] = instructions("CMD")
    image.run(*default.value, "--help")
    image.run("mlflow", "server", "--help")
    image.run("python", "-c", "import asyncpg, prefect_kubernetes.worker, psycopg2, pynvml")


@installs
def test_wheel_has_the_recipes_and_templates(image: Image, tmp_path: Path) -> None:
    image.run("pip", "wheel", "--no-deps", "--wheel-dir", str(tmp_path), ".")
    [wheel] = tmp_path.glob("*.whl")
    packages = ("flows/", "tasks/", "forgetting_core/", "infra/")
    needed = {file for file in tracked() if file.startswith(packages) and file.endswith((".py", ".yaml", ".j2"))}
    assert needed - {"infra/compose.yaml"} - {f for f in needed if f.startswith("infra/kubernetes/")} <= set(
        zipfile.ZipFile(wheel).namelist()
    )
