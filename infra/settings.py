"""Where things are: the state directory and, below it unless told otherwise, store, MLflow, Prefect and scratch.

Everything comes from the environment, so that a laptop, a worker and a scheduled run differ in nothing else.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

from infra.public import public_uri

STATE_DIR_VARIABLE = "FORGETTING_STATE_DIR"
STORE_VARIABLE = "FORGETTING_STORE"
LEASE_TTL_VARIABLE = "FORGETTING_LEASE_TTL"
LEASE_TTL_SECONDS = 60.0
STOP_VARIABLE = "FORGETTING_STOP_SECONDS"
STOP_SECONDS = 25.0
"""Prefect's runner kills a process that was asked to end 30 s later; the rest is for lease, slot and MLflow."""
GPU_SLOT_VARIABLE = "FORGETTING_GPU_SLOT"


class SettingError(ValueError):
    """An environment variable has a value that makes no sense; the message names it."""


@dataclass(frozen=True)
class Settings:
    """The resolved locations."""

    state_dir: Path
    store_url: str
    """A folder or `s3://bucket/prefix`."""
    tracking_uri: str
    work_dir: Path
    lease_ttl: float
    """Seconds after which the work of a run that shows no sign of life is taken over; 0: no leases."""
    stop_seconds: float
    """In which the steps of a deployed run that is asked to end may save; then they are killed."""
    gpu_slot: str | None
    """Global concurrency limit of the Prefect server that work on the device is done under; set by deployments."""

    @classmethod
    def from_environment(cls, *, store: str | None = None, work_dir: str | None = None) -> "Settings":
        """Settings of this process; the arguments win over the environment, the environment over the defaults.

        Raises `SettingError`.
        """
        state_dir = Path(os.environ.get(STATE_DIR_VARIABLE, ".forgetting")).resolve()
        store_url = store or os.environ.get(STORE_VARIABLE) or str(state_dir / "store")
        if public_uri(store_url) != store_url:
            raise SettingError(
                f"the store's address ({STORE_VARIABLE} or --store) holds a user, a password or a query, and it is "
                "recorded with every run: give s3://bucket/prefix, and keys and endpoint in the AWS_… variables"
            )
        return cls(
            state_dir=state_dir,
            store_url=store_url,
            tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{state_dir / 'mlflow.db'}",
            work_dir=Path(work_dir).resolve() if work_dir else state_dir / "work",
            lease_ttl=_seconds(LEASE_TTL_VARIABLE, LEASE_TTL_SECONDS, "or 0 for no leases"),
            stop_seconds=_seconds(STOP_VARIABLE, STOP_SECONDS, "or 0 to kill at once"),
            gpu_slot=os.environ.get(GPU_SLOT_VARIABLE) or None,
        )

    @property
    def digest_cache(self) -> Path:
        """The memory of file digests (SQLite)."""
        return self.state_dir / "digests.sqlite"

    def prepare_environment(self) -> None:
        """Set what Prefect and MLflow read when they are imported; what the user has set stays."""
        defaults = {
            "PREFECT_HOME": str(self.state_dir / "prefect"),
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            # a team's server takes a run for dead that has been silent for 90 s (infra/setup_prefect.py)
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            # the command line reports failures itself, without three tracebacks for each
            "PREFECT_LOGGING_LEVEL": "CRITICAL",
            # waiting threads that spin make a busy machine ten times slower
            "OMP_WAIT_POLICY": "PASSIVE",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "1",
        }
        for name, value in defaults.items():
            os.environ.setdefault(name, value)
        self.state_dir.mkdir(parents=True, exist_ok=True)


def _seconds(variable: str, default: float, zero: str) -> float:
    text = os.environ.get(variable) or str(default)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise SettingError(f"{variable} is {text!r}; expected seconds such as {default:g}, {zero}")
    return seconds
