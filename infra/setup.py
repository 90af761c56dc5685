"""`python -m infra.setup`: what a team's Prefect server needs before deployments run; idempotent.

Work pools, the limit on GPU work, automations (`infra/setup_prefect.py`), and a look at the store that the workers
will use. The server is the one at PREFECT_API_URL.
"""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from infra.errors import RequestError

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
def setup(
    type_: Annotated[
        str, typer.Option("--type", help="Of both work pools: process, docker, kubernetes …")
    ] = "process",
    base_job_template: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="JSON file: the job template of the pool `gpu`."),
    ] = None,
    cpu_base_job_template: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="JSON file: the job template of the pool `cpu`."),
    ] = None,
    gpu_runs: Annotated[
        int | None, typer.Option(min=1, help="Flow runs at the same time in the pool `gpu`; as it is unless given.")
    ] = None,
    gpu_slots: Annotated[
        int | None, typer.Option(min=1, help="Steps on GPUs at the same time; 1 at first, as it is unless given.")
    ] = None,
    notify: Annotated[
        str | None,
        typer.Option(help="A notification block, such as `slack-webhook/team`, to be told of failed runs."),
    ] = None,
) -> None:
    """Create or bring up to date pools, limit and automations; check the store.

    Example: `python -m infra.setup --gpu-slots 4 --notify slack-webhook/team`
    """
    from infra.setup_prefect import Plan, apply

    wanted = Plan(
        pool_type=type_,
        templates={"gpu": _template(base_job_template), "cpu": _template(cpu_base_job_template)},
        gpu_runs=gpu_runs,
        gpu_slots=gpu_slots,
        notify=notify,
    )
    for line in apply(wanted):
        typer.echo(line)
    raise typer.Exit(0 if _store_is_fit() else 1)


def _template(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        template = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RequestError(f"{path}: not JSON: {error}") from error
    if not isinstance(template, dict) or not {"job_configuration", "variables"} <= template.keys():
        raise RequestError(f"{path}: a base job template has the keys `job_configuration` and `variables`")
    return template


def _store_is_fit() -> bool:
    """Probe the store of this environment as a run would use it."""
    from infra.doctor import check
    from infra.doctor_store import probe_clock, probe_credentials, probe_store
    from infra.settings import STORE_VARIABLE, Settings

    settings = Settings.from_environment()
    if not os.environ.get(STORE_VARIABLE):
        typer.echo(
            f"not checked   store: {STORE_VARIABLE} is not set; workers would each use a folder of their own"
        )
        return True
    findings = [
        check("store", lambda: probe_store(settings)),
        check("store credentials", lambda: probe_credentials(settings)),
        check("store clock", lambda: probe_clock(settings)),
    ]
    for finding in findings:
        typer.echo(f"{'ok' if finding.ok else 'FAIL':13s} {finding.name}: {finding.message}")
    return all(finding.ok for finding in findings)


def main() -> None:
    """Errors that a user can mend are one message and exit status 2."""
    from infra.settings import SettingError

    try:
        app()
    except (RequestError, SettingError) as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
