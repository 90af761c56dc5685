"""evaluate: one model on one benchmark, its loss on held-out rows, or its diversity. Each is a step of its own.

So a new benchmark runs alone. The price is that the model is loaded once for each: seconds for a large one.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from forgetting_core.config import Config, DiversityConfig, Dtype
from forgetting_core.progress import Progress
from tasks.child import Job, Summary
from tasks.spec import StepSpec


class HeldOutConfig(Config):
    """The part of `evaluate` that the held-out loss depends on."""

    dtype: Dtype


class SampledConfig(Config):
    """The part of `evaluate` that diversity depends on."""

    dtype: Dtype
    diversity: DiversityConfig


def compute(job: Job, progress: Progress) -> Summary:
    """See `forgetting_core.evaluation`: `evaluate`, `held_out` and `diversity`."""
    from forgetting_core.models import check_adapter

    check_adapter(job.optional("checkpoint"), job.digests["base"])
    config = job.config["evaluate"]
    common: dict[str, Any] = {
        "base": job.path("base"),
        "checkpoint": job.optional("checkpoint"),
        "out": job.out,
        "execution": job.execution,
        "progress": progress,
    }
    if isinstance(config, HeldOutConfig):
        from forgetting_core.evaluation.held_out import evaluate_held_out

        return evaluate_held_out(dtype=config.dtype, validation=job.path("validation"), **common)
    if isinstance(config, SampledConfig):
        from forgetting_core.evaluation.diversity import evaluate_diversity

        return evaluate_diversity(config.diversity, dtype=config.dtype, validation=job.path("validation"), **common)
    from forgetting_core.evaluation.evaluate import evaluate_benchmarks

    return evaluate_benchmarks(config, task_dir=job.optional("tasks"), **common)


EVALUATE = StepSpec(
    "evaluate", version=5, compute=compute, optional=("checkpoint", "validation", "tasks"), on_device=True
)


def label_of(model: str, task: str) -> str:
    """The step that evaluates `model` on `task`."""
    return f"{EVALUATE.name}[{model},{task}]"


def evaluation_of(label: str) -> tuple[str, str] | None:
    """(model, task) that a step of this label evaluates; None for any other step."""
    name, _, rest = label.removesuffix("]").partition("[")
    model, _, task = rest.partition(",")
    return (model, task) if name == EVALUATE.name else None


def evaluated_model(label: str) -> str | None:
    """The model that a step of this label evaluates; None for any other step."""
    found = evaluation_of(label)
    return found and found[0]


def metrics_by_model(summaries: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """{model: {task: {metric: value}}} from (label, summary) of the steps of a run, in their order."""
    found: dict[str, dict[str, Any]] = {}
    for label, summary in summaries:
        if (model := evaluated_model(label)) is not None:
            found.setdefault(model, {}).update(summary["metrics"])
    return found
