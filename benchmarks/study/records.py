"""What is kept of each run of the study: a JSON file with all that the table needs, beside the store.

The table of a study that is still running, or was stopped, is made of the records so far.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.study.grid import METRIC, PUBLISHED, RECIPE, TASK, Run
from benchmarks.study.made import made_now
from flows.dag import SPECS
from flows.outcome import Outcome
from flows.recipes import find_recipe
from forgetting_core.comparison.items import read_evaluation
from forgetting_core.config import identity
from forgetting_core.recipe import load_recipe
from forgetting_core.report.curves import ends_of, read_curves
from infra.fingerprint import canonical_json
from tasks.evaluate import label_of
from tasks.records import CURVES_FILE

FOLDER = "records"
LOSSES = ("loss_positive", "loss_negative")


def key_of(run: Run) -> str:
    """Changes with what the run depends on: the recipe, and the versions of the steps."""
    recipe = identity(load_recipe(find_recipe(RECIPE), run.overrides))
    versions = {name: spec.version for name, spec in SPECS.items()}
    return hashlib.sha256(canonical_json({"recipe": recipe, "versions": versions})).hexdigest()


def read_record(run: Run, state: Path) -> dict[str, Any] | None:
    """The record of the run, whatever made it; None when it is not done."""
    path = _path(run, state)
    if not path.is_file():
        return None
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def is_current(record: Mapping[str, Any], run: Run) -> bool:
    """Whether the recipe and the versions of the steps are still those that the record was made by."""
    return bool(record["key"] == key_of(run))


def write_record(run: Run, outcome: Outcome, state: Path) -> dict[str, Any]:
    """Read the run's artifacts from its store, a folder, and keep what the table needs."""
    record = {
        "key": key_of(run),
        "made": made_now(),
        "seed": run.seed,
        "noise": run.noise,
        "reference": run.reference,
        "rho": run.rho,
        "kind": run.kind.name,
        "arms": {arm.name: _arm(outcome, model) for model, arm in run.kind.arms.items()},
        "detection": _detection(outcome) if run.kind == PUBLISHED else None,
    }
    path = _path(run, state)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_suffix(f".{os.getpid()}")
    written.write_text(json.dumps(record, sort_keys=True) + "\n", encoding="utf-8")
    written.replace(path)
    return record


def _path(run: Run, state: Path) -> Path:
    return state / FOLDER / f"{run.name}{'-tiny' if run.tiny else ''}.json"


def _folder(outcome: Outcome, label: str) -> Path:
    return Path(outcome.steps[label].ref.uri)


def _arm(outcome: Outcome, model: str) -> dict[str, Any]:
    """Per item, 1 for a right answer; what was asked; and the losses of the training."""
    items = read_evaluation(_folder(outcome, label_of(model, TASK))).items[TASK, METRIC]
    trained = "forget" if model == "forget" else f"forget[{model}]"
    training = None
    if trained in outcome.steps:
        training = losses_of((_folder(outcome, trained) / CURVES_FILE).read_text(encoding="utf-8"), model)
    return {"items": items.values.tolist(), "asked": items.asked, "training": training}


def losses_of(lines: str, model: str) -> dict[str, list[float]]:
    """{loss: its mean over the first and over the last tenth of its points}, nats per token, as the report has it.

    `lines` is the file of the training's curves.
    """
    curves = read_curves({model: lines}).get(model, {})
    return {name: list(ends_of(curves[name])) for name in LOSSES if name in curves}


def _detection(outcome: Outcome) -> dict[str, Any] | None:
    """How well influence finds the planted noise, as the report has it; None where there is none."""
    detection: dict[str, Any] = outcome.steps["report"].summary["noise"]
    return detection if detection["auc"] is not None else None
