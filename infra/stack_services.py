"""What the local stack consists of: the command, the environment and the health of each of its processes.

Everything listens on 127.0.0.1 only. Secrets are in files that only the user can read and in environments, never in
a command line, which everybody on the machine can read.
"""

import json
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx

from infra import one_connection, seaweedfs
from infra.stack_processes import Service

HOST = "127.0.0.1"
S3, MLFLOW, PREFECT, GPU_WORKER, CPU_WORKER = "seaweedfs", "mlflow", "prefect", "gpu-worker", "cpu-worker"
STAGES = ((S3,), (MLFLOW, PREFECT), (GPU_WORKER, CPU_WORKER))
"""The order of starting; those of one stage start side by side."""
PORTS = {S3: len(seaweedfs.PORTS), MLFLOW: 1, PREFECT: 1}
"""How many ports each server needs; the first is the one that clients talk to."""
Ports = Mapping[str, list[int]]
_PRIVATE = {"DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}


def make_keys(folder: Path) -> tuple[str, str]:
    """Access key and secret key of the S3 server: random, made once, kept in the server's own file."""
    path = _identities(folder)
    if not path.exists():
        seaweedfs.write_identities(path, secrets.token_hex(10).upper(), secrets.token_urlsafe(30))
    (identity,) = json.loads(path.read_text())["identities"]
    (keys,) = identity["credentials"]
    return keys["accessKey"], keys["secretKey"]


def client_environment(folder: Path, ports: Ports) -> dict[str, str]:
    """What makes `forgetting`, Prefect and MLflow use the stack."""
    access_key, secret_key = make_keys(folder)
    return {
        "PREFECT_API_URL": f"http://{HOST}:{ports[PREFECT][0]}/api",
        "MLFLOW_TRACKING_URI": f"http://{HOST}:{ports[MLFLOW][0]}",
        "FORGETTING_STORE": f"s3://{seaweedfs.BUCKET}/store",
        "AWS_ENDPOINT_URL": f"http://{HOST}:{ports[S3][0]}",
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_DEFAULT_REGION": seaweedfs.REGION,
    }


def worker_environment(folder: Path, ports: Ports, checkout: Path) -> dict[str, str]:
    """What workers, and through them flow runs, get; `checkout` holds the code that they run."""
    return {
        **_PRIVATE,
        **client_environment(folder, ports),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "FORGETTING_CHECKOUT": str(checkout),
        "FORGETTING_STATE_DIR": str(folder / "state"),
        "PREFECT_HOME": str(folder / "prefect-client"),
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        # waiting threads that spin make a busy machine ten times slower
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def services(folder: Path, ports: Ports, checkout: Path) -> dict[str, Service]:
    """Every process of the stack by its name."""
    worker = worker_environment(folder, ports, checkout)
    return {
        S3: _s3(folder, ports),
        MLFLOW: _mlflow(folder, ports),
        PREFECT: _prefect(folder, ports),
        GPU_WORKER: _worker(GPU_WORKER, "gpu", worker),
        CPU_WORKER: _worker(CPU_WORKER, "cpu", worker),
    }


def _s3(folder: Path, ports: Ports) -> Service:
    data = folder / "seaweedfs"
    data.mkdir(exist_ok=True)
    access_key, secret_key = make_keys(folder)
    url = f"http://{HOST}:{ports[S3][0]}"
    return Service(
        name=S3,
        command=seaweedfs.command(data, _identities(folder), ports[S3]),
        environment={},
        url=url,
        healthy=lambda: seaweedfs.takes_writes(url, access_key, secret_key),
    )


def _mlflow(folder: Path, ports: Ports) -> Service:
    client = client_environment(folder, ports)
    url = client["MLFLOW_TRACKING_URI"]
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(ports[MLFLOW][0])]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--workers", "1"]
    command += ["--artifacts-destination", f"s3://{seaweedfs.BUCKET}/mlflow"]
    return Service(
        name=MLFLOW,
        command=command,
        environment={
            **_PRIVATE,
            **{name: value for name, value in client.items() if name.startswith("AWS_")},
            "MLFLOW_S3_ENDPOINT_URL": client["AWS_ENDPOINT_URL"],
            # more than a gigabyte of processes that nothing here uses
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
        url=url,
        healthy=lambda: _answer(f"{url}/health") is not None,
    )


def _prefect(folder: Path, ports: Ports) -> Service:
    url = f"http://{HOST}:{ports[PREFECT][0]}"
    return Service(
        name=PREFECT,
        command=[
            sys.executable,
            "-m",
            "prefect",
            "server",
            "start",
            "--host",
            HOST,
            "--port",
            str(ports[PREFECT][0]),
        ],
        environment={
            **_PRIVATE,
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": _one_at_a_time(folder / "prefect" / "prefect.db"),
            # leases in memory are lost when the server is started again, and their runs crash
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            # a run that waits for its turn is not late; to call dozens so all at once locks SQLite for minutes
            "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
        },
        url=url,
        healthy=lambda: _answer(f"{url}/api/health") is not None,
    )


def _worker(name: str, pool: str, environment: dict[str, str]) -> Service:
    api = environment["PREFECT_API_URL"]
    return Service(
        name=name,
        command=[sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--name", name],
        environment=environment,
        url=f"work pool {pool}",
        healthy=lambda: _is_online(api, pool, name),
    )


def _is_online(api: str, pool: str, worker: str) -> bool:
    """Whether the server has heard of the worker lately."""
    answer = _answer(f"{api}/work_pools/{pool}/workers/filter", post=True)
    return answer is not None and (worker, "ONLINE") in [(item["name"], item["status"]) for item in answer.json()]


def _answer(url: str, *, post: bool = False) -> httpx.Response | None:
    """The answer if it is 200; None for any other and for none."""
    try:
        # no proxy stands between processes of one machine
        with httpx.Client(trust_env=False, timeout=5) as client:
            answer = client.post(url, json={}) if post else client.get(url)
    except httpx.HTTPError:
        return None
    return answer if answer.status_code == httpx.codes.OK else None


def _one_at_a_time(database: Path) -> str:
    return f"sqlite+aiosqlite:///{database}?plugin={one_connection.NAME}"


def _identities(folder: Path) -> Path:
    return folder / "s3.json"
