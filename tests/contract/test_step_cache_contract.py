"""What a step does when its artifact is gone, when it is to be refreshed, and when the store fails."""

import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from infra.fingerprint import step_fingerprint
from infra.objects import StoreError
from infra.urls import open_objects
from tasks.context import CURRENT, RunContext
from tasks.spec import StepResult
from tasks.step import RegeneratedError, run_step
from tests.racing import call, computations, open_context
from tests.seaweedfs import BUCKET, SeaweedFS


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    return tmp_path / "traces"


def begin(url: str, tmp_path: Path) -> RunContext:
    """A new run on the same store."""
    context, _ = open_context(url, tmp_path / "work")
    CURRENT.set(context)
    return context


def evict(url: str, result: StepResult) -> None:
    objects = open_objects(url)
    for stored in list(objects.find(result.ref.uri.removeprefix(f"{objects.root}/"))):
        objects.delete(stored.key)


def run_two(traces: Path, *, random: bool, below: int = 1) -> tuple[StepResult, StepResult]:
    """A step, and number `below` of the steps that read it."""
    above = run_step(call(traces, 0, label="above", random=random), {})
    return above, run_step(call(traces, below, label="below"), {"data": (above, None)})


def test_an_evicted_step_is_not_computed_while_nothing_needs_it(
    url: str, tmp_path: Path, traces: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begin(url, tmp_path)
    evict(url, run_two(traces, random=True)[0])
    begin(url, tmp_path)
    above, below = run_two(traces, random=True)
    assert (above.state, below.state) == ("evicted", "cached")
    assert "is gone; nothing needs it yet" in caplog.text
    assert [computations(traces, number) for number in (0, 1)] == [1, 1]


def test_an_evicted_step_is_computed_again_once_for_the_steps_that_need_it(
    url: str, tmp_path: Path, traces: Path
) -> None:
    begin(url, tmp_path)
    first, _ = run_two(traces, random=False)
    evict(url, first)
    context = begin(url, tmp_path)
    _, below = run_two(traces, random=False, below=2)
    _, other = run_two(traces, random=False, below=3)
    above = context.used["above"]
    assert (above.state, below.state, other.state) == ("ran", "ran", "ran")
    assert above.ref.digest == first.ref.digest
    assert [computations(traces, number) for number in range(4)] == [2, 1, 1, 1]
    commit = context.store.lookup("trace", above.fingerprint)
    assert commit is not None and commit.uri == above.ref.uri != first.ref.uri
    history = list(open_objects(url).find(f"v1/history/trace/{above.fingerprint}"))
    assert [stored.key.rsplit("/", 1)[1] for stored in history] == [f"{first.ref.uri.rsplit('/', 1)[1]}.json"]


def test_an_evicted_step_that_comes_out_differently_is_reported_and_the_steps_below_run_again(
    tmp_path: Path, traces: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = str(tmp_path / "store")
    begin(url, tmp_path)
    first, _ = run_two(traces, random=True)
    evict(url, first)
    context = begin(url, tmp_path)
    with pytest.raises(RegeneratedError, match=first.ref.digest) as caught:
        run_two(traces, random=True, below=2)
    made = context.used["above"].ref.digest
    assert made in str(caught.value)
    assert f"content digest {first.ref.digest} before, {made} now" in caplog.text
    above, below = run_two(traces, random=True, below=2)  # as the flow walks again
    assert (above.ref.digest, below.state) == (made, "ran")
    _, old = run_two(traces, random=True, below=1)
    assert old.state == "ran"
    assert [computations(traces, number) for number in range(3)] == [2, 2, 1]


def test_a_file_that_is_missing_behind_a_sound_manifest_is_an_eviction_too(
    url: str, tmp_path: Path, traces: Path
) -> None:
    context = begin(url, tmp_path)
    first, _ = run_two(traces, random=False)
    open_objects(url).delete(f"{first.ref.uri.removeprefix(f'{context.store.root}/')}/data.bin")
    context = begin(url, tmp_path)
    shutil.rmtree(context.staged_dir, ignore_errors=True)
    _, below = run_two(traces, random=False, below=2)
    assert (context.used["above"].state, below.state) == ("ran", "ran")
    assert computations(traces) == 2


def test_what_a_run_delivers_is_computed_again_at_once(tmp_path: Path, traces: Path) -> None:
    url = str(tmp_path / "store")
    begin(url, tmp_path)
    evict(url, run_step(call(traces, delivered=True), {}))
    context = begin(url, tmp_path)
    result = run_step(call(traces, delivered=True), {})
    assert result.state == "ran"
    assert context.store.exists(result.ref.uri)


def test_a_refresh_computes_again_and_keeps_the_old_commit(url: str, tmp_path: Path, traces: Path) -> None:
    begin(url, tmp_path)
    first = run_step(call(traces), {})
    context = begin(url, tmp_path)
    second = run_step(call(traces), {}, refresh=True)
    assert (second.state, computations(traces)) == ("ran", 2)
    commit = context.store.lookup("trace", first.fingerprint)
    assert commit is not None and commit.digest == second.ref.digest != first.ref.digest
    assert len(list(open_objects(url).find("v1/history"))) == 1


def test_of_two_replacements_the_second_adopts_the_first(url: str, tmp_path: Path, traces: Path) -> None:
    context = begin(url, tmp_path)
    result = run_step(call(traces), {})
    old = context.store.lookup("trace", result.fingerprint)
    assert old is not None
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "data.bin").write_bytes(b"new")
    records = []
    for _ in range(2):
        artifact = context.store.publish("trace", folder)
        changes = {"artifact": artifact.uri.removeprefix(f"{context.store.root}/"), "digest": artifact.digest}
        records.append(old.model_copy(update=changes))
    winner, loser = (context.store.replace(old, record) for record in records)
    assert (winner.adopted, loser.adopted) == (False, True)
    assert winner.artifact == loser.artifact == records[0].artifact
    assert len(list(open_objects(url).find("v1/history"))) == 1


def assert_fails_without_computing(url: str, tmp_path: Path, traces: Path, message: str) -> None:
    context = begin(url, tmp_path)
    started = []
    context.launcher.run = lambda *arguments: started.append(arguments)  # type: ignore[method-assign]
    with pytest.raises(StoreError, match=message) as caught:
        run_step(call(traces), {})
    assert caught.value.__cause__ is not None
    assert started == []
    assert computations(traces) == 1


def test_a_server_that_is_stopped_refuses_or_is_overloaded_fails_the_step_and_nothing_is_computed(
    s3_environment: dict[str, str],
    overloaded: str,
    tmp_path: Path,
    traces: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = SeaweedFS(tmp_path / "server")
    server.start()
    url = f"s3://{BUCKET}/store"
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint_url)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        begin(url, tmp_path)
        assert run_step(call(traces), {}).state == "ran"
        begin(url, tmp_path)
        assert run_step(call(traces), {}).state == "cached"
        with monkeypatch.context() as wrong_key:
            wrong_key.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
            assert_fails_without_computing(url, tmp_path, traces, "AWS_SECRET_ACCESS_KEY")
    finally:
        server.stop()
    assert_fails_without_computing(url, tmp_path, traces, "cannot be reached")
    monkeypatch.setenv("AWS_ENDPOINT_URL", overloaded)
    assert_fails_without_computing(url, tmp_path, traces, "overloaded")


@pytest.fixture
def overloaded() -> Iterator[str]:
    """A server that answers 503 to everything."""

    class Overloaded(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_PUT = do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Overloaded)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_damaged_commit_fails_the_step_and_nothing_is_computed(tmp_path: Path, traces: Path) -> None:
    url = str(tmp_path / "store")
    begin(url, tmp_path)
    run_step(call(traces), {})
    fingerprint = step_fingerprint("trace", 1, call(traces).identity, {})
    open_objects(url).overwrite(f"v1/commits/trace/{fingerprint}.json", b"{}")
    assert_fails_without_computing(url, tmp_path, traces, "damaged")
