"""Probing the surroundings for real: each check does what a run would do, and says what to do about a fault."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from infra.settings import Settings


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    ok: bool
    message: str

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def check(name: str, probe: Callable[[], str]) -> Finding:
    """Run `probe`; its return value, or the error it raises, is the message."""
    try:
        return Finding(name, True, probe())
    except Exception as error:
        return Finding(name, False, f"{type(error).__name__}: {error}")


def probe_mlflow(settings: Settings) -> str:
    """Open the tracking store and list experiments."""
    from infra.lineage_connection import open_experiment

    _, experiment = open_experiment(settings.tracking_uri, "forgetting")
    return f"{settings.tracking_uri}: experiment `forgetting` has id {experiment}"


def probe_prefect() -> str:
    """Ask the Prefect API for its version; without PREFECT_API_URL a run starts an embedded server."""
    import prefect
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    from infra.setup_prefect import missing_of

    if not PREFECT_API_URL.value():
        return f"prefect {prefect.__version__}; PREFECT_API_URL is not set: runs use an embedded server"
    with get_client(sync_client=True) as client:
        error = client.api_healthcheck()
        if error is not None:
            raise error
        text = f"{PREFECT_API_URL.value()}: server {client.api_version()} answers"
        missing = missing_of(client)
        return f"{text}; WARNING: no {', no '.join(missing)} there: python -m infra.setup" if missing else text
