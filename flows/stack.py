"""`forgetting stack`: a team's servers and workers on this machine, without containers (`infra/stack.py`)."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.json_output import print_json
from flows.options import JsonOption

if TYPE_CHECKING:
    from rich.table import Table

    from infra.stack import Condition

app = typer.Typer(
    help="Prefect, MLflow, S3 and two workers as processes of this machine, for trying out what a team uses.",
    no_args_is_help=True,
)
PROJECT = Path(__file__).resolve().parents[1]
DirOption = Annotated[
    Path | None, typer.Option("--dir", help="Folder of the stack; by default `stack` in the state directory.")
]
PortOption = Annotated[int | None, typer.Option(min=1, max=65535, help="By default as last time, or a free one.")]


@app.command()
def up(
    dir_: DirOption = None,
    prefect_port: PortOption = None,
    mlflow_port: PortOption = None,
    s3_port: PortOption = None,
    gpu_runs: Annotated[
        int | None, typer.Option(min=1, help="Flow runs at the same time in the work pool `gpu`; at first 1.")
    ] = None,
    checkout: Annotated[Path, typer.Option(file_okay=False, help="The code that the workers run.")] = PROJECT,
) -> None:
    """Start what does not run yet, set up and deploy; prints the environment of a terminal that uses the stack.

    Example: `eval "$(forgetting stack up)"`
    """
    from infra.stack import Stack

    stack = Stack(_folder(dir_), checkout)
    given = {"prefect": prefect_port, "mlflow": mlflow_port, "seaweedfs": s3_port}
    stack.up({name: port for name, port in given.items() if port is not None}, gpu_runs, _tell)
    _tell(f"the stack is up; in another terminal: source {shlex.quote(str(stack.env_file))}")
    typer.echo(stack.env_file.read_text(), nl=False)


@app.command()
def down(dir_: DirOption = None) -> None:
    """Stop all of it; data, logs and credentials are kept for the next `up`.

    Example: `forgetting stack down`
    """
    from infra.stack import Stack

    Stack(_folder(dir_), PROJECT).down(_tell)
    _tell("the stack is down")


@app.command()
def status(dir_: DirOption = None, as_json: JsonOption = False) -> None:
    """Show every process and whether it works; exit status 1 unless all do.

    Example: `forgetting stack status`
    """
    from infra.stack import Stack

    conditions = Stack(_folder(dir_), PROJECT).status()
    if as_json:
        print_json({"processes": [asdict(item) for item in conditions]})
    else:
        from rich.console import Console

        Console().print(_table(conditions) if conditions else "no stack here; start one with: forgetting stack up")
    raise typer.Exit(0 if conditions and all(item.healthy for item in conditions) else 1)


def _table(conditions: "list[Condition]") -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table("process", "pid", "state", "at", box=SIMPLE_HEAD, pad_edge=False)
    for item in conditions:
        state = "healthy" if item.healthy else "does not answer" if item.pid else "not running"
        table.add_row(item.name, str(item.pid or "–"), state, item.url)
    return table


def _folder(given: Path | None) -> Path:
    from infra.settings import Settings

    return given or Settings.from_environment().state_dir / "stack"


def _tell(line: str) -> None:
    typer.echo(line, err=True)
