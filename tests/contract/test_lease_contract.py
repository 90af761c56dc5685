"""Several processes want the same step at once, on a folder and on a real S3 server alike."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from infra.commits import Commit
from infra.fingerprint import step_fingerprint
from infra.launch import StoppedError
from infra.lease import Leases
from infra.lineage import EXPERIMENT, Lineage
from infra.lineage_writer import INCOMPLETE_TAG
from infra.plan import Earlier, assess
from infra.store import open_store
from infra.urls import open_objects
from tasks.context import CURRENT
from tasks.step import run_step
from tasks.turn import turn
from tests.racing import Racer, call, computations, open_context
from tests.seaweedfs import SeaweedFS

RACERS = 3
ROUNDS = int(os.environ.get("FORGETTING_TEST_ROUNDS", "3"))
SHORT_TTL = 3.0


@pytest.fixture(scope="module")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture(scope="module")
def start_racer(s3: SeaweedFS) -> Iterator[Callable[[], Racer]]:
    started = []

    def start() -> Racer:
        started.append(Racer({**os.environ, **s3.environment()}))
        return started[-1]

    yield start
    for racer in started:
        racer.kill()


@pytest.fixture(scope="module")
def racers(start_racer: Callable[[], Racer]) -> list[Racer]:
    racers = [start_racer() for _ in range(RACERS)]
    for racer in racers:
        racer.await_start()
    return racers


def race(racers: list[Racer], url: str, tmp_path: Path, round_: int, ttl: float) -> list[dict[str, Any]]:
    for racer in racers:
        racer.order(url=url, work=str(tmp_path / "work"), folder=str(tmp_path / "traces"), round=round_, ttl=ttl)
    return [racer.answer() for racer in racers]


def commits(url: str) -> list[Commit]:
    return list(open_store(url).commits("trace"))


def test_with_leases_one_computes_and_the_others_adopt(url: str, racers: list[Racer], tmp_path: Path) -> None:
    for round_ in range(ROUNDS):
        answers = race(racers, url, tmp_path, round_, ttl=60)
        assert sorted(answer["state"] for answer in answers) == ["cached", "cached", "ran"]
        assert len({answer["uri"] for answer in answers}) == 1
        assert computations(tmp_path / "traces", round_) == 1
    assert len(commits(url)) == ROUNDS
    assert list(open_objects(url).find("v1/leases")) == []


def test_without_leases_there_is_one_commit_and_one_answer(url: str, racers: list[Racer], tmp_path: Path) -> None:
    for round_ in range(ROUNDS):
        answers = race(racers, url, tmp_path, round_, ttl=0)
        assert len({answer["digest"] for answer in answers}) == 1
        assert 1 <= computations(tmp_path / "traces", round_) <= RACERS
    found = commits(url)
    assert len(found) == ROUNDS
    assert all(open_store(url).exists(commit.uri) for commit in found)


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_who_waits_for_a_killed_holder_takes_over(
    url: str, start_racer: Callable[[], Racer], racers: list[Racer], tmp_path: Path
) -> None:
    holder, waiter = start_racer(), racers[0]
    holder.await_start()
    traces = tmp_path / "traces"
    traces.mkdir()
    (traces / "hold").touch()
    order = {"url": url, "work": str(tmp_path / "work"), "folder": str(traces), "round": 0, "ttl": SHORT_TTL}
    holder.order(**order)
    wait_until(lambda: computations(traces) == 1)
    seen = plan_state(url, traces)
    holder.kill()
    (traces / "hold").unlink()
    waiter.order(**order)
    answer = waiter.answer(timeout=SHORT_TTL + 10)
    assert seen == "running"
    assert answer["state"] == "ran"
    assert computations(traces) == 2
    assert [commit.uri for commit in commits(url)] == [answer["uri"]]
    assert plan_state(url, traces) == "cached"


def test_who_takes_over_closes_the_run_of_a_lost_host_in_mlflow(
    url: str, tmp_path: Path, tracking_uri: str
) -> None:
    def begin(recipe: str) -> Lineage:
        return Lineage.start(tracking_uri, experiment=EXPERIMENT, recipe=recipe)

    lost, released, alive = begin("lost"), begin("released"), begin("alive")
    step = lost.start_step("trace")
    context, _ = open_context(url, tmp_path / "work", ttl=0.3)
    context.lineage = alive
    objects = open_objects(url)

    def take_over(key: str) -> None:
        with turn(context, key, context.leases.candidate("trace", key), lambda: None):
            pass

    assert Leases(objects, 0.3, "dead", lost.run_id).candidate("trace", "a").attempt(), "and nobody renews it"
    lease = Leases(objects, 0.3, "failed", released.run_id).candidate("trace", "b").attempt()
    assert lease is not None
    with pytest.raises(RuntimeError), lease:
        raise RuntimeError
    take_over("a")
    take_over("b")

    client = MlflowClient(tracking_uri)
    runs = {
        name: client.get_run(str(run_id))
        for name, run_id in {
            "lost": lost.run_id,
            "step": step,
            "released": released.run_id,
            "alive": alive.run_id,
        }.items()
    }
    assert {name: run.info.status for name, run in runs.items()} == {
        "lost": "KILLED",
        "step": "KILLED",
        "released": "RUNNING",
        "alive": "RUNNING",
    }
    assert runs["lost"].data.tags[INCOMPLETE_TAG] == (
        "it gave no sign of life any more; the run a-flow-run took over a"
    )
    lost.finish("FINISHED")
    for run_id in (lost.run_id, step):
        run = client.get_run(str(run_id))
        assert run.info.status == "FINISHED", "it lived after all"
        assert INCOMPLETE_TAG not in run.data.tags


def test_a_step_that_is_tried_again_does_not_close_its_own_run(url: str, tmp_path: Path, tracking_uri: str) -> None:
    """The lease that its first attempt could not release, because the store was away, is its own."""
    context, _ = open_context(url, tmp_path / "work", ttl=0.3)
    context.lineage = Lineage.start(tracking_uri, experiment=EXPERIMENT, recipe="again")
    context.leases = Leases(open_objects(url), 0.3, context.flow_run_id, context.lineage.run_id)
    assert context.leases.candidate("trace", "a").attempt(), "and nobody releases it"
    step = context.lineage.start_step("another step")
    with turn(context, "trace", context.leases.candidate("trace", "a"), lambda: None):
        pass
    client = MlflowClient(tracking_uri)
    assert [client.get_run(str(run_id)).info.status for run_id in (context.lineage.run_id, step)] == 2 * ["RUNNING"]


def test_a_lost_run_that_mlflow_does_not_know_stops_nobody(tmp_path: Path, tracking_uri: str) -> None:
    context, _ = open_context(str(tmp_path / "store"), tmp_path / "work", ttl=0.3)
    context.lineage = Lineage.start(tracking_uri, experiment=EXPERIMENT, recipe="alive")
    objects = open_objects(str(tmp_path / "store"))
    assert Leases(objects, 0.3, "dead", "0" * 32).candidate("trace", "a").attempt()
    with turn(context, "trace", context.leases.candidate("trace", "a"), lambda: None) as commit:
        assert commit is None
    assert context.lineage.degraded is None


def plan_state(url: str, traces: Path) -> str:
    wanted, store = call(traces), open_store(url)
    return assess(
        store,
        Leases(open_objects(url), SHORT_TTL),
        Earlier(store),
        step="trace",
        version=1,
        config=wanted.identity,
        inputs={},
        unknown={},
        last=None,
    ).state


def test_a_live_holder_keeps_its_lease_beyond_the_time_to_live(url: str, tmp_path: Path) -> None:
    mine = Leases(open_objects(url), 0.6)
    other = Leases(open_objects(url), 0.6).candidate("trace", "a")
    lease = mine.candidate("trace", "a").attempt()
    assert lease is not None
    with lease:
        for _ in range(30):
            assert other.attempt() is None
            time.sleep(0.05)
        assert other.holder is not None and other.holder.pid == os.getpid()
    taken = other.attempt()
    assert taken is not None


def test_a_lease_whose_holder_failed_is_free_at_once(url: str) -> None:
    leases = Leases(open_objects(url), 60)
    lease = leases.candidate("trace", "a").attempt()
    assert lease is not None
    with pytest.raises(RuntimeError, match="no luck"), lease:
        raise RuntimeError("no luck")
    assert leases.holder("trace", "a") is None
    again = leases.candidate("trace", "a").attempt()
    assert again is not None
    with again:
        assert leases.holder("trace", "a") is not None
    assert list(open_objects(url).find("v1/leases")) == []


def test_a_lease_that_was_taken_over_is_left_alone(url: str, caplog: pytest.LogCaptureFixture) -> None:
    objects = open_objects(url)
    lease = Leases(objects, 0.3).candidate("trace", "a").attempt()
    assert lease is not None
    with lease:
        objects.overwrite("v1/leases/trace/a.json", b"somebody else's")
        wait_until(lambda: "was taken over" in caplog.text)
    assert objects.read("v1/leases/trace/a.json") == b"somebody else's"


def test_swaps_refuse_an_old_version_and_what_is_gone(url: str) -> None:
    objects = open_objects(url)
    objects.create("v1/x", b"one")
    data, version = objects.read_version("v1/x")
    assert data == b"one"
    assert objects.swap("v1/x", b"two", version)
    assert not objects.swap("v1/x", b"three", version)
    assert objects.read("v1/x") == b"two"
    _, version = objects.read_version("v1/x")
    objects.delete("v1/x")
    objects.delete("v1/x")
    assert not objects.swap("v1/x", b"three", version)
    assert list(objects.find("v1/x")) == []


def test_a_stopping_run_stops_waiting(url: str, tmp_path: Path) -> None:
    context, heard = open_context(url, tmp_path / "work")
    context.launcher.stop()
    CURRENT.set(context)
    wanted = call(tmp_path / "traces")
    fingerprint = step_fingerprint("trace", 1, wanted.identity, {})
    lease = Leases(open_objects(url), 60, "the-other-run").candidate("trace", fingerprint).attempt()
    assert lease is not None
    with lease, pytest.raises(StoppedError):
        run_step(wanted, {})
    kinds = [message["kind"] for _, message in heard]
    assert kinds == ["wait", "failed"]
    assert "the-other-run" in heard[0][1]["holder"]
