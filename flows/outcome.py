"""What a run did: its steps, complete or not, and the failure that ended it."""

from dataclasses import dataclass, field
from typing import Any

from tasks.evaluate import metrics_by_model
from tasks.source import code_warnings
from tasks.spec import StepResult


@dataclass
class Outcome:
    """What a run did, complete or not."""

    flow_run_id: str
    mlflow_run_id: str | None
    store: str
    steps: dict[str, StepResult] = field(default_factory=dict)
    ui_command: str = ""
    models: tuple[str, ...] = ()
    """That the run evaluates; one that is evaluated on nothing has no metrics."""

    @property
    def warnings(self) -> list[str]:
        """Cached steps whose code has changed without a new version, and the faults that the report has found."""
        changed = code_warnings((result.step, label, result.code_changes) for label, result in self.steps.items())
        faults = (f"{fault['kind']}: {fault['found']}. To change: {fault['advice']}" for fault in self.faults)
        return [*changed, *faults]

    @property
    def faults(self) -> list[dict[str, str]]:
        """What went wrong in the run although its steps succeeded; see `forgetting_core.report.warnings`."""
        report = self.steps.get("report")
        found: list[dict[str, str]] = report.summary["warnings"] if report else []
        return found

    @property
    def metrics(self) -> dict[str, Any]:
        """{model: {task: {metric: value}}}"""
        found = metrics_by_model((label, result.summary) for label, result in self.steps.items())
        return {model: found.get(model, {}) for model in self.models}


class StepFailedError(Exception):
    """A step failed; `outcome` holds what was done, `__cause__` why."""

    def __init__(self, label: str, outcome: Outcome) -> None:
        super().__init__(label)
        self.label = label
        self.outcome = outcome

    def __str__(self) -> str:
        return f"{self.label} failed: {self.__cause__}"
