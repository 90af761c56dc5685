"""score: token losses of the train split under one model; used for the base and for the reference."""

from forgetting_core.progress import Progress
from tasks.child import Job, Summary
from tasks.spec import StepSpec


def compute(job: Job, progress: Progress) -> Summary:
    """See `forgetting_core.scoring.score_split`."""
    from forgetting_core.models import check_adapter
    from forgetting_core.scoring import score_split

    check_adapter(job.optional("checkpoint"), job.digests["base"])
    return score_split(
        job.config["score"],
        base=job.path("base"),
        checkpoint=job.optional("checkpoint"),
        data=job.path("data"),
        out=job.out,
        execution=job.execution,
        progress=progress,
    )


SCORE = StepSpec("score", version=1, compute=compute, optional=("checkpoint",), on_device=True)
