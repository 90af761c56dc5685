"""compare: models over training seeds, on the same items, with paired differences."""

from pathlib import Path

from forgetting_core.config import Config
from forgetting_core.progress import Progress
from tasks.child import Job, Summary
from tasks.spec import StepSpec


class ComparisonConfig(Config):
    """What the comparison depends on beside the evaluations."""

    recipe: str
    """Its name, for the title."""
    models: list[str]
    """In the order of the table."""
    against: str
    """The model that the others are compared with."""


def compute(job: Job, progress: Progress) -> Summary:
    """See `forgetting_core.comparison.page.write_comparison`."""
    from forgetting_core.comparison.page import write_comparison

    config = job.config["comparison"]
    evaluations: dict[int, dict[str, list[Path]]] = {}
    curves: dict[int, dict[str, Path]] = {}
    for name in job.inputs:
        kind, seed, model = _parsed(name)
        if kind == "evaluation":
            evaluations.setdefault(seed, {}).setdefault(model, []).append(job.path(name))
        else:
            curves.setdefault(seed, {})[model] = job.path(name)
    return write_comparison(
        config.recipe,
        evaluations={seed: {model: of[model] for model in config.models} for seed, of in evaluations.items()},
        curves=curves,
        against=config.against,
        out=job.out,
        progress=progress,
    )


def evaluation_input(seed: int, model: str, task: str) -> str:
    """The name of an input that is an artifact of `evaluate`."""
    return f"evaluation:{seed},{model},{task}"


def curves_input(seed: int, model: str) -> str:
    """The name of an input that is the file of a fine-tune's curves."""
    return f"curves:{seed},{model}"


def _parsed(name: str) -> tuple[str, int, str]:
    kind, _, rest = name.partition(":")
    seed, model, *_ = rest.split(",")
    return kind, int(seed), model


COMPARE = StepSpec("compare", version=1, compute=compute)
