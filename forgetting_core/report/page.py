"""The step itself: reads the artifacts, writes `report.html` and `statistics.json`.

The page loads nothing, so that it opens from a file, a bucket or a sandboxed viewer alike; its one script, allowed
by its hash, browses the rows, and without it the first of them can still be read.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from forgetting_core.config import Recipe, identity
from forgetting_core.json_files import write_json
from forgetting_core.models import load_tokenizer
from forgetting_core.progress import Progress
from forgetting_core.report import charts, model_charts
from forgetting_core.report.benchmarks import MEANINGS, Metrics, benchmark_table, read_held_out, read_metrics
from forgetting_core.report.curves import CURVES, POINTS, Curve, ends_of, model_of, read_curves
from forgetting_core.report.html import templates
from forgetting_core.report.row_data import choose_rows, json_for_script, row_data
from forgetting_core.report.run_graph import draw_graph
from forgetting_core.report.scored_split import ScoredSplit, read_scored_split
from forgetting_core.report.statistics import count_everything
from forgetting_core.report.sweep import read_sweep
from forgetting_core.report.token_text import TokenText, visible
from forgetting_core.report.token_view import static_rows
from forgetting_core.report.warnings import RunWarning, find_warnings, skipped_rows
from forgetting_core.run_facts import RunFacts

REPORT_FILE = "report.html"
STATISTICS_FILE = "statistics.json"
SOURCES_SHOWN = 30
STATE_SIGNS = {"ran": "▶", "cached": "✓", "evicted": "∅", "given": "◇"}


def write_report(
    recipe: Recipe,
    *,
    data: Path,
    tokenizer: Path,
    loss_base: Path,
    loss_reference: Path,
    token_labels: Path,
    metrics: Mapping[str, Sequence[Path]],
    facts: RunFacts,
    out: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Write `report.html` and `statistics.json`; the same inputs give the same bytes.

    `data` is the train split, `tokenizer` a folder with its tokenizer, `metrics` the folders of
    each model's evaluations. `facts` are on the page and in the warnings only, so the artifact's content is
    `statistics.json`.

    Returns `{"tokens", "negative_share", "warnings"}`, the last as `find_warnings` has them, and where planted
    noise is known `"noise"`: its tokens and share, the share of it called negative, chance, precision, and the ROC
    AUC of −influence as its detector.

    Raises `InputError` when the artifacts are of different splits or one cannot be read.
    """
    split = read_scored_split(data, loss_base, loss_reference, token_labels)
    text = TokenText(load_tokenizer(tokenizer))
    models = read_metrics(metrics)
    statistics = count_everything(split, text.token_class)
    for tokens in statistics["frequent"].values():
        for token in tokens:
            token["token"] = text.token_with_spaces(token["id"])
    statistics |= {"partition": identity(recipe.partition), "benchmarks": benchmark_table(models)}
    write_json(out / STATISTICS_FILE, statistics)
    curves = read_curves(facts.curves)
    warnings = [
        *find_warnings(recipe, statistics, read_held_out(metrics), curves),
        *skipped_rows(facts.bad_rows),
    ]
    page = render_page(recipe, statistics, models, facts, curves, warnings, split, text)
    (out / REPORT_FILE).write_text(page, encoding="utf-8", newline="\n")
    progress.advance(statistics["tokens"], statistics["tokens"], "tokens")
    summary: dict[str, Any] = {
        key: statistics[key] for key in ("tokens", "negative_share", "noise") if key in statistics
    }
    return {**summary, "warnings": [asdict(warning) for warning in warnings]}


def render_page(
    recipe: Recipe,
    statistics: dict[str, Any],
    models: Mapping[str, Metrics],
    facts: RunFacts,
    curves: Mapping[str, Mapping[str, Curve]],
    warnings: Sequence[RunWarning],
    split: ScoredSplit,
    text: TokenText,
) -> str:
    """The HTML page; `models` with their metrics are the columns of the benchmark table."""
    environment = templates("forgetting_core.report")
    script = environment.get_template("browse.js.j2").render()
    chosen = choose_rows(split)
    sweep = read_sweep(facts.sweep, models)
    return environment.get_template("page.html.j2").render(
        recipe=recipe,
        config="\n".join(
            map(visible, yaml.safe_dump(identity(recipe), sort_keys=False, allow_unicode=True).split("\n"))
        ),
        statistics=statistics,
        models=models,
        meanings=MEANINGS,
        sources_shown=SOURCES_SHOWN,
        rows=static_rows(split, text, chosen),
        rows_embedded=len(chosen),
        row_data=json_for_script(row_data(split, text, chosen)),
        script=Markup(script),
        script_digest=_script_digest(script),
        histogram=Markup(
            charts.influence_histogram(
                statistics["histogram"], statistics["threshold"] if recipe.partition.has_common_threshold else None
            )
        ),
        position=Markup(charts.position_bars(statistics["by_position"], statistics["negative_share"])),
        facts=facts,
        signs=STATE_SIGNS,
        graph=draw_graph([step for step in facts.steps if step.state != "given"]),
        warnings=warnings,
        curves=curves,
        curve_names=[name for name in CURVES if any(name in of_model for of_model in curves.values())],
        curve_ends={
            model: {name: ends_of(curve) for name, curve in of_model.items()} for model, of_model in curves.items()
        },
        curve_charts=[Markup(svg) for svg in model_charts.curve_charts(curves)],
        points_drawn=POINTS,
        curves_gone=[model_of(label) for label, lines in facts.curves.items() if lines is None],
        sweep=sweep,
        sweep_charts=[Markup(svg) for svg in model_charts.sweep_charts(sweep)] if sweep else [],
    )


def _script_digest(script: str) -> str:
    """The digest by which a Content-Security-Policy allows this very script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
