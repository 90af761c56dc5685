"""A training whose memory runs out in the middle of a step goes on at that very step, in smaller parts."""

import hashlib
import json
import re
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig

from forgetting_core.config import ExecutionConfig, ForgetConfig
from forgetting_core.errors import Interrupted, OutOfMemoryError
from forgetting_core.metrics_file import METRICS_FILE
from forgetting_core.partition import LABELS_FILE
from forgetting_core.progress import Progress
from forgetting_core.tables import LABEL_SCHEMA, list_array, write_parquet
from forgetting_core.training import fine_tune
from infra.sources import Ref
from tasks.child import Job, Summary
from tasks.context import CURRENT
from tasks.forget import compute
from tasks.spec import StepCall, StepSpec
from tasks.step import run_step
from tests.racing import open_context
from tests.tiny import SHAPE, save_model, token_rows, write_rows
from tests.unit.forgetting_core.test_training import StopAfter, difference

VOCABULARY = 32000
"""So large that the logits of a whole step, some 100 MB, are what memory runs out for."""
ROWS, STEP, FIRST = 48, 24, 2
"""Rows, rows of a step and of its micro-batch, and optimizer steps before memory is scarce."""
HEADROOM = 64 * 2**20
CONFIG = ForgetConfig(
    mode="full", learning_rate=1e-3, rows_per_step=STEP, warmup_ratio=0, dtype="float64", epochs=2
)


def cramped(job: Job, progress: Progress) -> Summary:
    """The step `forget` on a host whose memory is nearly all taken once `FIRST` optimizer steps are done."""
    tell = progress.log

    def log(step: int, metrics: dict[str, float], milliseconds: int) -> None:
        tell(step, metrics, milliseconds)
        if step == FIRST and job.execution.micro_batch == STEP:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + HEADROOM
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    progress.log = log  # type: ignore[method-assign]
    return compute(job, progress)


CRAMPED = StepSpec("cramped", version=1, compute=cramped, kind="model", on_device=True, trains=True)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    rows = token_rows(ROWS, longest=60)
    folders = {name: tmp_path_factory.mktemp(name) for name in ("base", "data", "token_labels")}
    save_model(folders["base"])
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(LlamaConfig(**{**SHAPE, "vocab_size": VOCABULARY})).save_pretrained(
        folders["base"]
    )
    write_rows(rows, folders["data"])
    sign = np.where(np.arange(len(rows.input_ids)) % 3 == 0, -1, 1) * rows.response_mask()
    columns = [pa.array(range(ROWS), pa.int64()), list_array(sign.astype(np.int8), rows.offsets, pa.int8())]
    table = pa.Table.from_arrays(columns, schema=LABEL_SCHEMA)
    write_parquet(folders["token_labels"] / LABELS_FILE, [table], LABEL_SCHEMA)
    return folders


def train(inputs: dict[str, Path], out: Path, micro_batch: int, progress: Progress | None = None) -> dict[str, Any]:
    out.mkdir(exist_ok=True)
    return fine_tune(
        CONFIG,
        **inputs,
        base_digest="0" * 64,
        out=out,
        work=out.with_name(f"{out.name}-work"),
        execution=ExecutionConfig(device="cpu", micro_batch=micro_batch),
        progress=progress or Progress(),
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def losses(folder: Path) -> dict[int, tuple[float, float]]:
    lines = map(json.loads, (folder / "aux" / METRICS_FILE).read_text().splitlines())
    return {line["step"]: (line["loss_positive"], line["loss_negative"]) for line in lines}


def test_a_training_that_runs_out_of_memory_goes_on_at_the_same_step(
    inputs: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where the curves' database, which nobody reads, comes to lie
    context, heard = open_context(str(tmp_path / "store"), tmp_path / "work")
    CURRENT.set(context)
    execution = ExecutionConfig(device="cpu", micro_batch=STEP)
    context.recipe = context.recipe.model_copy(update={"execution": execution})
    refs = {
        name: Ref(name, hashlib.sha256(name.encode()).hexdigest(), "data", (folder,))
        for name, folder in inputs.items()
    }
    result = run_step(StepCall("cramped", CRAMPED, {"forget": CONFIG}), refs)

    assert re.search(r"out of memory: .*; going on with execution.micro_batch 12", caplog.text)
    notes = [message["message"] for _, message in heard if message["kind"] == "note"]
    assert f"resumed after optimizer step {FIRST} of 4" in notes
    (commit,) = context.store.commits("cramped")
    assert commit.provenance["execution"]["micro_batch"] == STEP // 2

    found = Path(result.ref.uri)
    undisturbed = train(inputs, tmp_path / "undisturbed", STEP // 2)
    for counts in ("positive_tokens", "negative_tokens", "tokens", "steps"):
        assert result.summary[counts] == undisturbed[counts]
    assert difference(weights(found), weights(tmp_path / "undisturbed")) < 1e-10
    expected = losses(tmp_path / "undisturbed")
    assert losses(found).keys() == expected.keys() == {1, 2, 3, 4}
    for step, values in losses(found).items():
        assert values == pytest.approx(expected[step], abs=1e-10)

    with pytest.raises(Interrupted):
        train(inputs, tmp_path / "cut", STEP, StopAfter(FIRST))
    train(inputs, tmp_path / "cut", STEP // 2)
    assert difference(weights(found), weights(tmp_path / "cut")) == 0


def test_memory_that_runs_out_in_the_update_itself_leaves_no_checkpoint_of_it(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then some of the moments have moved: the step has to be done again from a checkpoint before it."""

    def run_out(*_: Any, **__: Any) -> None:
        torch.empty(2**60)

    monkeypatch.setattr(torch.optim.AdamW, "step", run_out)
    with pytest.raises(RuntimeError, match="memory") as caught:
        train(inputs, tmp_path / "out", STEP)
    assert not isinstance(caught.value, OutOfMemoryError)
    assert not list((tmp_path / "out-work").glob("step-*"))
