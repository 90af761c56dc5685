"""The flow: walks the DAG (`flows/dag.py`) by submitting one Prefect task per step, and records what came out."""

from prefect import flow
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from flows.bookkeeping import opened, record_success
from flows.dag import walk
from flows.outcome import Outcome
from flows.recipes import find_recipe
from flows.submitting import run_steps
from flows.termination import end_with_worker
from forgetting_core.recipe import load_recipe
from infra.settings import Settings
from tasks.source import CodeIdentity

MAX_WAITING_STEPS = 64
"""Threads of the flow: a step that waits for its inputs occupies one."""


def _run_name() -> str:
    """The recipe and what is special about this run."""
    given = flow_run.parameters  # without those left at their defaults, in a deployed run
    upstream = ["upstream"] if given.get("upstream_only") else []
    return " ".join([given["recipe"], *(given.get("overrides") or []), *upstream])


@flow(
    name="forgetting",
    flow_run_name=_run_name,
    task_runner=ThreadPoolTaskRunner(max_workers=MAX_WAITING_STEPS),  # type: ignore[arg-type]
    persist_result=False,
)
def forgetting(
    recipe: str,
    overrides: list[str] | None = None,
    store: str | None = None,
    code_identity: CodeIdentity = "version",
    upstream_only: bool = False,
    member: str | None = None,
) -> Outcome:
    """Run one recipe: every step that is not in the store yet.

    Raises `InputError` for a wrong recipe, `StepFailedError` when a step fails.

    Args:
        recipe: Name of a built-in recipe such as `demo`, or the path of a YAML file on the worker.
        overrides: Changes of the recipe's fields, such as `partition.rho=0.5`.
        store: A folder, or `s3://bucket/prefix`; by default the one of FORGETTING_STORE.
        code_identity: With `source`, a step whose source code has changed runs again.
        upstream_only: Only as far as the scores, which no ρ changes; warms the store for a sweep.
        member: What tells this run from the others of a comparison, such as `seed=43`. Its model is registered, but
            does not become the recipe's current one, and later runs are not compared with it.
    """
    end_with_worker()
    loaded = load_recipe(find_recipe(recipe), overrides or [])
    settings = Settings.from_environment(store=store, work_dir=loaded.execution.work_dir)
    with opened(loaded, settings, variant="upstream" if upstream_only else None, member=member) as context:
        outcome = run_steps(
            context, settings, lambda walker: walk(loaded, walker, upstream_only=upstream_only), code_identity
        )
        record_success(loaded, context, outcome, current=member is None)
    return outcome
