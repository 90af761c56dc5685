"""Training in several ranks: the same weights, one way to stop, and nobody left behind."""

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from forgetting_core.config import ExecutionConfig, ExecutionIdentity, ForgetConfig, LoraConfig
from forgetting_core.errors import Interrupted, NumericalError
from forgetting_core.metrics_file import VALIDATION_LOSS
from forgetting_core.partition import LABELS_FILE
from forgetting_core.progress import Progress
from forgetting_core.tables import LABEL_SCHEMA, list_array, write_parquet
from infra.launch import Channel, Launcher
from tasks.child import Job, run_job
from tasks.context import PRELOAD
from tasks.forget import compute
from tasks.ranks import RanksDiedError, _encode, decode, run_in_ranks
from tests.tiny import save_model, token_rows, write_rows

ROWS = 20
"""Not a multiple of the rows of a step: the last step has two rows, fewer than three ranks."""
LORA = LoraConfig(r=4, alpha=8, dropout=0.1)
WEIGHTS = {"full": "model.safetensors", "lora": "adapter_model.safetensors"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, ...]]:
    rows = token_rows(ROWS)
    folder = tmp_path_factory.mktemp("labels")
    sign = np.where(np.arange(len(rows.input_ids)) % 3 == 0, -1, 1) * rows.response_mask()
    columns = [pa.array(range(len(rows)), pa.int64()), list_array(sign.astype(np.int8), rows.offsets, pa.int8())]
    write_parquet(folder / LABELS_FILE, [pa.Table.from_arrays(columns, schema=LABEL_SCHEMA)], LABEL_SCHEMA)
    return {
        "base": (save_model(tmp_path_factory.mktemp("base")),),
        "data": (write_rows(rows, tmp_path_factory.mktemp("data")),),
        "token_labels": (folder,),
        "validation": (write_rows(token_rows(7, seed=9), tmp_path_factory.mktemp("validation")),),
    }


@pytest.fixture(scope="module")
def launcher() -> Launcher:
    return Launcher(4, PRELOAD)


def job(inputs: dict[str, tuple[Path, ...]], folder: Path, *, ranks: int = 1, **settings: Any) -> Job:
    sharding = settings.pop("sharding", "none")
    again = settings.pop("gradient_checkpointing", False)
    shape = {"rows_per_step": 6, "learning_rate": 1e-2, "warmup_ratio": 0.3, "dtype": "float32", "mode": "full"}
    config = ForgetConfig(objective="forget", **(shape | settings))
    execution = ExecutionConfig(
        device="cpu", micro_batch=2, processes=ranks, sharding=sharding, gradient_checkpointing=again
    )
    (folder / "out").mkdir(parents=True)
    return Job(compute, {"forget": config}, inputs, {"base": "0" * 64}, folder / "out", folder / "work", execution)


def run(launcher: Launcher, item: Job, listener: Callable[[dict[str, Any]], None] = lambda message: None) -> Any:
    return launcher.run(run_in_ranks if item.execution.processes > 1 else run_job, item, listener)


def run_in_ranks_beside_other_tasks(item: Job, channel: Channel) -> Any:
    """As from the folder of a user who has a `tasks.py`."""
    item.work.mkdir()
    os.chdir(item.work)
    Path("tasks.py").write_text("raise RuntimeError('not this one')")
    return run_in_ranks(item, channel)


def run_here(item: Job) -> None:
    """In this process, whose state accelerate keeps otherwise."""
    AcceleratorState._reset_state(reset_partial_state=True)
    compute(item, Progress())
    AcceleratorState._reset_state(reset_partial_state=True)


def weights(item: Job) -> dict[str, torch.Tensor]:
    return load_file(item.out / WEIGHTS[item.config["forget"].mode])


def furthest(one: Job, other: Job) -> float:
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def validation_losses(item: Job) -> dict[int, float]:
    """By optimizer step."""
    lines = map(json.loads, (item.out / "aux/metrics.jsonl").read_text().splitlines())
    return {line["step"]: line[VALIDATION_LOSS] for line in lines if VALIDATION_LOSS in line}


def test_a_rank_gets_the_job_as_it_was(inputs: dict[str, tuple[Path, ...]], tmp_path: Path) -> None:
    item = job(inputs, tmp_path, ranks=2)
    item.config["execution"] = ExecutionIdentity(micro_batch=2, trust_remote_code=True)
    assert decode(_encode(item)) == item


def test_ranks_run_our_modules_whatever_is_in_the_current_folder(
    launcher: Launcher, inputs: dict[str, tuple[Path, ...]], tmp_path: Path
) -> None:
    item = job(inputs, tmp_path, ranks=2)
    assert launcher.run(run_in_ranks_beside_other_tasks, item, lambda message: None)["steps"] > 0


