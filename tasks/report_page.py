"""Where people look for the finished page: among the artifacts of the pipeline run in MLflow."""

import logging

from infra.objects import StoreError
from tasks.context import RunContext
from tasks.spec import StepResult

PAGE = "report.html"
logger = logging.getLogger(__name__)


def show_report(context: RunContext, report: StepResult) -> None:
    """Log the page of the step `report`, computed in this run or cached; without it the run is no less complete."""
    try:
        text = context.store.read_file(report.ref.uri, PAGE).decode()
    except StoreError as error:
        logger.warning("MLflow does not get the report: %s", error)
    else:
        context.lineage.log_text(PAGE, text)
