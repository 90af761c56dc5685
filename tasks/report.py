"""report: one HTML page about the whole run."""

from forgetting_core.progress import Progress
from tasks.child import Job, Summary
from tasks.spec import StepSpec

METRICS_PREFIX = "metrics:"
"""Inputs that hold a model's metrics are named `metrics:MODEL`."""


def compute(job: Job, progress: Progress) -> Summary:
    """See `forgetting_core.report.write_report`."""
    from forgetting_core.report import write_report

    assert job.facts is not None  # asked for below
    return write_report(
        job.config["recipe"],
        data=job.path("data"),
        tokenizer=job.path("tokenizer"),
        loss_base=job.path("loss_base"),
        loss_reference=job.path("loss_reference"),
        token_labels=job.path("token_labels"),
        metrics={
            name.removeprefix(METRICS_PREFIX): job.path(name)
            for name in job.inputs
            if name.startswith(METRICS_PREFIX)
        },
        facts=job.facts,
        out=job.out,
        progress=progress,
    )


REPORT = StepSpec("report", version=3, compute=compute, about_run=True)
