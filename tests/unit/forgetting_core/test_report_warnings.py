"""The report warns of what is wrong with a run, says what to change, and is silent about a run that is right."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forgetting_core.config import ForgetConfig, LambdaConfig, Recipe
from forgetting_core.report.curves import Curve, read_curves
from forgetting_core.report.statistics import by_class, count_everything
from forgetting_core.report.token_class import TOKEN_CLASSES, WORD
from forgetting_core.report.warnings import RunWarning, find_warnings
from forgetting_core.run_facts import RunFacts
from tests.unit.forgetting_core.test_report import make_inputs, section
from tests.unit.forgetting_core.test_report_statistics import make_split
from tests.unit.forgetting_core.test_training import FULL, base, data, labels, rows, train

__all__ = ["base", "data", "labels", "rows"]

STEPS = 100
HELD_OUT = {"base": (2.0, 0.1), "ignore": (1.9, 0.1), "forget": (1.9, 0.1), "reference": (1.8, 0.1)}
STATISTICS = {
    "tokens": 1000,
    "negative_tokens": 300,
    "median_influence": 0.1,
    "by_class": [
        {"class": name, "tokens": 500 if name == WORD else 100, "negative_tokens": 250 if name == WORD else 10}
        for name in TOKEN_CLASSES
    ],
}


def recipe(**sections: Any) -> Recipe:
    return Recipe.model_validate({"name": "x", "model": {"path": "m"}, "data": {"train": ["a"]}, **sections})


def falling(first: float, last: float, scatter: float = 0.1) -> Curve:
    values = np.linspace(first, last, STEPS) + np.random.default_rng(0).normal(0, scatter, STEPS)
    return Curve(np.arange(1.0, STEPS + 1), values)


def warned(
    sections: dict[str, Any] | None = None,
    *,
    positive: Curve | None = None,
    negative: Curve | None = None,
    validation: Sequence[float] | None = None,
    held_out: dict[str, tuple[float, float]] | None = None,
    **statistics: Any,
) -> list[RunWarning]:
    """The warnings of a healthy run, but for what is given."""
    curves = {
        "loss_positive": positive or falling(2.0, 1.0),
        "loss_negative": negative or falling(2.0, 3.4),
    }
    if validation:
        steps = np.arange(len(validation), dtype=np.float64) * 10
        curves["validation/loss"] = Curve(steps, np.array(validation))
        curves["validation/loss_stderr"] = Curve(steps, np.full(len(validation), 0.1))
    models = {
        model: {"held_out": {"loss": loss, "loss_stderr": error, "tokens": 500}}
        for model, (loss, error) in {**HELD_OUT, **(held_out or {})}.items()
    }
    return find_warnings(recipe(**(sections or {})), {**STATISTICS, **statistics}, models, {"forget": curves})


def one(found: list[RunWarning], kind: str) -> RunWarning:
    assert [warning.kind for warning in found] == [kind]
    return found[0]


def test_a_healthy_run_warns_of_nothing() -> None:
    assert warned() == []
    assert warned(validation=[2.0, 1.8, 1.7, 1.75]) == []


def test_what_was_not_measured_is_not_judged() -> None:
    assert find_warnings(recipe(), STATISTICS, {"base": {}, "forget": {}}, {}) == []
    curve = Curve(np.arange(1.0, 20), np.full(19, 2.0))  # a training this short gains less than its noise anyway
    assert find_warnings(recipe(), STATISTICS, {}, {"forget": {"loss_positive": curve}}) == []
    alone = {model: {"held_out": {"loss": loss, "tokens": 5}} for model, loss in (("base", 1.0), ("forget", 9.0))}
    assert find_warnings(recipe(), STATISTICS, alone, {}) == []


def test_ascent_that_runs_away_is_told_with_figures_and_the_weight_to_try() -> None:
    runaway = falling(3.0, 11.0, 0.0)
    found = one(warned(negative=runaway), "negative loss running away")
    assert "rose from 3.36 to 10.64 nats" in found.found and "1,440 times less likely" in found.found
    assert "forget.lambda.t_max (now 0.25; try 0.025)" in found.advice and "forget.negative: npo" in found.advice
    assert warned({"forget": {"negative": "npo"}}, negative=runaway) == []


def test_held_out_loss_above_that_of_the_base_beyond_its_error_is_told() -> None:
    assert warned(held_out={"forget": (2.28, 0.1)}) == []
    found = one(warned(held_out={"forget": (2.29, 0.1)}), "held-out loss rising")
    assert "above the base model's: 2.000 ± 0.100 → 2.290 ± 0.100 nats" in found.found
    assert "t_max" in found.advice
    bounded = warned({"forget": {"negative": "npo"}}, held_out={"forget": (3, 0.1)})
    assert "t_max" in bounded[0].advice and "npo" not in bounded[0].advice
    (plain,) = warned({"forget": {"objective": "ignore"}}, held_out={"forget": (3, 0.1)})
    assert "forget.epochs" in plain.advice


def test_where_ignoring_does_the_same_the_labels_are_named_and_not_the_weight_of_forgetting() -> None:
    found = one(warned(held_out={"forget": (3, 0.1), "ignore": (2.9, 0.1)}), "held-out loss rising")
    assert "partition.rho" in found.advice and "validation rows" in found.advice and "t_max" not in found.advice


def test_a_validation_loss_that_rises_again_is_told_with_its_turning_point() -> None:
    found = one(warned(validation=[2.0, 1.5, 1.6, 1.9]), "held-out loss rising")
    assert "its lowest after optimizer step 10: 1.500 ± 0.100 → 1.900 ± 0.100" in found.found
    assert warned(validation=[2.0, 1.5, 1.6, 1.7]) == []


def test_positives_that_do_not_gain_are_told_beside_the_noise() -> None:
    kind = "positives' gain below the noise"
    found = one(warned(positive=falling(2.0, 1.99, 0.5)), kind)
    assert "standard error" in found.found and "forget.epochs" in found.advice
    assert warned(positive=falling(2.0, 1.95, 0.01)) == []
    undone = one(warned(positive=falling(2.0, 2.5, 0.01)), kind)
    assert "t_max" in undone.advice


def test_a_reference_that_is_no_better_than_the_base_is_told() -> None:
    kind = "reference no better than the base"
    found = one(warned(held_out={"reference": (2.0, 0.1)}), kind)
    assert "2.000 ± 0.100 nats under the reference and 2.000 ± 0.100 under the base" in found.found
    assert "validation rows are as noisy" in found.advice and "split.reference_rows" in found.advice
    models = {"base": {"held_out": {"loss": 2.0, "loss_stderr": 0.1}}}  # the reference itself was not evaluated
    silent = find_warnings(recipe(), STATISTICS, models, {})
    unhelpful = find_warnings(recipe(), {**STATISTICS, "median_influence": 0.0}, models, {})
    assert silent == [] and "half of the training split's response tokens" in one(unhelpful, kind).found
    for unread in ({"forget": {"objective": "sft"}}, {"partition": {"labelling": "loss_only"}}):
        assert warned(unread, held_out={"reference": (3.0, 0.1)}) == []


def test_format_tokens_that_dominate_the_negatives_are_told() -> None:
    """Real statistics: 20 words and 10 ends of text in ten rows."""

    def statistics(negative: str) -> dict[str, Any]:
        split = make_split([[-1 if negative == kind else 1 for kind in ("word", "word", "end")]] * 10, ["s"] * 10)
        input_ids = np.tile([0, 1, 2], 10).astype(np.int32)
        split = replace(split, rows=type(split.rows)(input_ids, split.rows.labels, split.rows.offsets))
        classes = {0: WORD, 1: WORD, 2: "special and end of text"}
        assert by_class(split, classes.__getitem__)[0]["tokens"] == 20
        return {**count_everything(split, classes.__getitem__), "median_influence": 0.1}

    assert warned(**statistics("word")) == []
    found = one(warned(**statistics("end")), "format tokens dominate the negatives")
    assert found.found.startswith("100% of the negative tokens are punctuation, white space or end of text")
    assert "special and end of text), and 33% of all" in found.found and "partition.rho" in found.advice


@pytest.mark.parametrize("weight, expected", [(1e-6, False), (5, True)])
def test_a_real_training_with_an_absurd_weight_runs_away(
    base: Path, data: Path, labels: Path, tmp_path: Path, weight: float, expected: bool
) -> None:
    config = ForgetConfig(**FULL, epochs=12, lambda_=LambdaConfig(schedule="constant", t_min=0, t_max=weight))
    train(config, base, data, labels, tmp_path / "out")
    curves = read_curves({"forget": (tmp_path / "out/aux/metrics.jsonl").read_text()})
    found = find_warnings(recipe(forget=config.model_dump(by_alias=True)), STATISTICS, {}, curves)
    assert ("negative loss running away" in {warning.kind for warning in found}) == expected


def test_the_page_shows_warnings_before_anything_else_and_the_step_returns_them(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    rising = "\n".join(
        json.dumps({"step": step, "loss_positive": 2 - step / 10, "loss_negative": 1.0 * step})
        for step in range(1, 11)
    )
    summary = inputs.write(tmp_path / "out", facts=RunFacts(curves={"forget": rising}))
    (found,) = summary["warnings"]
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    shown = section(page, "warnings")
    assert found["kind"] in shown and "rose from 1.00 to 10.00 nats" in shown and "t_max (now 0.25" in shown
    assert page.index('id="warnings"') < page.index('id="benchmarks"') and 'href="#warnings"' in page
    assert inputs.write(tmp_path / "healthy")["warnings"] == []
    assert 'id="warnings"' not in (tmp_path / "healthy/report.html").read_text(encoding="utf-8")
