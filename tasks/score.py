"""score: token losses of the train split under one model; used for the base and for the reference."""

from dataclasses import replace
from pathlib import Path

from forgetting_core.config import Config, ExecutionConfig, ScoreConfig
from forgetting_core.progress import Progress
from tasks.child import Job, Summary
from tasks.shards import SHARDS_INPUT
from tasks.spec import StepCall, StepSpec


class Shard(Config):
    """Rows of the train split: whole blocks."""

    first: int
    stop: int
    """The one after the last."""


def compute(job: Job, progress: Progress) -> Summary:
    """See `forgetting_core.scoring.score_split` and, for shards that are there, `merge_shards`."""
    from forgetting_core.models import check_adapter
    from forgetting_core.scoring import merge_shards, score_split

    if SHARDS_INPUT in job.inputs:
        return merge_shards(job.inputs[SHARDS_INPUT], out=job.out)
    check_adapter(job.optional("checkpoint"), job.digests["base"])
    return score_split(
        job.config["score"],
        base=job.path("base"),
        checkpoint=job.optional("checkpoint"),
        data=job.path("data"),
        out=job.out,
        execution=job.execution,
        progress=progress,
        only=range(job.config["shard"].first, job.config["shard"].stop) if "shard" in job.config else None,
    )


def shards(call: StepCall, data: Path, execution: ExecutionConfig) -> list[StepCall]:
    """The shards of a scoring, at most `execution.score_shards`."""
    from forgetting_core.tables import count_rows, shard_rows

    score = call.config["score"]
    assert isinstance(score, ScoreConfig)
    parts = shard_rows(count_rows(data), score.block_rows, execution.score_shards)
    return [
        replace(
            call,
            label=f"{call.label} {number}/{len(parts)}",
            spec=SCORE_SHARD,
            config={**call.config, "shard": Shard(first=rows.start, stop=rows.stop)},
            delivered=True,
        )
        for number, rows in enumerate(parts, 1)
    ]


VERSION = 3
"""Of both: a scoring is made of its shards."""
SCORE_SHARD = StepSpec("score-shard", version=VERSION, compute=compute, optional=("checkpoint",), on_device=True)
SCORE = StepSpec("score", version=VERSION, compute=compute, optional=("checkpoint",), on_device=True, shards=shards)
