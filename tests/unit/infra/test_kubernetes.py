"""The manifests fit Kubernetes' own schemas, and a pool's job template gives the Job that a run needs.

The template goes through the classes of Prefect's Kubernetes worker: what is looked at is what a cluster would get.
"""

import asyncio
import json
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

from infra.settings import STOP_VARIABLE

FOLDER = Path(__file__).resolve().parents[3] / "infra" / "kubernetes"
SCHEMA = "1.37"
SECRET = "kept-out-of-every-manifest"

Manifest = dict[str, Any]


def template(pool: str) -> Manifest:
    return json.loads((FOLDER / f"{pool}-pool-job-template.json").read_text())


def job(pool: str, **job_variables: Any) -> Manifest:
    """The Job for a flow run of a deployment with these job variables."""
    # no block is referred to, so that the client is not asked for one
    configuration = asyncio.run(
        KubernetesWorkerJobConfiguration.from_template_and_values(
            template(pool), job_variables, client=PrefectClient("http://127.0.0.1:1")
        )
    )
    configuration.prepare_for_flow_run(FlowRun(id=uuid.uuid4(), flow_id=uuid.uuid4(), name="demo"))
    return configuration.job_manifest


def pod(manifest: Manifest) -> Manifest:
    return manifest["spec"]["template"]["spec"]


def container(manifest: Manifest) -> Manifest:
    [only] = pod(manifest)["containers"]
    return only


def resources() -> list[Manifest]:
    names = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    return [manifest for name in names for manifest in yaml.safe_load_all((FOLDER / name).read_text())]


def name_of(manifest: Manifest) -> str:
    return f"{manifest['kind']}-{manifest['metadata']['name']}"


def deployments() -> list[Manifest]:
    return [manifest for manifest in resources() if manifest["kind"] == "Deployment"]


def test_a_step_that_does_not_end_is_killed_before_its_pod_is() -> None:
    (settings,) = [manifest for manifest in resources() if name_of(manifest) == "ConfigMap-forgetting-settings"]
    assert float(settings["data"][STOP_VARIABLE]) < pod(job("gpu"))["terminationGracePeriodSeconds"]


def test_kustomization_names_every_file() -> None:
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    named = [
        *kustomization["resources"],
        *(file for made in kustomization["configMapGenerator"] for file in made["files"]),
    ]
    assert sorted(["kustomization.yaml", *named]) == sorted(path.name for path in FOLDER.iterdir())


@pytest.mark.parametrize("manifest", resources(), ids=name_of)
def test_manifest_is_valid(manifest: Manifest) -> None:
    kubernetes_validate.validate(manifest, SCHEMA, strict=True)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_builds_them_into_one_namespace() -> None:
    built = subprocess.run(["kubectl", "kustomize", str(FOLDER)], capture_output=True, text=True, check=True).stdout
    manifests = list(yaml.safe_load_all(built))
    for manifest in manifests:
        kubernetes_validate.validate(manifest, SCHEMA, strict=True)
    assert {manifest["metadata"].get("namespace") for manifest in manifests} == {"forgetting", None}
    assert [name_of(manifest) for manifest in manifests if "namespace" not in manifest["metadata"]] == [
        "Namespace-forgetting"
    ]


@pytest.mark.parametrize("pool", ["gpu", "cpu"])
def test_job_is_valid(pool: str) -> None:
    manifest = job(pool)
    # Prefect insists on these two where Kubernetes ignores them
    assert (pod(manifest).pop("parallelism"), pod(manifest).pop("completions")) == (1, 1)
    kubernetes_validate.validate(manifest, SCHEMA, strict=True)
    assert "{{" not in json.dumps(manifest)


@pytest.mark.parametrize("pool", ["gpu", "cpu"])
def test_every_variable_is_described_used_and_has_a_default_of_its_type(pool: str) -> None:
    variables = template(pool)["variables"]["properties"]
    configuration = json.dumps(template(pool)["job_configuration"])
    types = {"string": str, "integer": int, "object": dict, "array": list, "boolean": bool}
    for name, variable in variables.items():
        assert variable["description"], name
        assert f"{{{{ {name} }}}}" in configuration, name
        if "type" in variable and "default" in variable:
            assert isinstance(variable["default"], types[variable["type"]]), name


def test_deployments_set_no_variable_that_the_pool_would_ignore() -> None:
    deployments = yaml.safe_load((FOLDER.parents[1] / "prefect.yaml").read_text())["deployments"]
    for pool in (deployment["work_pool"] for deployment in deployments):
        known = template(pool["name"])["variables"]["properties"]
        assert set(pool.get("job_variables", {})) <= set(known)


