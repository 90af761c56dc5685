"""reference: the base model fine-tuned on the reference split; what it learned decides what is worth learning."""

from forgetting_core.progress import Progress
from tasks.child import Job, Summary
from tasks.spec import StepSpec


def compute(job: Job, progress: Progress) -> Summary:
    """See `forgetting_core.training.fine_tune`."""
    from forgetting_core.training import fine_tune

    return fine_tune(
        job.config["reference"],
        base=job.path("base"),
        base_digest=job.digests["base"],
        data=job.path("data"),
        validation=job.optional("validation"),
        out=job.out,
        work=job.work,
        execution=job.execution,
        progress=progress,
    )


REFERENCE = StepSpec(
    "reference",
    version=5,
    compute=compute,
    kind="model",
    optional=("validation",),
    on_device=True,
    trains=True,
)
