"""Evaluation: benchmarks through lm-evaluation-harness, and the loss on held-out rows.

`evaluate_model` is the step, `local_tasks` says which files it will read. The step is imported on first use, so
that the planner can ask the latter without waiting for torch and the harness.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forgetting_core.evaluation.evaluate import evaluate_model

__all__ = ["evaluate_model"]


def __getattr__(name: str) -> Any:
    if name == "evaluate_model":
        from forgetting_core.evaluation.evaluate import evaluate_model

        return evaluate_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
