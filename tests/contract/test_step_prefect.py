"""Steps as Prefect runs them: the state `Cached`, Prefect's own ways to ask for a refresh, and a second walk."""

import base64
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.results import ResultRecord, ResultRecordMetadata
from prefect.serializers import PickleSerializer
from prefect.settings import (
    PREFECT_LOCAL_STORAGE_PATH,
    PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW,
    PREFECT_RESULTS_DEFAULT_SERIALIZER,
    PREFECT_RESULTS_PERSIST_BY_DEFAULT,
    PREFECT_TASKS_DEFAULT_PERSIST_RESULT,
    PREFECT_TASKS_DEFAULT_RETRIES,
    PREFECT_TASKS_REFRESH_CACHE,
    temporary_settings,
)

import tests.racing
from flows.submitting import run_steps
from forgetting_core.errors import InputError
from infra.commits import Commit
from infra.launch import ChildDiedError, StoppedError
from infra.objects import StoreError, UnavailableError
from infra.settings import Settings
from infra.store import Store
from infra.urls import open_objects
from tasks.context import CURRENT, RunContext
from tasks.step import as_task
from tests.planted import Planted
from tests.racing import TRACE, call, computations, open_context

pytestmark = pytest.mark.usefixtures("prefect_server")


def begin(tmp_path: Path) -> RunContext:
    context, _ = open_context(str(tmp_path / "store"), tmp_path / "work")
    CURRENT.set(context)
    return context


def states(tmp_path: Path, **options: Any) -> list[str]:
    """Run one step as a task in a flow; the name of its final state."""

    @flow(persist_result=False)
    def alone() -> list[str]:
        future = as_task(TRACE).with_options(**options).submit(call(tmp_path / "traces"), {})
        future.wait()
        return [future.state.name]

    begin(tmp_path)
    return alone()


def test_prefect_shows_a_hit_as_cached_and_can_ask_for_a_refresh(tmp_path: Path) -> None:
    assert states(tmp_path) == ["Completed"]
    assert states(tmp_path) == ["Cached"]
    assert states(tmp_path, refresh_cache=True) == ["Completed"]
    with temporary_settings({PREFECT_TASKS_REFRESH_CACHE: True}):
        assert states(tmp_path) == ["Completed"]
        assert states(tmp_path, refresh_cache=False) == ["Cached"]
    assert states(tmp_path) == ["Cached"]
    assert computations(tmp_path / "traces") == 3


def stored_result(planted: Planted) -> bytes:
    """As Prefect stores a result: JSON around a pickle."""
    metadata = ResultRecordMetadata(serializer=PickleSerializer(), storage_key="known")
    document = json.loads(ResultRecord(metadata=metadata, result=None).serialize())
    return json.dumps(document | {"result": base64.b64encode(planted.pickle).decode()}).encode()


@pytest.mark.security("pickles in the store and in Prefect's results")
def test_prefect_stores_no_result_and_unpickles_none_whatever_its_settings_say(tmp_path: Path) -> None:
    results, planted = tmp_path / "results", Planted(tmp_path)
    hostile = {
        PREFECT_LOCAL_STORAGE_PATH: results,
        PREFECT_RESULTS_PERSIST_BY_DEFAULT: True,
        PREFECT_RESULTS_DEFAULT_SERIALIZER: "pickle",
        PREFECT_TASKS_DEFAULT_PERSIST_RESULT: True,
        PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW: "ignore",
    }

    @task(cache_key_fn=lambda context, arguments: "known")
    def careless() -> None:
        """A task as Prefect makes it by default."""

    with temporary_settings(hostile):
        assert states(tmp_path) == ["Completed"]
        assert states(tmp_path) == ["Cached"]
        assert not results.exists() or list(results.iterdir()) == []
        results.mkdir(exist_ok=True)
        (results / "known").write_bytes(stored_result(planted))
        with pytest.raises(FileExistsError):  # Prefect unpickles it twice: to see that it is there, and to have it
            careless()
    assert planted.sprung, "the trap works"
    step = as_task(TRACE)
    assert step.cache_policy == NO_CACHE and step.persist_result is False


@pytest.mark.security("pickles in the store and in Prefect's results")
@pytest.mark.parametrize("name", ["forgetting", "compare", "sweep", "pool_compare", "pool_sweep"])
def test_no_flow_stores_its_result(name: str) -> None:
    flows_of = [value for value in vars(import_module(f"flows.{name}")).values() if isinstance(value, Flow)]
    assert flows_of and all(item.persist_result is False for item in flows_of)


@pytest.mark.parametrize(
    ("failure", "final"),
    [
        (UnavailableError("SlowDown"), "Completed"),
        (StoreError("the commit is damaged"), "Failed"),
        (InputError("train.jsonl, row 3: no response"), "Failed"),
        (StoppedError("interrupted"), "Failed"),
        (ChildDiedError(1), "Failed"),
    ],
    ids=lambda value: "" if isinstance(value, str) else type(value).__name__,
)
def test_a_step_is_tried_again_only_when_the_store_was_out_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, final: str
) -> None:
    asked: list[str] = []

    class FailsOnce(Store):
        def lookup(self, step: str, fingerprint: str) -> Commit | None:
            asked.append(fingerprint)
            if len(asked) == 1:
                raise failure
            return super().lookup(step, fingerprint)

    monkeypatch.setattr(tests.racing, "open_store", lambda url: FailsOnce(open_objects(url)))
    with temporary_settings({PREFECT_TASKS_DEFAULT_RETRIES: 2}):
        assert states(tmp_path) == [final]
    tried_again = final == "Completed"
    assert bool(asked[1:]) == tried_again
    assert computations(tmp_path / "traces") == tried_again


def test_a_flow_looks_everything_up_again_when_an_evicted_step_came_out_differently(tmp_path: Path) -> None:
    traces = tmp_path / "traces"

    def dag(to: Any) -> None:
        above = to.step(call(traces, 0, label="above"), {})
        to.step(call(traces, 1, label="below"), {"data": above})
        to.step(call(traces, below, label="other"), {"data": above})

    @flow(persist_result=False)
    def walked(context: Any) -> dict[str, Any]:
        return run_steps(context, Settings.from_environment(store=str(tmp_path / "store")), dag).steps

    below = 2
    first = walked(begin(tmp_path))
    context = begin(tmp_path)
    for file in (tmp_path / "store" / first["above"].ref.uri).iterdir():
        file.unlink()
    assert {label: result.state for label, result in walked(context).items()} == {
        "above": "evicted",
        "below": "cached",
        "other": "cached",
    }
    below = 3
    again = walked(begin(tmp_path))
    assert {label: result.state for label, result in again.items()} == {
        "above": "ran",
        "below": "ran",
        "other": "ran",
    }
    assert again["above"].ref.digest != first["above"].ref.digest
    assert [computations(traces, number) for number in range(4)] == [2, 2, 1, 1]


def test_a_store_that_fails_is_the_cause_of_the_failed_run(tmp_path: Path) -> None:
    assert states(tmp_path) == ["Completed"]
    (commit,) = (tmp_path / "store/v1/commits/trace").iterdir()
    commit.write_bytes(b"{}")

    @flow(persist_result=False)
    def fails() -> None:
        as_task(TRACE).submit(call(tmp_path / "traces"), {}).result()

    begin(tmp_path)
    with pytest.raises(StoreError, match="damaged"):
        fails()
    assert computations(tmp_path / "traces") == 1
