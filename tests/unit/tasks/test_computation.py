"""What happens around a step's computation: shards, memory that runs out, a training that is taken elsewhere."""

from pathlib import Path

import pytest
import torch

from forgetting_core.config import Config, ExecutionConfig, ScoreConfig
from forgetting_core.errors import InputError, OutOfMemoryError
from forgetting_core.progress import Progress
from infra.sources import Ref
from tasks.child import Job, Summary
from tasks.context import CURRENT, RunContext
from tasks.score import SCORE
from tasks.spec import StepCall, StepSpec
from tasks.step import run_step
from tests.racing import open_context
from tests.tiny import save_model, token_rows, write_rows


class Appetite(Config):
    rows: int
    """Largest micro-batch that fits."""


def devour(job: Job, progress: Progress) -> Summary:
    """As torch fails on a GPU, and on the CPU."""
    size = job.execution.micro_batch
    if isinstance(size, str):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    if size > job.config["appetite"].rows:
        torch.empty(2**60)
    (job.out / "data.bin").write_bytes(b"done")
    return {"micro_batch": size}


DEVOUR = StepSpec("devour", version=1, compute=devour)


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    context, _ = open_context(str(tmp_path / "store"), tmp_path / "work")
    CURRENT.set(context)
    return context


def execute(context: RunContext, **execution: object) -> None:
    context.recipe = context.recipe.model_copy(update={"execution": ExecutionConfig(device="cpu", **execution)})


def test_a_step_that_runs_out_of_memory_goes_on_with_smaller_micro_batches(context: RunContext) -> None:
    result = run_step(StepCall("devour", DEVOUR, {"appetite": Appetite(rows=1)}), {})
    assert result.summary == {"micro_batch": 1}


def test_a_commit_names_the_micro_batch_that_was_used(context: RunContext) -> None:
    run_step(StepCall("devour", DEVOUR, {"appetite": Appetite(rows=1)}), {})
    (commit,) = context.store.commits("devour")
    assert commit.provenance["execution"]["micro_batch"] == 1


def test_a_step_that_does_not_fit_at_all_says_so(context: RunContext) -> None:
    with pytest.raises(OutOfMemoryError, match="out of memory"):
        run_step(StepCall("devour", DEVOUR, {"appetite": Appetite(rows=0)}), {})


def test_a_micro_batch_that_is_part_of_the_result_is_not_changed(context: RunContext) -> None:
    execute(context, micro_batch=4)
    call = StepCall("devour", DEVOUR, {"appetite": Appetite(rows=1), "execution": Appetite(rows=4)})
    with pytest.raises(OutOfMemoryError):
        run_step(call, {})


def test_a_scoring_in_shards_is_the_scoring_at_once(context: RunContext, tmp_path: Path) -> None:
    base = Ref("base", "b" * 64, "model", (save_model(tmp_path / "base"),))
    data = tmp_path / "data"
    data.mkdir()
    rows = Ref("data", "d" * 64, "data", (write_rows(token_rows(23), data),))
    call = StepCall("score[base]", SCORE, {"score": ScoreConfig(dtype="float32", block_rows=5)})
    digests = []
    for shards in (3, 1):
        execute(context, score_shards=shards, concurrent_steps=2)
        result = run_step(call, {"base": base, "data": rows})
        assert result.state == "ran"
        digests.append(result.ref.digest)
        made = [commit.provenance["label"] for commit in context.store.commits("score-shard")]
        assert sorted(made) == ["score[base] 1/3", "score[base] 2/3", "score[base] 3/3"]
        context.used.clear()
        context.store.objects.delete_folder("v1/commits/score")
    assert digests[0] == digests[1]


def shard_artifacts(context: RunContext) -> set[str]:
    return {commit.artifact for commit in context.store.commits("score-shard")}


def scoring(tmp_path: Path) -> tuple[StepCall, dict[str, Ref]]:
    data = tmp_path / "data"
    data.mkdir()
    inputs = {
        "base": Ref("base", "b" * 64, "model", (save_model(tmp_path / "base"),)),
        "data": Ref("data", "d" * 64, "data", (write_rows(token_rows(23), data),)),
    }
    return StepCall("score[base]", SCORE, {"score": ScoreConfig(dtype="float32", block_rows=5)}), inputs


def test_a_refreshed_scoring_scores_its_shards_again(context: RunContext, tmp_path: Path) -> None:
    call, inputs = scoring(tmp_path)
    execute(context, score_shards=2)
    run_step(call, inputs)
    before = shard_artifacts(context)
    context.used.clear()
    assert run_step(call, inputs, refresh=True).state == "ran"
    assert not shard_artifacts(context) & before


def test_a_scoring_that_fails_leaves_no_shards_in_the_runs_record(context: RunContext, tmp_path: Path) -> None:
    call, inputs = scoring(tmp_path)
    broken = tmp_path / "broken"
    broken.mkdir()
    execute(context, score_shards=2)
    with pytest.raises(InputError):
        run_step(call, {**inputs, "base": Ref("base", "e" * 64, "model", (broken,))})
    assert context.run_record()["steps"] == {}
