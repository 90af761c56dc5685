"""A small store with the commits of two runs, the MLflow that recorded them, and `forgetting lineage` on both."""

import hashlib
import json
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from flows.cli import main
from flows.dag import SPECS
from infra.commits import Commit, Input
from infra.digests import content_digest
from infra.lineage import Lineage, Produced
from infra.plan import flatten
from infra.store import Store, open_store
from tasks.records import inputs_of, outputs_of, result_of, tags_of
from tasks.spec import StepCall
from tests.cli import Result
from tests.stores import make_step, write_files

RAW = Input(digest=hashlib.sha256(b"raw").hexdigest(), uri="/data/rows.jsonl")
BASE = Input(digest=hashlib.sha256(b"base").hexdigest(), uri="hf://org/base@abc")
WALKED = ["forget", "partition", "score[reference]", "reference", "score[base]", "split"]


@dataclass
class World:
    """A store, its commits by label, and the MLflow that recorded them."""

    root: Path
    commits: dict[str, Commit]
    tracking_uri: str
    known_root: str
    """Where the store is as MLflow has it."""

    def path(self, label: str, file: str) -> Path:
        """A file of a step's artifact."""
        return self.root / self.commits[label].artifact / file

    def record(self, label: str) -> Path:
        """The file of a step's commit."""
        commit = self.commits[label]
        return self.root / f"v1/commits/{commit.step}/{commit.fingerprint}.json"

    def edit(self, label: str, change: Callable[[dict[str, Any]], object]) -> None:
        """Alter a commit."""
        data = json.loads(self.record(label).read_bytes())
        change(data)
        self.record(label).write_text(json.dumps(data))

    def recorded_at(self, root: str) -> None:
        """Have MLflow say that the store was at `root`."""
        with closing(sqlite3.connect(self.tracking_uri.removeprefix("sqlite:///"))) as database, database:
            tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
            for table in tables:
                for _, column, kind, *_ in database.execute(f"pragma table_info({table})").fetchall():
                    if kind == "TEXT" or kind.startswith("VARCHAR"):
                        query = f'update "{table}" set "{column}" = replace("{column}", ?, ?)'
                        database.execute(
                            f'{query} where "{column}" like ?', (self.known_root, root, f"%{self.known_root}%")
                        )
        self.known_root = root

    def client(self) -> MlflowClient:
        """MLflow's own client."""
        return MlflowClient(self.tracking_uri, registry_uri=self.tracking_uri)


class LineageResult(Result):
    """Of `forgetting lineage`."""

    @property
    def faults(self) -> list[tuple[str, str, str, str]]:
        return [(item["uri"], item["file"], item["expected"], item["found"]) for item in self.document["faults"]]


Command = Callable[..., LineageResult]


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("lineage"))


def make_world(folder: Path) -> World:
    """A world below a folder."""
    store = open_store(str(folder / "store"))
    commits = _pipeline(store, folder)
    world = World(folder / "store", commits, f"sqlite:///{folder / 'mlflow.db'}", str(folder / "store"))
    _record(world)
    return world


def _pipeline(store: Store, folder: Path) -> dict[str, Commit]:
    def out(name: str) -> Path:
        return write_files(folder / name, {f"{name}.bin": name.encode(), "aux/times.json": b"12:00"})

    def part(commit: Commit, name: str) -> Input:
        return Input(digest=commit.outputs[name].digest, uri=commit.output_uri(name))

    rows = write_files(folder / "split", {"train/0.parquet": b"train", "reference/0.parquet": b"reference"})
    split = make_step(store, rows, "split", {"train": RAW, "tokenizer": BASE})
    train = part(split, "train")
    reference = make_step(store, out("reference"), "reference", {"base": BASE, "data": part(split, "reference")})
    scores = {
        "loss_base": make_step(store, out("base"), "score", {"base": BASE, "data": train}, label="score[base]"),
        "loss_reference": make_step(
            store, out("scores"), "score", {"checkpoint": reference, "data": train}, label="score[reference]"
        ),
    }
    config = {"partition": {"rho": "0.7"}}
    partition = make_step(store, out("labels"), "partition", scores, config=config)
    forget = make_step(store, out("model"), "forget", {"base": BASE, "data": train, "token_labels": partition})
    made = (split, reference, *scores.values(), partition, forget)
    return {str(commit.provenance["label"]): commit for commit in made}


def _record(world: World) -> None:
    """What the two runs would have told MLflow and the store: the second finds every step in the store."""
    record_run(world, "first", datetime(2026, 1, 2, 3, tzinfo=UTC), cached=False)
    record_run(world, "second", datetime(2026, 1, 3, 3, tzinfo=UTC), cached=True)


def record_run(world: World, flow_run_id: str, started: datetime, *, cached: bool) -> None:
    """A run that has completed, in MLflow and in the store."""
    lineage = Lineage.start(
        world.tracking_uri,
        experiment="forgetting",
        recipe="demo",
        variant="ρ=0.7",
        tags={"prefect_flow_run_id": flow_run_id},
        started=started,
    )
    for label in world.commits:
        _record_step(world, lineage, label, flow_run_id, started, cached=cached)
    final = world.commits["forget"]
    ending: dict[str, Any] = {"metrics": {"forget/accuracy": 0.5}, "model_tags": {"rho": "0.7"}}
    model = Produced("checkpoint", "model", final.uri, final.digest)
    lineage.finish("FINISHED", final_model=model, **ending)
    record = _run_record(lineage, world.commits, flow_run_id, started) | ending
    store = open_store(str(world.root))
    store.record_run(flow_run_id, record)
    store.write_head("demo", record)


