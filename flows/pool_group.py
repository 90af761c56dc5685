"""Runs of one recipe that belong together on a work pool, started and awaited by a flow that needs no GPU.

What they all share runs first, in a run of its own: otherwise the first ones would all find it missing.
`flows/group.py` does the same one after the other in a single process.
"""

import logging
from collections.abc import Mapping, Sequence

import httpx
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import FlowRun
from prefect.utilities.urls import url_for

from flows.children import Children, ChildrenFailedError, account, completed
from infra.lineage_notes import escape_markdown

RUN, UPSTREAM = "forgetting/forgetting", "forgetting/upstream"
logger = logging.getLogger(__name__)


def run_on_pool(
    recipe: str,
    shared: Sequence[str],
    members: Mapping[str, Sequence[str]],
    store: str | None,
    noun: str,
    *,
    head: bool = True,
) -> dict[str, FlowRun]:
    """Run the recipe for each of `members`, {name: overrides}; all of them when they are over, completed or not.

    `shared` are the overrides of the run that goes first; `noun` is what a name is of, such as `ρ`. A table of the
    runs becomes an artifact of the flow. When the flow is cancelled, so are the runs that it has started. `head` as
    in `flows.group.run_members`.

    Raises `RequestError` without the deployments, `ChildrenFailedError` when the shared run does not complete.
    """
    with Children() as children:

        def start(deployment: str, overrides: Sequence[str], **more: str) -> FlowRun:
            parameters = {"recipe": recipe, "overrides": list(overrides), "store": store, **more}
            return children.start(deployment, parameters)

        upstream = children.ended(start(UPSTREAM, shared))
        if not completed(upstream):
            raise ChildrenFailedError(f"no {noun} was started, because {account(upstream)}")
        runs = {
            name: start(RUN, overrides, **({} if head else {"member": f"{noun}={name}"}))
            for name, overrides in members.items()
        }
        ended = {name: children.ended(run) for name, run in runs.items()}
    try:
        create_markdown_artifact(_table(ended, noun), key="runs", description=f"{recipe}: one run per {noun}")
    except httpx.HTTPError:  # no reason to lose what the runs have done
        logger.warning("the table of the runs could not be stored", exc_info=True)
    return ended


def check_completed(runs: Mapping[str, FlowRun], noun: str) -> None:
    """Raises `ChildrenFailedError` that names the runs which did not complete."""
    failed = [f"{noun} = {name}: {account(run)}" for name, run in runs.items() if not completed(run)]
    if failed:
        raise ChildrenFailedError(f"{len(failed)} of {len(runs)} runs did not complete: {'; '.join(failed)}")


def _table(ended: Mapping[str, FlowRun], noun: str) -> str:
    lines = [f"| {noun} | state | run |", "|---|---|---|"]
    for name, run in ended.items():
        url, shown = url_for(run), escape_markdown(run.name)
        state = run.state and run.state.name
        lines.append(f"| {escape_markdown(name)} | {state} | {f'[{shown}]({url})' if url else shown} |")
    return "\n".join(lines)
