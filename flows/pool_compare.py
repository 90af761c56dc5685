"""The deployment `compare`: one flow run per training seed on the GPU pool, and their comparison at the end."""

from prefect import flow

from flows.asked import check_compare
from flows.children import completed
from flows.conclude import conclude
from flows.pool_group import check_completed, run_on_pool
from flows.termination import end_with_worker


@flow(name="compare", flow_run_name="{recipe} compare", persist_result=False)
def pool_compare(
    recipe: str,
    seeds: list[int] | None = None,
    models: list[str] | None = None,
    overrides: list[str] | None = None,
    store: str | None = None,
) -> None:
    """Compare forgetting with its baselines: a run per training seed on the GPU pool, one table at the end.

    A seed that fails is left out of the table and fails this run. The page is in MLflow, in the run named compare.

    Raises `InputError` for a wrong recipe, seed or model, `RequestError` without the deployments, and at the end
    `ChildrenFailedError`.

    Args:
        recipe: Name of a built-in recipe such as `demo`, or the path of a YAML file on the worker.
        seeds: Training seeds, such as 42, 43 and 44; by default three, counted up from the recipe's own.
        models: Of base, reference, sft, ignore, npo, random; by default the first four and the recipe's baselines.
        overrides: Changes of the recipe's fields, such as `partition.rho=0.5`.
        store: A folder that all workers share, or `s3://bucket/prefix`; by default the worker's FORGETTING_STORE.
    """
    end_with_worker()
    given = overrides or []
    asked = check_compare(recipe, seeds, models, given)
    runs = run_on_pool(recipe, given, asked.members(given), store, "seed", head=False)
    done = {int(seed): str(run.id) for seed, run in runs.items() if completed(run)}
    if done:
        conclude(asked, store, done)
    check_completed(runs, "seed")
