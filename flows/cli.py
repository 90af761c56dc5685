"""`forgetting`: the command line.

Exit status: 0 done; 1 a step failed; 2 the recipe or the arguments are wrong; 130 interrupted. With `--json`,
standard output is one JSON document and nothing else. Heavy imports wait until a command needs them.
"""

import sys
from typing import Annotated, Literal

import typer

from flows import artifacts, stack
from flows.json_output import print_json
from flows.options import JsonOption, StoreOption
from flows.recipes import find_recipe
from forgetting_core.errors import InputError
from infra.errors import RequestError, TrackingError
from infra.settings import SettingError, Settings

app = typer.Typer(
    help="Fine-tune language models by forgetting: learn what a reference model learned, push the rest away.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

RecipeArgument = Annotated[str, typer.Argument(help="A built-in recipe (such as `demo`) or a YAML file.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Change a field: `partition.rho=0.5`.")]
app.add_typer(artifacts.app, name="artifacts")
app.add_typer(stack.app, name="stack")


CodeIdentityOption = Annotated[
    Literal["version", "source"],
    typer.Option(help="What of a step's code is part of its identity; `source`: a changed function computes anew."),
]


@app.command()
def run(
    recipe: RecipeArgument,
    set_: SetOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    code_identity: CodeIdentityOption = "version",
) -> None:
    """Run a recipe; steps that are in the store already are not computed again.

    Example: `forgetting run demo --set partition.rho=0.5`
    """
    from forgetting_core.recipe import load_recipe  # builds all models of a recipe

    load_recipe(find_recipe(recipe), set_ or [])
    Settings.from_environment(store=store).prepare_environment()
    from flows.run import run_recipe

    raise typer.Exit(run_recipe(recipe, set_ or [], store, as_json, code_identity))


@app.command()
def plan(
    recipe: RecipeArgument,
    set_: SetOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    code_identity: CodeIdentityOption = "version",
) -> None:
    """Show what is cached, what would run, and why. Reads only.

    Example: `forgetting plan demo --set partition.rho=0.5`
    """
    from flows.plan import plan as plan_recipe
    from flows.plan import plan_warnings

    steps = plan_recipe(recipe, set_ or [], store, code_identity)
    warnings = plan_warnings(steps)
    if as_json:
        print_json({"steps": [step.as_json() for step in steps], "warnings": warnings})
        return
    from rich.console import Console

    from flows.display import print_warnings
    from flows.plan_table import plan_table

    Console().print(plan_table(steps))
    print_warnings(warnings)


@app.command()
def explain(
    step: Annotated[str, typer.Argument(help="A step as `plan` names it, such as `forget` or `score[base]`.")],
    recipe: RecipeArgument,
    set_: SetOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare one step with what the last completed run used, down to the root causes. Reads only.

    Example: `forgetting explain forget demo --set partition.rho=0.5`
    """
    from flows.explain import explain as explain_step

    explanation = explain_step(step, recipe, set_ or [], store)
    if as_json:
        print_json(explanation.as_json())
        return
    from rich.console import Console

    from flows.explain_text import explanation_lines

    for line in explanation_lines(explanation):
        Console().print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def sweep(
    recipe: RecipeArgument,
    rho: Annotated[str, typer.Option(help="Values separated by commas: `0.3,0.5,0.7`.")],
    set_: SetOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a recipe once per ρ; the steps that do not depend on ρ are computed once.

    Example: `forgetting sweep demo --rho 0.6,0.7,0.8`
    """
    Settings.from_environment(store=store).prepare_environment()
    from flows.run_sweep import sweep_recipe

    raise typer.Exit(sweep_recipe(recipe, rho.split(","), set_ or [], store, as_json))


@app.command()
def compare(
    recipe: RecipeArgument,
    seeds: Annotated[
        str | None,
        typer.Option(help="Training seeds separated by commas; three from the recipe's own when left out."),
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(
            help="Compared with `forget`, separated by commas: base, reference, sft, ignore, npo, random."
            " The first four and the recipe's own baselines when left out."
        ),
    ] = None,
    set_: SetOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare forgetting with its baselines: one run per training seed, one table with paired differences.

    Example: `forgetting compare demo --seeds 42,43,44`
    """
    Settings.from_environment(store=store).prepare_environment()
    from flows.run_compare import compare_recipe

    chosen = None if models is None else [name.strip() for name in models.split(",")]
    raise typer.Exit(compare_recipe(recipe, _seeds(seeds), chosen, set_ or [], store, as_json))


def _seeds(given: str | None) -> list[int] | None:
    try:
        return None if given is None else [int(seed) for seed in given.split(",")]
    except ValueError:
        raise InputError(f"--seeds: {given!r}; expected whole numbers separated by commas, such as 42,43") from None


@app.command()
def lineage(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL_OR_URI",
            help="A registered model (`demo`, `demo/3`), an artifact's URI, a digest or a fingerprint.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Read every artifact again, and compare with the commits and MLflow.")
    ] = False,
    relink: Annotated[
        bool,
        typer.Option(
            "--relink",
            help="Make again, from the store, the runs, links and registered versions that MLflow has not; of all"
            " runs, or of those that made MODEL_OR_URI or something on its way, or used it.",
        ),
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Walk from a model back to the raw data, or repair MLflow's records of it.

    Works from the store alone when MLflow cannot be asked, and from MLflow alone when the store cannot be read; a
    warning says so. Exit status 1 when something on the way is not as recorded, when `--check` could not read the
    store, or when there is something that `--relink` could not make again.

    Example: `forgetting lineage demo --check`
    """
    if relink and check:
        raise RequestError("--relink changes MLflow and --check compares with it: run one after the other")
    if relink:
        from flows.relink import relink as relink_runs
        from flows.relink_view import relink_document, show_relinked

        relinked = relink_runs(model, store)
        if as_json:
            print_json(relink_document(relinked))
        else:
            show_relinked(relinked)
        raise typer.Exit(1 if relinked.omissions else 0)
    if model is None:
        raise RequestError("lineage of what? name a registered model, an artifact's URI, a digest or a fingerprint")
    from flows.lineage import show, trace, warn
    from flows.lineage_view import lineage_document

    found = trace(model, store, check=check)
    warn(found)
    if as_json:
        print_json(lineage_document(found.ancestry, found.versions, found.evidence))
    else:
        show(found)
    raise typer.Exit(1 if found.faults or (check and not found.checked) else 0)


@app.command()
def doctor(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Check store, MLflow, Prefect and device, and say what to do about each fault.

    Example: `forgetting doctor --store s3://bucket/prefix`
    """
    settings = Settings.from_environment(store=store)
    settings.prepare_environment()
    from flows.doctor import examine

    findings = examine(settings)
    if as_json:
        print_json({"checks": [finding.as_json() for finding in findings]})
    else:
        for finding in findings:
            typer.echo(f"{'ok  ' if finding.ok else 'FAIL'} {finding.name}: {finding.message}")
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)


def main() -> None:
    """The console script: errors that a user can mend are one message and exit status 2."""
    from infra.errors import SourceError, StackError
    from infra.objects import StoreError

    try:
        app()
    except (InputError, RequestError, SourceError, SettingError) as error:
        _fail(error, 2)
    except (StoreError, TrackingError, StackError) as error:
        _fail(error, 1)


def _fail(error: Exception, status: int) -> None:
    typer.echo(f"error: {error}", err=True)
    if "--json" in sys.argv:
        print_json({"error": str(error), "steps": {}})
    sys.exit(status)
