"""The step itself: reads the evaluations, writes `comparison.json` and `comparison.html`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from forgetting_core.comparison import COMPARISON_FILE, PAGE_FILE
from forgetting_core.comparison.charts import curve_charts, difference_chart
from forgetting_core.comparison.items import read_evaluation
from forgetting_core.comparison.paired import CONFIDENCE
from forgetting_core.comparison.table import compare, merged
from forgetting_core.json_files import write_json
from forgetting_core.progress import Progress
from forgetting_core.report.curves import Curve, read_curves
from forgetting_core.report.html import templates


def write_comparison(
    recipe: str,
    *,
    evaluations: Mapping[int, Mapping[str, Sequence[Path]]],
    curves: Mapping[int, Mapping[str, Path]],
    against: str,
    out: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Write `comparison.json`, the form of `table.compare`, and `comparison.html`; same inputs, same bytes.

    `evaluations` are {seed: {model: artifacts of `evaluate`}}, `curves` the `metrics.jsonl` of the fine-tunes.
    Returns `{"differences": {model: {task: {metric: mean difference to `against`}}}}`. Raises `InputError` as
    `read_evaluation` and `compare` do.
    """
    found = {
        seed: {model: merged([read_evaluation(folder) for folder in folders]) for model, folders in of.items()}
        for seed, of in evaluations.items()
    }
    comparison = compare(found, against)
    write_json(out / COMPARISON_FILE, comparison)
    page = render_page(recipe, comparison, _curves(curves))
    (out / PAGE_FILE).write_text(page, encoding="utf-8", newline="\n")
    lines = comparison["lines"]
    progress.advance(len(lines), len(lines), "metrics")
    return {"differences": differences(comparison)}


def differences(comparison: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """{model: {task: {metric: mean difference to the one it is compared with}}}"""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for line in comparison["lines"]:
        for model, difference in line["differences"].items():
            found.setdefault(model, {}).setdefault(line["task"], {})[line["metric"]] = difference["mean"]
    return found


def _curves(files: Mapping[int, Mapping[str, Path]]) -> dict[str, dict[str, list[Curve]]]:
    found: dict[str, dict[str, list[Curve]]] = {}
    for of_models in files.values():
        lines = {model: path.read_text(encoding="utf-8") for model, path in of_models.items()}
        for model, quantities in read_curves(lines).items():
            for name, curve in quantities.items():
                found.setdefault(model, {}).setdefault(name, []).append(curve)
    return found


def render_page(recipe: str, comparison: Mapping[str, Any], curves: Mapping[str, Mapping[str, list[Curve]]]) -> str:
    """The HTML page; loads nothing and has no script."""
    environment = templates("forgetting_core.comparison", "forgetting_core.report")
    paired = [line for line in comparison["lines"] if line["differences"]]
    return environment.get_template("comparison.html.j2").render(
        recipe=recipe,
        comparison=comparison,
        confidence=f"{CONFIDENCE:.0%}",
        paired=paired,
        difference_charts=[Markup(difference_chart(line, comparison["against"])) for line in paired],
        curve_charts=[Markup(svg) for svg in curve_charts(curves)],
    )
