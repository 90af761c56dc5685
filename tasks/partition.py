"""partition: the top ρ of response tokens by influence are positive, the rest negative; or a control's labels."""

from forgetting_core.progress import Progress
from tasks.child import Job, Summary
from tasks.spec import StepSpec


def compute(job: Job, progress: Progress) -> Summary:
    """See `forgetting_core.partition.partition`."""
    from forgetting_core.partition import partition

    return partition(
        job.config["partition"],
        loss_base=job.path("loss_base"),
        loss_reference=job.path("loss_reference"),
        data=job.optional("data"),
        out=job.out,
        progress=progress,
    )


PARTITION = StepSpec("partition", version=1, compute=compute, optional=("data",))
