"""The servers of `infra/compose.yaml`, started as processes with that file's own commands, settings and checks.

A real Postgres, SeaweedFS, Prefect server, MLflow server and worker; only names and ports become those of this
machine. It shows what no parser can: that the servers come up on their databases and that clients reach them.
"""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dockerfile
import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
KUBERNETES = PROJECT / "infra" / "kubernetes"
START_SECONDS = 180
RUN_SECONDS = 600
ADDRESS = re.compile(r"\b(?:postgres|s3|prefect|mlflow|127\.0\.0\.1):(\d+)\b")
SECRETS = re.compile(r"\$\{(\w+):\?[^}]+\}")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Machine:
    """Runs the services of the file on free ports of loopback; `folder` holds their state and logs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.services: dict[str, Any] = yaml.safe_load((PROJECT / "infra" / "compose.yaml").read_text())["services"]
        self.ports = {port: free_port() for port in ("5432", "8333", "4200", "5000", "8080")}

    def here(self, text: str) -> str:
        """`text` of the file with the addresses and secrets of this machine."""
        text = SECRETS.sub(lambda found: f"password-of-{found[1].lower()}", text)
        return ADDRESS.sub(lambda found: f"127.0.0.1:{self.ports[found[1]]}", text)

    def environment(self, name: str) -> dict[str, str]:
        """What the service's container would find, beside what every program of this machine does."""
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "PREFECT_", "MLFLOW_"))
        }
        state = {
            "FORGETTING_STATE_DIR": str(self.folder / name),
            "PREFECT_HOME": str(self.folder / name / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "AWS_EC2_METADATA_DISABLED": "true",
            "PYTHONPATH": os.pathsep.join([str(PROJECT), *sys.path[1:]]),
        }
        given = {key: self.here(value) for key, value in self.services[name].get("environment", {}).items()}
        return inherited | state | given

    def run(self, name: str, *command: str) -> str:
        """A command with the service's settings; its standard output. Fails the test if it fails."""
        done = subprocess.run(
            command, env=self.environment(name), cwd=PROJECT, capture_output=True, text=True, timeout=RUN_SECONDS
        )
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def start(self, name: str, command: list[str], healthy: list[str], **more: Any) -> "subprocess.Popen[bytes]":
        """Start, and wait until the health check passes."""
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, env=self.environment(name), stdout=output, stderr=output, start_new_session=True, **more
            )
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run(healthy, capture_output=True, env=self.environment(name)).returncode != 0:
            if process.poll() is not None or time.monotonic() > deadline:
                stop(process)
                raise RuntimeError(f"{name} did not come up:\n{log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.5)
        return process

    def python(self, test: list[str]) -> list[str]:
        """A health check `["CMD", "python", "-c", …]` for this machine."""
        assert test[:2] == ["CMD", "python"]
        return [sys.executable, *(self.here(argument) for argument in test[2:])]


def stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def start_postgres(machine: Machine) -> "subprocess.Popen[bytes]":
    """As the image does on an empty data folder: a cluster with a password, then `databases.sql`."""
    binaries = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
    if not (binaries and (binaries / "initdb").exists()):
        pytest.skip("no Postgres on this machine (Debian: postgresql)")
    # it refuses to run as root
    owner = {"user": "postgres"} if os.geteuid() == 0 else {}
    data = machine.folder / "postgres"
    data.mkdir()
    if owner:
        shutil.chown(data, "postgres")
    port = machine.ports["5432"]
    subprocess.run(
        [binaries / "initdb", "-D", data, "-U", "postgres", "--auth-local=trust", "--auth-host=scram-sha-256"],
        check=True,
        capture_output=True,
        **owner,
    )
    process = machine.start(
        "postgres",
        [str(binaries / "postgres"), "-D", str(data), "-p", str(port), "-k", str(data), "-h", "127.0.0.1"],
        [str(binaries / "pg_isready"), "--host=127.0.0.1", f"--port={port}", "--username=postgres"],
        **owner,
    )
    script = str(PROJECT / "infra" / "docker" / "databases.sql")
    machine.run("postgres", "psql", "-h", str(data), "-p", str(port), "-U", "postgres", "-f", script)
    return process


def start_s3(machine: Machine) -> "subprocess.Popen[bytes]":
    names = [
        "s3.port.grpc",
        *(f"{part}.port{kind}" for part in ("master", "volume", "filer") for kind in ("", ".grpc")),
    ]
    command = [str(Path(sys.executable).with_name("weed"))]
    for argument in machine.services["s3"]["command"]:
        command.append(
            {
                "-dir=/data": f"-dir={machine.folder / 's3'}",
                "-ip=s3": "-ip=127.0.0.1",
                "-ip.bind=0.0.0.0": "-ip.bind=127.0.0.1",
            }.get(argument, argument)
        )
    (machine.folder / "s3").mkdir()
    command += [f"-s3.port={machine.ports['8333']}", *(f"-{name}={free_port()}" for name in names)]
    url = machine.here(machine.services["s3"]["healthcheck"]["test"][-1])
    answers = [sys.executable, "-c", f"import urllib.request; urllib.request.urlopen({url!r}, timeout=4)"]
    return machine.start("s3", command, answers)


def start_python_server(machine: Machine, name: str) -> "subprocess.Popen[bytes]":
    service = machine.services[name]
    port = {"prefect": "4200", "mlflow": "5000"}[name]
    program, *arguments = [argument.replace("0.0.0.0", "127.0.0.1") for argument in service["command"]]
    command = [sys.executable, "-m", program]
    for argument in arguments:
        # the names that clients use in the file stay allowed
        here = machine.here(argument)
        command.append(f"{argument},{here}" if argument.startswith("--allowed-hosts") else here)
    return machine.start(
        name, [*command, "--port", str(machine.ports[port])], machine.python(service["healthcheck"]["test"])
    )


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with ExitStack() as running:
        # a path that the user of Postgres may enter
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        machine = Machine(folder)
        for process in (start_postgres, start_s3):
            running.callback(stop, process(machine))
        for name in ("prefect", "mlflow"):
            running.callback(stop, start_python_server(machine, name))
        yield machine


def test_setup_prepares_the_servers_and_may_run_again(machine: Machine) -> None:
    command = [sys.executable, *machine.services["setup"]["command"][1:]]
    machine.run("setup", *command)
    machine.run("setup", *command)
    pools = json.loads(machine.run("setup", sys.executable, "-m", "prefect", "work-pool", "ls", "--output", "json"))
    assert {pool["name"]: pool["type"] for pool in pools} == {"gpu": "process", "cpu": "process"}


def test_worker_reaches_every_server_and_passes_the_check_of_the_image(machine: Machine) -> None:
    command = machine.services["worker-cpu"]["command"]
    instructions = dockerfile.parse_file(str(PROJECT / "infra" / "docker" / "Dockerfile"))
    [check] = [each.value for each in instructions if each.cmd.upper() == "HEALTHCHECK"]
    machine.services["worker-cpu"]["environment"]["PREFECT_WORKER_WEBSERVER_PORT"] = str(machine.ports["8080"])
    worker = machine.start("worker-cpu", [sys.executable, "-m", *command], machine.python(list(check)))
    stop(worker)
    findings = machine.run(
        "worker-cpu", sys.executable, "-c", "from flows.cli import main; main()", "doctor", "--json"
    )
    checks = {check["name"]: check for check in json.loads(findings)["checks"]}
    assert all(check["ok"] for check in checks.values())
    assert str(machine.ports["4200"]) in checks["prefect"]["message"]


def test_run_leaves_its_artifacts_in_the_object_store_and_its_lineage_in_mlflow(machine: Machine) -> None:
    output = machine.run(
        "worker-cpu", sys.executable, "-c", "from flows.cli import main; main()", "run", "nano", "--json"
    )
    report = json.loads(output)
    assert report["store"] == "s3://forgetting/store"
    assert {step["state"] for step in report["steps"].values()} == {"ran"}
    assert report["mlflow_run_id"]


def test_mlflow_answers_to_the_names_of_the_file_and_no_others(machine: Machine) -> None:
    def status(host: str) -> int:
        url = f"http://127.0.0.1:{machine.ports['5000']}/api/2.0/mlflow/experiments/get?experiment_id=0"
        try:
            return int(urllib.request.urlopen(urllib.request.Request(url, headers={"Host": host})).status)
        except urllib.error.HTTPError as error:
            return error.code

    assert [status(host) for host in ("mlflow:5000", "localhost:5000", "elsewhere:5000")] == [200, 200, 403]


def test_setup_of_kubernetes_registers_the_job_templates(machine: Machine) -> None:
    deployments = [each for each in yaml.safe_load_all((KUBERNETES / "workers.yaml").read_text()) if "spec" in each]
    [setup] = deployments[-1]["spec"]["template"]["spec"]["initContainers"]
    for pool in ("gpu", "cpu"):
        machine.run("setup", sys.executable, "-m", "prefect", "--no-prompt", "work-pool", "delete", pool)
    arguments = [argument.replace("/etc/forgetting", str(KUBERNETES)) for argument in setup["args"][1:]]
    machine.run("setup", sys.executable, *arguments)
    pools = json.loads(machine.run("setup", sys.executable, "-m", "prefect", "work-pool", "ls", "--output", "json"))
    registered = {pool["name"]: pool["base_job_template"] for pool in pools}
    for pool in ("gpu", "cpu"):
        assert registered[pool] == json.loads((KUBERNETES / f"{pool}-pool-job-template.json").read_text())
