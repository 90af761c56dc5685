"""The keys of a reader, a worker and a collector on a real S3 server: each does its work and nothing else."""

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.collector import collect, take_census
from infra.doctor_store import probe_store
from infra.inventory import read_inventory
from infra.lease import Leases
from infra.objects import Objects, StoreError
from infra.pins import write_pin
from infra.policies import ROLES, TRAINING_STEPS, policy
from infra.settings import Settings
from infra.store import Store, open_store
from infra.training_checkpoints import TrainingCheckpoints
from tasks import forget, reference
from tests.seaweedfs import BUCKET, SeaweedFS
from tests.stores import make_step, record_run, write_files

pytestmark = pytest.mark.security("what the keys of a reader, a worker and a collector may not do")
URL = f"s3://{BUCKET}/team/store"
ELSEWHERE = f"s3://{BUCKET}/team/other"
PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    policies = {role: policy(role, URL) for role in ROLES}
    server = SeaweedFS(tmp_path_factory.mktemp("policies"), policies=policies)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def store_of(server: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Store]:
    """The store as the owner (`""`) or a role opens it; the last call's key is the environment's."""

    def open_as(role: str, url: str = URL) -> Store:
        for name, value in server.environment(role or None).items():
            monkeypatch.setenv(name, value)
        return open_store(url)

    return open_as


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return write_files(tmp_path / "out", {"train/a": b"a", "aux/b": b"b"})


def contents(objects: Objects) -> dict[str, str]:
    return {stored.key: stored.etag for stored in objects.find("v1")}


def change(kind: str, store: Store, folder: Path, existing: str) -> None:
    """One change of that kind."""
    objects = store.objects
    match kind:
        case "overwrite":
            objects.overwrite(existing, b"x")
        case "create":
            objects.create(f"v1/commits/split/{uuid.uuid4()}.json", b"x")
        case "swap":
            objects.swap(existing, b"x", objects.read_version(existing)[1])
        case "delete":
            objects.delete(existing)
        case "data" | "data in parts":
            size = 1 if kind == "data" else 9 * 2**20
            store.publish("split", write_files(folder, {"a": bytes(size)}))
        case "data of a training":
            objects.delete(f"v1/data/{TRAINING_STEPS[0]}/x/a")
        case "head" | "run" | "pin" | "lease":
            objects.overwrite(f"v1/{kind}s/x.json", b"x")
        case "beside the store":
            objects.overwrite("elsewhere", b"x")
        case other:
            raise AssertionError(other)


ALL = (
    *("overwrite", "create", "swap", "delete", "data", "data in parts", "data of a training"),
    *("head", "run", "pin", "lease", "beside the store"),
)
REFUSED = {
    "reader": ALL,
    "worker": ("delete", "pin", "beside the store"),
    "collector": ("data", "data in parts", "head", "run", "lease", "beside the store"),
}


@pytest.mark.parametrize(("role", "kind"), [(role, kind) for role, kinds in REFUSED.items() for kind in kinds])
def test_a_key_cannot_do_what_its_role_does_not_need(
    role: str, kind: str, store_of: Callable[..., Store], output: Path, tmp_path: Path
) -> None:
    owner = store_of("")
    commit = make_step(owner, output, "split")
    before = contents(owner.objects)
    restricted = store_of(role)
    assert restricted.lookup("split", commit.fingerprint) == commit
    with pytest.raises(StoreError, match="refuses access"):
        change(kind, restricted, tmp_path / "new", f"v1/commits/split/{commit.fingerprint}.json")
    assert contents(store_of("").objects) == before


@pytest.mark.parametrize("role", ROLES)
def test_a_key_neither_reads_nor_lists_what_is_beside_its_store(
    role: str, store_of: Callable[..., Store], output: Path
) -> None:
    other = make_step(store_of("", ELSEWHERE), output, "split")
    restricted = store_of(role, ELSEWHERE)
    for use in (
        lambda: restricted.lookup("split", other.fingerprint),
        lambda: list(restricted.commits("split")),
        lambda: list(restricted.objects.find("v1")),
        lambda: restricted.stage(other.uri, other.digest, output),
    ):
        with pytest.raises(StoreError, match="refuses access"):
            use()


def test_a_reader_reads_everything(store_of: Callable[..., Store], output: Path, tmp_path: Path) -> None:
    commit = make_step(store_of(""), output, "split")
    reader = store_of("reader")
    staged = reader.stage(commit.uri, commit.digest, tmp_path / "staged")
    assert (staged / "train/a").read_bytes() == b"a"
    assert commit in [record.commit for record in read_inventory(reader.objects).commits]
    assert reader.lookup("split", "0" * 64) is None, "what is missing is missing, not refused"


def test_a_worker_runs_a_step_from_the_lease_to_the_head(
    store_of: Callable[..., Store], output: Path, tmp_path: Path
) -> None:
    worker = store_of("worker")
    assert probe_store(Settings.from_environment(store=URL)).startswith(URL)
    lease = Leases(worker.objects, 60).candidate("forget", "f" * 64).attempt()
    assert lease is not None
    with lease:
        checkpoints = TrainingCheckpoints(worker, "forget", "f" * 64)
        for step in (1, 2):
            checkpoints.keep(output, step)
        large = write_files(tmp_path / "large", {"a": bytes(17 * 2**20)})
        commit = make_step(worker, large, "forget")
        again = worker.publish("forget", output)
        changes = {"artifact": again.uri.removeprefix(f"{URL}/"), "digest": again.digest, "outputs": {}}
        assert not worker.replace(commit, commit.model_copy(update=changes)).adopted
        checkpoints.discard()
    worker.write_head("recipe", {"flow_run_id": "x", "recipe": "recipe", "steps": {}})
    record_run(worker, commit)
    assert list(worker.objects.find("v1/leases")) == list(worker.objects.find("v1/training")) == []


def test_a_collector_takes_what_nothing_needs(store_of: Callable[..., Store], output: Path) -> None:
    kept, lost = (make_step(store_of(""), output, "split") for _ in range(2))
    collector = store_of("collector").objects
    write_pin(collector, "kept", kept)
    for _ in range(2):  # retired, then taken away
        inventory = read_inventory(collector)
        later = datetime.now(UTC) + timedelta(days=1)
        census = take_census(collector, inventory, now=later, grace=timedelta(0))
        mine = [item for item in census.garbage if item.record and item.record.commit == lost]
        assert all(went for _, went in collect(collector, inventory, mine))
    owner = store_of("")
    assert owner.lookup("split", lost.fingerprint) is None
    assert not owner.exists(lost.uri)
    assert owner.exists(kept.uri)


def test_the_steps_that_train_are_those_whose_checkpoints_a_worker_may_delete() -> None:
    assert {spec.name for spec in (reference.REFERENCE, forget.FORGET) if spec.trains} == set(TRAINING_STEPS)


def test_the_command_prints_a_policy_or_says_what_it_expects() -> None:
    command = [sys.executable, "-m", "infra.policies"]
    done = subprocess.run([*command, "worker", URL], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0
    assert f"arn:aws:s3:::{BUCKET}/team/store/v1/leases/*" in done.stdout
    done = subprocess.run([*command, "admin", URL], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "reader, worker, collector" in done.stderr
