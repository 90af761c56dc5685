"""The report warns of what is wrong with a run, says what to change, and is silent about a run that is right."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forgetting_core.config import ForgetConfig, LambdaConfig, Recipe
from forgetting_core.evaluation.held_out import RowLosses, write_row_losses
from forgetting_core.report.curves import Curve, read_curves
from forgetting_core.report.statistics import by_class, count_everything
from forgetting_core.report.token_class import TOKEN_CLASSES, WORD
from forgetting_core.report.warnings import RunWarning, find_warnings, skipped_rows
from forgetting_core.run_facts import RunFacts
from tests.unit.forgetting_core.test_report import make_inputs, section
from tests.unit.forgetting_core.test_report_statistics import make_split
from tests.unit.forgetting_core.test_training import FULL, base, data, labels, rows, train

__all__ = ["base", "data", "labels", "rows"]

STEPS = 100
HELD_OUT = {"ignore": (-0.1, 0.02), "forget": (-0.1, 0.02), "reference": (-0.2, 0.02)}
"""What a model's loss is above the base's, and the error of that."""
STATISTICS = {
    "tokens": 1000,
    "negative_tokens": 300,
    "median_influence": 0.1,
    "by_class": [
        {"class": name, "tokens": 500 if name == WORD else 100, "negative_tokens": 250 if name == WORD else 10}
        for name in TOKEN_CLASSES
    ],
}


def standardised(seed: int) -> np.ndarray:
    """(50,) of mean 0, and of standard error 1 of that mean."""
    draws = np.random.default_rng(seed).normal(size=50)
    scaled: np.ndarray = (draws - draws.mean()) / draws.std(ddof=1) * math.sqrt(50)
    return scaled


BEFORE = RowLosses(
    rows=np.arange(50),
    sums=10 * (2.0 + 0.1 * standardised(0)),
    tokens=np.full(50, 10),
    digests=[str(row) for row in range(50)],
)
"""Of the base: 2.0 ± 0.1 nats."""


def changed_by(change: float, stderr: float) -> RowLosses:
    return replace(BEFORE, sums=BEFORE.sums + BEFORE.tokens * (change + stderr * standardised(1)))


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
        losses = np.array(validation)
        curves["validation/loss"] = Curve(steps, losses)
        curves["validation/loss_change"] = Curve(steps[1:], losses[1:] - losses[0])
        curves["validation/loss_change_stderr"] = Curve(steps[1:], np.full(len(losses) - 1, 0.1))
    rows = {model: changed_by(*change) for model, change in {**HELD_OUT, **(held_out or {})}.items()}
    judged = {**STATISTICS, **statistics}
    return find_warnings(recipe(**(sections or {})), judged, {"base": BEFORE, **rows}, {"forget": curves})


def one(found: list[RunWarning], kind: str) -> RunWarning:
    assert [warning.kind for warning in found] == [kind]
    return found[0]


def test_a_healthy_run_warns_of_nothing() -> None:
    assert warned() == []
    assert warned(validation=[2.0, 1.8, 1.7, 1.75]) == []


def test_what_was_not_measured_is_not_judged() -> None:
    assert find_warnings(recipe(), STATISTICS, {}, {}) == []
    curve = Curve(np.arange(1.0, 20), np.full(19, 2.0))  # a training this short gains less than its noise anyway
    assert find_warnings(recipe(), STATISTICS, {}, {"forget": {"loss_positive": curve}}) == []
    one_row = RowLosses(np.array([0]), np.array([1.0]), np.array([5]), ["x"])
    alone = {"base": one_row, "forget": replace(one_row, sums=np.array([9.0]))}
    assert find_warnings(recipe(), STATISTICS, alone, {}) == []


def test_ascent_that_runs_away_is_told_with_figures_and_the_weight_to_try() -> None:
    runaway = falling(3.0, 11.0, 0.0)
    found = one(warned(negative=runaway), "negative loss running away")
    assert "rose from 3.36 to 10.64 nats" in found.found and "1,440 times less likely" in found.found
    assert "forget.lambda.t_max (now 0.25; try 0.025)" in found.advice and "forget.negative: npo" in found.advice
    assert warned({"forget": {"negative": "npo"}}, negative=runaway) == []


def test_held_out_loss_above_that_of_the_base_beyond_the_paired_error_is_told() -> None:
    """The losses themselves have errors of 0.1 each, in which such a rise would be lost."""
    assert warned(held_out={"forget": (0.035, 0.02)}) == []
    found = one(warned(held_out={"forget": (0.104, 0.0165)}), "held-out loss rising")
    assert "rose over the training by 0.104 ± 0.016 nats (2.000 → 2.104)" in found.found
    assert "t_max" in found.advice
    bounded = warned({"forget": {"negative": "npo"}}, held_out={"forget": (1, 0.1)})
    assert "t_max" in bounded[0].advice and "npo" not in bounded[0].advice
    (plain,) = warned({"forget": {"objective": "ignore", "epochs": 2}}, held_out={"forget": (1, 0.1)})
    assert plain.advice == "lower forget.epochs (now 2) or forget.learning_rate (now 0.0001)"
    (short,) = warned({"forget": {"objective": "ignore"}}, held_out={"forget": (1, 0.1)})
    assert short.advice == "lower forget.learning_rate (now 0.0001)"


def test_rows_that_change_by_chance_alone_seldom_warn() -> None:
    alarms = 0
    for seed in range(400):
        change = np.random.default_rng(seed).normal(0, 0.14, 50)
        changed = replace(BEFORE, sums=BEFORE.sums + change * BEFORE.tokens)
        alarms += bool(find_warnings(recipe(), STATISTICS, {"base": BEFORE, "forget": changed}, {}))
    assert 1 <= alarms <= 20  # 2.5 % are 10


@pytest.mark.parametrize(
    "partition, advised",
    [
        ({}, "otherwise raise partition.rho (now 0.7)"),
        ({"threshold": 0.5}, "otherwise lower partition.threshold (now 0.5)"),
        ({"labelling": "oracle_noise"}, None),
    ],
)
def test_where_ignoring_does_the_same_the_labels_are_named_and_not_the_weight_of_forgetting(
    partition: dict[str, Any], advised: str | None
) -> None:
    rising = warned({"partition": partition}, held_out={"forget": (1, 0.1), "ignore": (0.9, 0.1)})
    advice = one(rising, "held-out loss rising").advice
    assert "rises likewise (0.900 ± 0.100" in advice and "validation rows" in advice and "t_max" not in advice
    assert advice.endswith(advised) if advised else "partition" not in advice


def test_a_validation_loss_above_that_before_the_training_is_told() -> None:
    found = one(warned(validation=[2.0, 1.5, 1.8, 2.3]), "held-out loss rising")
    assert "rose over the training by 0.300 ± 0.100 nats (2.000 → 2.300)" in found.found
    assert warned(validation=[2.0, 2.5, 2.15]) == []


def test_many_measurements_that_only_scatter_do_not_warn() -> None:
    """The lowest of a hundred lies five errors below the last, by chance."""
    draws = np.random.default_rng(0).normal(0, 0.1, 99)
    draws[-1] = 0.19
    assert draws[-1] - draws.min() > 4 * 0.1
    assert warned(validation=[2.0, *(2 + draws)]) == []


def test_positives_that_do_not_gain_are_told_beside_the_noise() -> None:
    kind = "positives' gain below the noise"
    found = one(warned(positive=falling(2.0, 1.99, 0.5)), kind)
    assert "standard error" in found.found and "forget.epochs" in found.advice
    assert warned(positive=falling(2.0, 1.95, 0.01)) == []
    undone = one(warned(positive=falling(2.0, 2.5, 0.01)), kind)
    assert "t_max" in undone.advice


def test_a_reference_that_is_no_better_than_the_base_is_told() -> None:
    kind = "reference no better than the base"
    found = one(warned(held_out={"reference": (-0.03, 0.02)}), kind)
    assert "changes by -0.030 ± 0.020 nats (2.000 → 1.970), which is no fall beyond 2 standard" in found.found
    assert "validation rows are as noisy" in found.advice and "split.reference_rows" in found.advice
    assert warned(held_out={"reference": (-0.05, 0.02)}) == []
    base = {"base": BEFORE}  # the reference itself was not evaluated
    silent = find_warnings(recipe(), STATISTICS, base, {})
    unhelpful = find_warnings(recipe(), {**STATISTICS, "median_influence": 0.0}, base, {})
    assert silent == [] and "half of the training split's response tokens" in one(unhelpful, kind).found
    for unread in ({"forget": {"objective": "sft"}}, {"partition": {"labelling": "loss_only"}}):
        assert warned(unread, held_out={"reference": (1.0, 0.1)}) == []


def test_a_reference_that_was_only_named_cannot_be_trained_otherwise() -> None:
    named = {"reference": {"model": {"path": "m"}}}
    found = one(warned(named, held_out={"reference": (1, 0.1)}), "reference no better than the base")
    assert "another reference.model" in found.advice
    assert not any(field in found.advice for field in ("epochs", "learning_rate", "reference_rows"))


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
    assert "special and end of text), and 33% of all" in found.found
    assert "raise partition.rho" in found.advice and "data.reference" in found.advice
    (by_loss,) = warned({"partition": {"labelling": "loss_only", "threshold": 1}}, **statistics("end"))
    assert by_loss.advice == "lower partition.threshold (now 1)"
    (named,) = warned({"reference": {"model": {"path": "m"}}}, **statistics("end"))
    assert "reference.model" in named.advice and "data.reference" not in named.advice
    assert warned({"partition": {"labelling": "oracle_noise"}}, **statistics("end")) == []


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


def test_the_page_warns_by_the_stored_losses_of_rows(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    for model, losses in (("base", BEFORE), ("forget", changed_by(0.104, 0.0165))):
        (folder,) = (path for path in inputs.metrics[model] if path.name.endswith("held_out"))
        write_row_losses(folder, losses)
    (found,) = inputs.write(tmp_path / "out")["warnings"]
    assert found["kind"] == "held-out loss rising" and "0.104 ± 0.016" in found["found"]


def test_skipped_rows_are_told_with_where_they_are() -> None:
    (found,) = skipped_rows({"train": 7, "reference": 0})
    assert found.kind == "bad rows of data.train skipped"
    assert found.found.startswith("7 rows") and "aux/bad_rows.jsonl" in found.advice
