"""Opening MLflow: the environment it needs to fail fast, its SQLite file, and the one experiment.

MLflow is imported inside the functions because it takes a second.
"""

import fcntl
import logging
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

_ENVIRONMENT = {
    # one call to a server that is down blocks for four minutes with MLflow's own defaults
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # stdout belongs to `--json`
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def outages() -> tuple[type[Exception], ...]:
    """What MLflow being down, slow, full or out of date raises. Mistakes in our own code are not among them."""
    from alembic.util import CommandError
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError
    from urllib3.exceptions import HTTPError

    of_database = (SQLAlchemyError, sqlite3.Error, CommandError)
    return MlflowException, *of_database, HTTPError, BotoCoreError, ClientError, OSError


def absolute_uri(tracking_uri: str) -> str:
    """`tracking_uri` with the path of an SQLite file made absolute, so that it means the same from anywhere."""
    path = _sqlite_path(tracking_uri)
    return f"sqlite:///{path.absolute()}" if path else tracking_uri


def open_experiment(tracking_uri: str, name: str) -> tuple["MlflowClient", str]:
    """A client and the id of the experiment `name`, created when missing. Raises one of `outages`."""
    _set_environment()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    # an outage is reported once, by those who meet it; this logger has a line for every attempt
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    path = _sqlite_path(tracking_uri)
    if path:
        _prepare_database(path, tracking_uri)
    client = MlflowClient(tracking_uri, registry_uri=tracking_uri)
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        # without a place of its own a database's artifacts land in the working directory
        artifacts = (path.parent / "mlartifacts" / name).as_uri() if path else None
        try:
            kind = {"mlflow.experimentKind": "custom_model_development"}
            return client, str(client.create_experiment(name, artifact_location=artifacts, tags=kind))
        except MlflowException:
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    return client, str(experiment.experiment_id)


def import_ahead() -> None:
    """Import what `open_experiment` will, while there is something to wait for."""
    _set_environment()
    import mlflow.db
    import mlflow.store.model_registry.sqlalchemy_store
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


def open_for_reading(tracking_uri: str) -> "MlflowClient":
    """A client of what is there: no database is created or migrated. Raises one of `outages`."""
    _set_environment()
    path = _sqlite_path(tracking_uri)
    if path and (not path.exists() or _revision(path) is None):
        raise FileNotFoundError(f"{path} is not there, or is no MLflow database")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri, registry_uri=tracking_uri)
    client.search_registered_models(max_results=1)  # a client connects when it is first asked
    return client


def _set_environment() -> None:
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)


def _sqlite_path(tracking_uri: str) -> Path | None:
    prefix = "sqlite:///"
    return Path(tracking_uri.removeprefix(prefix)) if tracking_uri.startswith(prefix) else None


def _prepare_database(path: Path, tracking_uri: str) -> None:
    """Create or migrate the database while no other process does: six at once on a fresh file crash."""
    for noisy in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    from mlflow.db import upgrade
    from mlflow.store.db.utils import _get_latest_schema_revision

    migrate = upgrade.callback
    assert migrate is not None, "a click command has a callback"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        revision = _revision(path)
        if revision == _get_latest_schema_revision():
            return
        if revision is not None:
            shutil.copyfile(path, path.with_name(f"{path.name}.before-upgrade"))
        migrate(url=tracking_uri)


def _revision(path: Path) -> str | None:
    """Version of the database's schema; None for an empty or new file.

    A file that is no database raises at once here; MLflow would try ten times, for minutes.
    """
    with closing(sqlite3.connect(path)) as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
            return None
        row = database.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(row[0]) if row else None