@pytest.mark.parametrize(
    ("ranks", "settings"),
    [
        pytest.param(2, {"mode": "full", "eval_steps": 2}, id="two"),
        pytest.param(2, {"mode": "lora", "lora": LORA, "sharding": "fsdp", "eval_steps": 1}, id="sharded-lora"),
        pytest.param(3, {"mode": "full", "max_grad_norm": 0.5}, id="three", marks=pytest.mark.slow),
        pytest.param(2, {"mode": "lora", "lora": LORA}, id="lora-with-dropout", marks=pytest.mark.slow),
        pytest.param(
            2,
            {"mode": "full", "sharding": "fsdp", "gradient_checkpointing": True},
            id="sharded",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_ranks_train_to_the_weights_of_one_process(
    launcher: Launcher, inputs: Any, tmp_path: Path, ranks: int, settings: dict[str, Any]
) -> None:
    alone = job(inputs, tmp_path / "alone", **settings)
    together = job(inputs, tmp_path / "together", ranks=ranks, **settings)
    expected, summary = run(launcher, alone), run(launcher, together)

    assert furthest(alone, together) < 1e-5
    for count in ("steps", "tokens", "positive_tokens", "negative_tokens"):
        assert summary[count] == expected[count]
    for curve in ("final_loss_positive", "final_loss_negative"):
        assert summary[curve] == pytest.approx(expected[curve], rel=1e-5)
    assert validation_losses(together) == pytest.approx(validation_losses(alone), rel=1e-5)
    assert bool(validation_losses(alone)) == ("eval_steps" in settings)
    names = {path.relative_to(alone.out) for path in alone.out.rglob("*")}
    assert {path.relative_to(together.out) for path in together.out.rglob("*")} == names


def test_what_accelerate_is_told_elsewhere_changes_no_result(
    inputs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    told = job(inputs, tmp_path / "told")
    run_here(told)
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
    plain = job(inputs, tmp_path / "plain")
    run_here(plain)
    assert furthest(told, plain) == 0


@pytest.mark.parametrize("sharding", ["none", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_stopped_ranks_resume_and_end_with_the_very_weights(
    launcher: Launcher, inputs: Any, tmp_path: Path, sharding: str
) -> None:
    undisturbed = job(inputs, tmp_path / "undisturbed", ranks=2, epochs=4, sharding=sharding)
    run(launcher, undisturbed)

    disturbed = job(inputs, tmp_path / "disturbed", ranks=2, epochs=4, sharding=sharding)
    stopping = Launcher(1, [])

    def stop_early(message: dict[str, Any]) -> None:
        if message["kind"] == "log" and message["step"] == 5:
            stopping.stop()

    with pytest.raises(Interrupted):
        run(stopping, disturbed, stop_early)
    saved = [path.name for path in disturbed.work.glob("step-*")]
    assert len(saved) == 1
    notes: list[str] = []
    run(launcher, disturbed, lambda message: notes.append(str(message.get("message"))))

    assert any("resumed after optimizer step" in note for note in notes)
    assert furthest(undisturbed, disturbed) == 0


@pytest.mark.slow
def test_a_training_goes_on_with_another_number_of_ranks(launcher: Launcher, inputs: Any, tmp_path: Path) -> None:
    alone = job(inputs, tmp_path / "alone", epochs=3)
    run(launcher, alone)
    moved = job(inputs, tmp_path / "moved", ranks=2, epochs=3, sharding="fsdp")
    stopping = Launcher(1, [])
    with pytest.raises(Interrupted):
        run(stopping, moved, lambda message: stopping.stop() if message["kind"] == "log" else None)
    single = Job(**{**vars(moved), "execution": alone.execution})
    run(launcher, single)
    assert furthest(alone, single) < 1e-5


def test_what_a_rank_raises_reaches_the_run_and_ends_the_others(
    launcher: Launcher, inputs: Any, tmp_path: Path
) -> None:
    diverging = job(inputs, tmp_path, ranks=2, learning_rate=1e30, epochs=3)
    with pytest.raises(NumericalError, match=r"optimizer step \d+ is"):
        run(launcher, diverging)
    assert ranks_of(diverging) == []


@pytest.mark.parametrize(
    "victim",
    ["rank", pytest.param("child", marks=pytest.mark.slow), pytest.param("launcher", marks=pytest.mark.slow)],
)
def test_no_rank_survives_a_kill(launcher: Launcher, inputs: Any, tmp_path: Path, victim: str) -> None:
    endless = job(inputs, tmp_path, ranks=2, epochs=100000)
    training = threading.Event()

    def on_message(message: dict[str, Any]) -> None:
        if message["kind"] == "log":
            training.set()

    failures: list[BaseException] = []

    def attempt() -> None:
        try:
            run(launcher, endless, on_message)
        except RuntimeError as error:
            failures.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    assert training.wait(60)
    ranks = ranks_of(endless)
    assert len(ranks) == 2
    launch = ranks[0].parent()
    assert launch is not None
    doomed = {"rank": ranks[0], "launcher": launch, "child": launch.parent()}[victim]
    assert doomed is not None
    os.kill(doomed.pid, signal.SIGKILL)
    thread.join(60)

    assert len(failures) == 1
    if victim != "child":
        assert isinstance(failures[0], RanksDiedError)
    _, alive = psutil.wait_procs([*ranks, launch], timeout=30)
    assert not alive


def ranks_of(item: Job) -> list[psutil.Process]:
    path = str(item.work / "job.json")
    found = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
        except psutil.Error:
            continue
        if path in line and "tasks.rank" in line and "accelerate.commands.launch" not in line:
            found.append(process)
    return found
