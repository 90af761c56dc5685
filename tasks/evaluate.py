"""evaluate: benchmarks and held-out loss of one model."""

from forgetting_core.progress import Progress
from tasks.child import Job, Summary
from tasks.spec import StepSpec


def compute(job: Job, progress: Progress) -> Summary:
    """See `forgetting_core.evaluation.evaluate.evaluate_model`."""
    from forgetting_core.evaluation.evaluate import evaluate_model
    from forgetting_core.models import check_adapter

    check_adapter(job.optional("checkpoint"), job.digests["base"])
    return evaluate_model(
        job.config["evaluate"],
        base=job.path("base"),
        checkpoint=job.optional("checkpoint"),
        validation=job.optional("validation"),
        task_dir=job.optional("tasks"),
        out=job.out,
        execution=job.execution,
        progress=progress,
    )


EVALUATE = StepSpec(
    "evaluate", version=1, compute=compute, optional=("checkpoint", "validation", "tasks"), on_device=True
)
