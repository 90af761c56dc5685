"""MLflow is a witness, never a participant: a recorder that goes silent in an outage, and on when it is over."""

import functools
import logging
import threading
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from infra.lineage_connection import outages
from infra.public import public_text, public_uri

_logger = logging.getLogger(__name__)
_P = ParamSpec("_P")
_T = TypeVar("_T")
_S = TypeVar("_S", bound="OutageProof")


class OutageProof:
    """What a recorder knows of MLflow's outages; its methods are made safe with `never_fails`."""

    def __init__(self, tracking_uri: str) -> None:
        self.tracking_uri = tracking_uri
        self.degraded: str | None = None
        """Why nothing is recorded at the moment; None while all is well."""
        self.gap: str | None = None
        """Why something may be missing from what was recorded."""
        self._missed: list[Callable[[], object]] = []
        self._outage_lock = threading.Lock()

    def missed(self, call: Callable[[], object]) -> None:
        """What to do again once MLflow answers; it returns None when that failed too."""
        with self._outage_lock:
            self._missed.append(call)

    def degrade(self, error: Exception) -> None:
        """Record nothing from here on; said once."""
        reason = f"{type(error).__name__}: {public_text(' '.join(str(error).split()))[:500]}"
        with self._outage_lock:
            if self.degraded is not None:
                return
            self.degraded = self.gap = reason
        _logger.warning(
            "MLflow at %s failed; the run goes on without lineage: %s", public_uri(self.tracking_uri), reason
        )

    def resume_after_outage(self) -> None:
        """Record again, first of all what was missed; nothing happens when all is well."""
        with self._outage_lock:
            if self.degraded is None:
                return
            self.degraded = None
            missed, self._missed = self._missed, []
        _logger.warning("MLflow at %s answers again; lineage goes on", public_uri(self.tracking_uri))
        for index, call in enumerate(missed):
            if call() is None:  # it is away again
                with self._outage_lock:
                    self._missed[:0] = missed[index:]
                return


def never_fails(method: Callable[Concatenate[_S, _P], _T], /) -> Callable[Concatenate[_S, _P], _T | None]:
    """An outage of MLflow degrades the recorder; mistakes of the caller still raise."""

    @functools.wraps(method)
    def recorded(self: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> _T | None:
        if self.degraded is not None:
            return None
        try:
            return method(self, *args, **kwargs)
        except outages() as error:
            self.degrade(error)
            return None

    return recorded
