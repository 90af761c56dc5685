"""Where people look for a finished page: among the artifacts of the pipeline run in MLflow."""

import logging

from infra.lineage import Lineage
from infra.objects import StoreError
from infra.store import Store

PAGE = "report.html"
logger = logging.getLogger(__name__)


def show_report(store: Store, lineage: Lineage, uri: str, page: str = PAGE) -> None:
    """Log the page of the artifact at `uri`, of this run or cached; without it the run is no less complete."""
    try:
        text = store.read_file(uri, page).decode()
    except StoreError as error:
        logger.warning("MLflow does not get the report: %s", error)
    else:
        lineage.log_text(page, text)
