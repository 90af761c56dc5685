"""report: one HTML page about the whole run."""

from pathlib import Path

from forgetting_core.progress import Progress
from tasks.child import Job, Summary
from tasks.spec import StepSpec

METRICS_PREFIX = "metrics:"
"""Inputs that hold a model's metrics are named `metrics:MODEL,TASK`."""


def compute(job: Job, progress: Progress) -> Summary:
    """See `forgetting_core.report.write_report`."""
    from forgetting_core.report import write_report

    assert job.facts is not None  # asked for below
    metrics: dict[str, list[Path]] = {}
    for name in job.inputs:
        if name.startswith(METRICS_PREFIX):
            model, _, _ = name.removeprefix(METRICS_PREFIX).partition(",")
            metrics.setdefault(model, []).append(job.path(name))
    return write_report(
        job.config["recipe"],
        data=job.path("data"),
        tokenizer=job.path("tokenizer"),
        loss_base=job.path("loss_base"),
        loss_reference=job.path("loss_reference"),
        token_labels=job.path("token_labels"),
        metrics=metrics,
        facts=job.facts,
        out=job.out,
        progress=progress,
    )


REPORT = StepSpec("report", version=6, compute=compute, about_run=True)
