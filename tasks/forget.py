"""forget: the base model fine-tuned under one objective (forget, ignore or plain sft)."""

from forgetting_core.progress import Progress
from tasks.child import Job, Summary
from tasks.spec import StepSpec


def compute(job: Job, progress: Progress) -> Summary:
    """See `forgetting_core.training.fine_tune`."""
    from forgetting_core.training import fine_tune

    return fine_tune(
        job.config["forget"],
        base=job.path("base"),
        base_digest=job.digests["base"],
        data=job.path("data"),
        token_labels=job.optional("token_labels"),
        loss_base=job.optional("loss_base"),
        validation=job.optional("validation"),
        out=job.out,
        work=job.work,
        execution=job.execution,
        progress=progress,
    )


FORGET = StepSpec(
    "forget",
    version=6,
    compute=compute,
    kind="model",
    optional=("token_labels", "loss_base", "validation"),
    on_device=True,
    trains=True,
)