def record_comparison(world: World) -> None:
    """A third run, which compares a model's evaluation and the curves in its artifact: `compare` and `compared`."""
    store, started = open_store(str(world.root)), datetime(2026, 1, 4, 3, tzinfo=UTC)

    def out(name: str, files: dict[str, bytes]) -> Path:
        return write_files(world.root.parent / name, files)

    curves = b'{"lr": 0.1, "step": 1}\n'
    files = {"model.bin": b"another model", "aux/metrics.jsonl": curves}
    trained = make_step(store, out("compared", files), "forget", {"base": BASE, "data": RAW})
    items = make_step(store, out("items", {"items.bin": b"items"}), "evaluate", {"checkpoint": trained})
    uri, sha256 = f"{trained.uri}/aux/metrics.jsonl", hashlib.sha256(curves).hexdigest()
    inputs: dict[str, Commit | Input] = {
        "curves:1,forget": Input(digest=content_digest({"metrics.jsonl": sha256}), uri=uri, files={uri: sha256}),
        "evaluation:1,forget,held_out": items,
    }
    page = out("comparison", {"table.parquet": b"differences", "comparison.html": b"<p>compared</p>"})
    world.commits |= {"compared": trained, "compare": make_step(store, page, "compare", inputs)}
    lineage = Lineage.start(
        world.tracking_uri,
        experiment="forgetting",
        recipe="demo",
        variant="compare",
        tags={"prefect_flow_run_id": "third"},
        started=started,
    )
    _record_step(world, lineage, "compare", "third", started, cached=False)
    lineage.finish("FINISHED")
    steps = {"compare": world.commits["compare"]}
    store.record_run("third", _run_record(lineage, steps, "third", started))


def _run_record(lineage: Lineage, steps: dict[str, Commit], flow_run_id: str, started: datetime) -> dict[str, Any]:
    """What the store keeps of a run that completed."""
    assert lineage.degraded is None
    return {
        "recipe": "demo",
        "flow_run_id": flow_run_id,
        "mlflow_run_id": lineage.run_id,
        "identity": {"name": "demo"},
        "started": started.isoformat(),
        "ended": started.replace(hour=4).isoformat(),
        "status": "FINISHED",
        "finished": True,
        "lineage": lineage.opening,
        "steps": {
            label: {"step": item.step, "fingerprint": item.fingerprint, "artifact": item.artifact}
            for label, item in steps.items()
        },
    }


def _record_step(
    world: World, lineage: Lineage, label: str, flow_run_id: str, started: datetime, *, cached: bool
) -> None:
    """As `tasks.step` does; the commit names the run that made it, and where."""
    commit = world.commits[label]
    known = commit.provenance | {
        "prefect_flow_run_id": flow_run_id,
        "git_commit": "c0ffee" * 6,
        "git_dirty": False,
        "host": "node7",
        "started": started.isoformat(),
        "seconds": 1.5,
    }
    if not cached:
        commit = commit.model_copy(update={"provenance": known})
    run_id = lineage.start_step(
        label,
        inputs=inputs_of(commit),
        params=flatten(commit.payload["config"]),
        fingerprint=commit.fingerprint,
        cached=cached,
        producer_run_id=commit.provenance.get("mlflow_run_id"),
    )
    if not cached:
        world.edit(label, lambda data: data["provenance"].update(known, mlflow_run_id=run_id))
        commit = commit.model_copy(update={"provenance": {**known, "mlflow_run_id": run_id}})
        world.commits[label] = commit
    outputs = outputs_of(result_of(StepCall(label, SPECS[commit.step]), commit, "ran"))
    lineage.finish_step(run_id, outputs=outputs, tags=tags_of(commit), seconds=None if cached else 1.5)


@pytest.fixture
def world(original: World, tmp_path: Path) -> World:
    """A copy to tamper with: a store that was moved, and a database."""
    shutil.copytree(original.root, tmp_path / "store")
    shutil.copyfile(original.tracking_uri.removeprefix("sqlite:///"), tmp_path / "mlflow.db")
    database = f"sqlite:///{tmp_path / 'mlflow.db'}"
    return World(tmp_path / "store", dict(original.commits), database, original.known_root)


@pytest.fixture
def recorded_here(world: World) -> None:
    """The store was not moved since MLflow heard of it."""
    world.recorded_at(str(world.root))


@pytest.fixture
def lineage(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setenv("FORGETTING_STATE_DIR", str(world.root.parent / "state"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", world.tracking_uri)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str, store: str | None = str(world.root)) -> LineageResult:
        given = [] if store is None else ["--store", store]
        monkeypatch.setattr(sys, "argv", ["forgetting", "lineage", *arguments, *given])
        with pytest.raises(SystemExit) as exited:
            main()
        captured = capsys.readouterr()
        return LineageResult(int(exited.value.code or 0), captured.out, captured.err)

    return run
