"""prepare: the synthetic corpus, benchmark and base model of recipes that bring none of their own."""

from forgetting_core.progress import Progress
from tasks.child import Job, Summary
from tasks.spec import StepSpec


def compute(job: Job, progress: Progress) -> Summary:
    """See `forgetting_core.synthetic.prepare`."""
    from forgetting_core.synthetic import prepare

    return prepare(job.config["synthetic"], out=job.out, progress=progress)


PREPARE = StepSpec(
    "prepare",
    version=1,
    compute=compute,
    parts=("base", "train", "reference", "tasks"),
    part_kinds={"base": "model"},
)
