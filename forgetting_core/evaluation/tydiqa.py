"""TyDi QA's gold passage task as one benchmark: the harness's tasks of its nine languages, and their mean.

Light: the planner imports this module.
"""

import math
from collections.abc import Mapping

TYDIQA = "tydiqa"
"""The name of the benchmark in `evaluate.tasks`."""
LANGUAGES = ("ar", "bn", "en", "fi", "id", "ko", "ru", "sw", "te")
PREFIX = "tydiqa_goldp_"
"""The harness's task of a language is this and the language."""
TASKS = tuple(f"{PREFIX}{language}" for language in LANGUAGES)


def harness_tasks(name: str) -> tuple[str, ...]:
    """What the harness is asked for under a name of `evaluate.tasks`."""
    return TASKS if name == TYDIQA else (name,)


def averaged(languages: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric over the languages, its standard error, and as `metric.language` what it is made of.

    `languages` is {language: {metric: value, metric_stderr: value}}. Languages count alike, and their items are
    drawn independently: the error of the mean is √(Σ stderr²) / languages, where every language has one.
    """
    found: dict[str, float] = {}
    metrics = [name for name in next(iter(languages.values())) if not name.endswith("_stderr")]
    for metric in metrics:
        found[metric] = math.fsum(values[metric] for values in languages.values()) / len(languages)
        errors = [values.get(f"{metric}_stderr") for values in languages.values()]
        known = [error for error in errors if error is not None]
        if len(known) == len(errors):
            found[f"{metric}_stderr"] = math.hypot(*known) / len(known)
        for language, values in languages.items():
            found[f"{metric}.{language}"] = values[metric]
            if f"{metric}_stderr" in values:
                found[f"{metric}.{language}_stderr"] = values[f"{metric}_stderr"]
    return found
