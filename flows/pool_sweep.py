"""The deployment `sweep`: one flow run per ρ on the GPU pool."""

from prefect import flow

from flows.pool_group import check_completed, run_on_pool
from flows.sweep import check_sweep, with_rho
from flows.termination import end_with_worker


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
    runs = run_on_pool(recipe, given, {rho: with_rho(given, rho) for rho in values}, store, "ρ")
    check_completed(runs, "ρ")
