"""Whether a run without an end is over for good: it holds no live lease, and Prefect's server says so."""

from collections.abc import Mapping

import httpx

from flows.past_runs import PastRun
from infra.lease import Holder
from infra.public import public_uri


def why_open(past: PastRun, at_work: Mapping[str, Holder]) -> str | None:
    """Why a run may go on; None when it certainly does not. `at_work` is as `Leases.at_work` returns it."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound
    from prefect.settings import PREFECT_API_URL

    holder = at_work.get(past.flow_run_id)
    if holder is not None:
        return f"it holds a lease ({holder})"
    url = PREFECT_API_URL.value()
    if not url:
        return "PREFECT_API_URL names no server that could say how the flow run ended"
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(past.flow_run_id).state  # type: ignore[arg-type]  # the id as text will do
    except ObjectNotFound:
        return f"Prefect at {public_uri(url)} does not know the flow run"
    except httpx.HTTPError as error:
        return f"Prefect at {public_uri(url)} cannot be asked ({type(error).__name__})"
    if state is not None and state.is_final():
        return None
    return f"Prefect at {public_uri(url)} calls the flow run {state.name if state else 'new'}"