def test_gpu_job_gets_a_gpu_and_a_node_that_has_one() -> None:
    manifest = job("gpu")
    assert container(manifest)["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod(manifest)["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert pod(manifest)["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def test_deployment_overrides_gpus_memory_image_and_nodes() -> None:
    manifest = job(
        "gpu",
        gpus=8,
        memory_limit="900Gi",
        image="registry.example/forgetting:2",
        node_selector={"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
        shared_memory="64Gi",
        env={"NCCL_DEBUG": "INFO"},
    )
    assert container(manifest)["resources"]["limits"] == {"memory": "900Gi", "nvidia.com/gpu": 8}
    assert container(manifest)["image"] == "registry.example/forgetting:2"
    assert pod(manifest)["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    assert {"name": "NCCL_DEBUG", "value": "INFO"} in container(manifest)["env"]
    [memory] = [volume["emptyDir"] for volume in pod(manifest)["volumes"] if "medium" in volume["emptyDir"]]
    assert memory == {"medium": "Memory", "sizeLimit": "64Gi"}


def test_shared_memory_is_mounted() -> None:
    manifest = job("gpu")
    mounted = {mount["mountPath"]: mount["name"] for mount in container(manifest)["volumeMounts"]}
    [volume] = [volume for volume in pod(manifest)["volumes"] if volume["name"] == mounted["/dev/shm"]]
    assert volume["emptyDir"]["medium"] == "Memory"


def test_eviction_leaves_time_for_a_checkpoint_and_prefect_runs_the_flow_again() -> None:
    manifest = job("gpu")
    # a step that is asked to stop has 60 s to save (infra/launch.py), then the checkpoint goes to the store
    assert pod(manifest)["terminationGracePeriodSeconds"] >= 120
    assert manifest["spec"]["backoffLimit"] == 0
    behaviour = {"name": "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR", "value": "reschedule"}
    assert behaviour in container(manifest)["env"]


def test_finished_jobs_disappear() -> None:
    assert job("gpu")["spec"]["ttlSecondsAfterFinished"] == 3600


@pytest.mark.parametrize("pool", ["gpu", "cpu"])
def test_secrets_enter_a_job_by_reference_only(pool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, SECRET)
    manifest = job(pool, credentials_name="team-credentials")
    assert SECRET not in json.dumps(manifest)
    assert {"secretRef": {"name": "team-credentials"}} in container(manifest)["envFrom"]


def test_pools_differ_in_their_sizes_only() -> None:
    gpu, cpu = template("gpu"), template("cpu")
    del gpu["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]["containers"][0]["resources"][
        "limits"
    ]["nvidia.com/gpu"]
    del gpu["variables"]["properties"]["gpus"]
    for pool in (gpu, cpu):
        for variable in pool["variables"]["properties"].values():
            variable.pop("default", None)
            variable.pop("description")
    assert gpu == cpu


@pytest.mark.parametrize("manifest", deployments(), ids=name_of)
def test_servers_and_workers_are_confined(manifest: Manifest) -> None:
    assert pod(manifest)["enableServiceLinks"] is False
    assert pod(manifest)["securityContext"]["runAsNonRoot"] is True
    for each in [*pod(manifest)["containers"], *pod(manifest).get("initContainers", [])]:
        assert each["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert each["resources"]["limits"]["memory"]
        assert not each["image"].endswith(":latest") and ":" in each["image"]
    assert all("livenessProbe" in each for each in pod(manifest)["containers"])


@pytest.mark.parametrize("pool", ["gpu", "cpu"])
def test_what_a_job_refers_to_exists(pool: str) -> None:
    made = {name_of(manifest): manifest for manifest in resources()}
    manifest = job(pool)
    assert f"ServiceAccount-{pod(manifest)['serviceAccountName']}" in made
    assert "ConfigMap-forgetting-settings" in made
    assert {"configMapRef": {"name": "forgetting-settings"}} in container(manifest)["envFrom"]
    images = {each["image"] for deployment in deployments() for each in pod(deployment)["containers"]}
    assert images == {container(manifest)["image"]}


def test_workers_may_do_what_their_jobs_need_and_no_more() -> None:
    [role] = [manifest for manifest in resources() if manifest["kind"] == "Role"]
    allowed = {resource: set(rule["verbs"]) for rule in role["rules"] for resource in rule["resources"]}
    assert allowed["jobs"] == {"create", "get", "list", "watch", "delete"}
    assert "secrets" not in allowed and "*" not in allowed
