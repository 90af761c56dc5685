"""The image's build steps work, and what they leave behind runs a recipe.

Without a Docker daemon the steps run in a fresh environment of the machine instead of the base image; those that
need the base image's own system (packages, users) are left out.
"""

import json
import os
import shutil
import subprocess
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.image import PROJECT, context, instructions, tracked

SYSTEM_STEPS = ("apt-get", "useradd")

# everything is installed anew
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def stage(files: list[str], folder: Path) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(PROJECT / file, folder / file)


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


def test_image_runs_a_recipe(image: Image) -> None:
    report = json.loads(image.run("forgetting", "run", "nano", "--json"))
    assert {step["state"] for step in report["steps"].values()} == {"ran"}


def test_image_holds_the_versions_that_were_tested(image: Image) -> None:
    tested = dict(line.split("==") for line in (PROJECT / "constraints.txt").read_text().splitlines())
    installed = {each["name"]: each["version"] for each in json.loads(image.run("pip", "list", "--format=json"))}
    # `+cpu`, where torch has no CUDA
    found = {name: version.partition("+")[0] for name, version in installed.items() if name in tested}
    assert len(found) > 100
    assert found == {name: tested[name] for name in found}


def test_image_finds_the_flow_where_deployments_name_it(image: Image) -> None:
    load = "from prefect.flows import load_flow_from_entrypoint as load"
    assert (
        image.run("python", "-c", f"{load}; print(load('flows/forgetting.py:forgetting').name)") == "forgetting\n"
    )


def test_image_serves_as_worker_of_both_kinds_and_as_servers(image: Image) -> None:
    [default] = instructions("CMD")
    image.run(*default.value, "--help")
    image.run("mlflow", "server", "--help")
    image.run("python", "-c", "import asyncpg, prefect_kubernetes.worker, psycopg2, pynvml")


def test_wheel_has_the_recipes_and_templates(image: Image, tmp_path: Path) -> None:
    image.run("pip", "wheel", "--no-deps", "--wheel-dir", str(tmp_path), ".")
    [wheel] = tmp_path.glob("*.whl")
    packages = ("flows/", "tasks/", "forgetting_core/", "infra/")
    read_at_run_time = (".py", ".j2", "recipes/", "py.typed")
    needed = {
        file for file in tracked() if file.startswith(packages) and any(part in file for part in read_at_run_time)
    }
    assert needed <= set(zipfile.ZipFile(wheel).namelist())
