"""The deployment `sweep`: one flow run per ρ on the GPU pool, started and awaited by a flow that needs no GPU.

What no ρ changes runs first, in a run of its own: otherwise the first runs would all find it missing. `forgetting
sweep` (`flows/sweep.py`) does the same one after the other in a single process.
"""

from collections.abc import Mapping, Sequence

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import FlowRun
from prefect.utilities.urls import url_for

from flows.children import Children, ChildrenFailedError, account, completed
from flows.sweep import check_sweep, with_rho
from flows.termination import end_with_worker

RUN, UPSTREAM = "forgetting/forgetting", "forgetting/upstream"


@flow(name="sweep", flow_run_name="{recipe} sweep", persist_result=False)
def pool_sweep(recipe: str, rhos: list[str], overrides: list[str] | None = None, store: str | None = None) -> None:
    """Run a recipe once per ρ on the GPU pool; the steps that do not depend on ρ are computed once, before.

    A ρ that fails does not take the others down. When this run is cancelled, so are the runs that it has started.

    Raises `InputError` for a wrong recipe or ρ, `RequestError` without the deployments, and at the end
    `ChildrenFailedError`.

    Args:
        recipe: Name of a built-in recipe such as `demo`, or the path of a YAML file on the worker.
        rhos: Shares of positive tokens, from 0 to 1, such as 0.3, 0.5 and 0.7.
        overrides: Changes of the recipe's fields, such as `forget.seed=7`.
        store: A folder that all workers share, or `s3://bucket/prefix`; by default the worker's FORGETTING_STORE.
    """
    end_with_worker()
    given = overrides or []
    values = check_sweep(recipe, rhos, given)
    with Children() as children:

        def start(deployment: str, changes: Sequence[str]) -> FlowRun:
            return children.start(deployment, {"recipe": recipe, "overrides": list(changes), "store": store})

        upstream = children.ended(start(UPSTREAM, given))
        if not completed(upstream):
            raise ChildrenFailedError(f"no ρ was started, because {account(upstream)}")
        runs = {rho: start(RUN, with_rho(given, rho)) for rho in values}
        ended = {rho: children.ended(run) for rho, run in runs.items()}
    create_markdown_artifact(_table(ended), key="sweep", description=f"{recipe}: one run per ρ")
    failed = [f"ρ = {rho}: {account(run)}" for rho, run in ended.items() if not completed(run)]
    if failed:
        raise ChildrenFailedError(f"{len(failed)} of {len(values)} runs did not complete: {'; '.join(failed)}")


def _table(ended: Mapping[str, FlowRun]) -> str:
    lines = ["| ρ | state | run |", "|---|---|---|"]
    for rho, run in ended.items():
        url = url_for(run)
        lines.append(f"| {rho} | {run.state and run.state.name} | {f'[{run.name}]({url})' if url else run.name} |")
    return "\n".join(lines)
