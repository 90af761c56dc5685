"""split: raw rows become token rows of the disjoint splits train, reference and validation."""

from forgetting_core.progress import Progress
from tasks.child import Job, Summary
from tasks.spec import StepSpec


def compute(job: Job, progress: Progress) -> Summary:
    """See `forgetting_core.data.split_data`."""
    from forgetting_core.data import split_data

    return split_data(
        job.config["data"],
        job.config["split"],
        train=job.files("train"),
        reference=job.files("reference") if "reference" in job.inputs else None,
        model=job.path("tokenizer"),
        out=job.out,
        progress=progress,
        trust_remote_code=job.execution.trust_remote_code,
    )


SPLIT = StepSpec(
    "split", version=1, compute=compute, parts=("train", "reference", "validation"), optional=("reference",)
)
