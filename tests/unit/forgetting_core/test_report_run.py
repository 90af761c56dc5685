"""What the report tells about the run around it: steps and their drawing, training curves, the sweep over ρ."""

import itertools
import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forgetting_core.report.curves import POINTS, ends_of, read_curves, thinned
from forgetting_core.report.run_graph import HEIGHT, WIDTH, Drawing, draw_graph
from forgetting_core.report.sweep import read_sweep
from forgetting_core.run_facts import RunFacts, StepFacts, SweepPoint
from tests.unit.forgetting_core.test_report import METRICS, Inputs, Page, make_inputs, section

READS = {
    "split": (),
    "reference": ("split",),
    "score[base]": ("split",),
    "score[reference]": ("reference", "split"),
    "partition": ("score[base]", "score[reference]"),
    "forget": ("split", "partition"),
    "evaluate[base]": ("split",),
    "evaluate[forget]": ("forget", "split"),
}
STEPS = tuple(
    StepFacts(label, "cached" if place < 4 else "ran", f"{place:x}d" * 32, f"{place:x}f" * 32, 10.0**place, reads)
    for place, (label, reads) in enumerate(READS.items())
)


def lines(steps: int, **quantities: float) -> str:
    return "\n".join(json.dumps({"step": step + 1, **quantities}) for step in range(steps))


def points(*rhos: str) -> tuple[SweepPoint, ...]:
    def metrics(rho: str) -> dict[str, Any]:
        return {**METRICS, "forget": {"boolq": {"acc": float(rho), "acc_stderr": 0.01}}}

    return tuple(SweepPoint(rho, metrics(rho)) for rho in rhos)


FACTS = RunFacts(
    flow_run_id="the-run",
    steps=(StepFacts("tokenizer (given)", "given", "ab" * 32), *STEPS),
    curves={
        "reference": lines(9, loss_positive=2.0, lr=0.1, grad_norm=1.0),
        "forget": lines(9, loss_positive=3.0, loss_negative=4.0, lr=0.1, grad_norm=1.0, **{"lambda": 1e-5}),
        "forget[sft]": None,
    },
    sweep=points("0.5", "0.7"),
    bad_rows={"train": 7, "reference": 0},
    runs_searched=200,
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def html(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("report") / "out"
    inputs.write(out, facts=FACTS)
    return (out / "report.html").read_text(encoding="utf-8")


def text_of(html: str, name: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", section(html, name))).split())


def test_rows_that_were_skipped_are_on_the_page(html: str) -> None:
    assert "bad rows of data.train skipped" in html and "data.reference" not in html


def test_every_step_has_its_state_in_words_its_time_and_both_digests(html: str) -> None:
    text = text_of(html, "steps")
    for step in STEPS:
        label, reads = re.escape(step.label), re.escape(", ".join(step.reads) or "–")
        assert re.search(rf"{label} . {step.state} [\d.hmins ]+ {reads} {step.fingerprint} {step.digest}", text)
    assert "tokenizer (given) ◇ given – – – " + "ab" * 32 in text
    assert "✓ 4 cached · ▶ 4 ran" in text
    assert "partition ▶ ran · 2 h 46 min" in text


def test_facts_about_the_run_do_not_change_the_content(inputs: Inputs, tmp_path: Path) -> None:
    inputs.write(tmp_path / "with", facts=FACTS)
    inputs.write(tmp_path / "without")
    assert len({(tmp_path / name / "statistics.json").read_bytes() for name in ("with", "without")}) == 1


def test_a_page_with_charts_of_several_models_has_no_id_twice(html: str) -> None:
    ids = Page(html).ids
    assert len(ids) == len(set(ids))
    assert html.count("<svg") == 2 + 1 + 2 + 5  # statistics, steps, two metrics of the sweep, five curves


def covered(drawing: Drawing) -> list[tuple[str, str]]:
    """Boxes that lie on each other."""
    return [
        (one.step.label, other.step.label)
        for one, other in itertools.combinations(drawing.boxes, 2)
        if abs(one.x - other.x) < WIDTH and abs(one.y - other.y) < HEIGHT
    ]


def test_arrows_point_down_and_boxes_lie_apart() -> None:
    drawing = draw_graph(STEPS)
    assert [box.step for box in drawing.boxes] == list(STEPS)
    assert not covered(drawing)
    top = {box.step.label: box.y for box in drawing.boxes}
    assert all(top[parent] < top[label] for label, parents in READS.items() for parent in parents)
    assert all(
        0 <= box.x <= drawing.width - WIDTH and 0 <= box.y <= drawing.height - HEIGHT for box in drawing.boxes
    )


def test_only_arrows_that_no_other_way_implies_are_drawn() -> None:
    # split → score[reference], forget and evaluate[forget] are implied
    assert len(draw_graph(STEPS).arrows) == 8
    assert draw_graph(()).boxes == []


def test_an_arrow_passes_beside_the_boxes_between() -> None:
    drawing = draw_graph(STEPS)
    start = next(box for box in drawing.boxes if box.step.label == "score[base]")
    (path,) = [
        path for path in drawing.arrows if path.startswith(f"M{start.x + WIDTH / 2:.1f} {start.y + HEIGHT:.1f}C")
    ]
    passed = next(box for box in drawing.boxes if box.step.label == "score[reference]")
    (straight,) = re.findall(rf"([\d.]+) {passed.y:.1f}V{passed.y + HEIGHT:.1f}", path)
    assert not passed.x <= float(straight) <= passed.x + WIDTH


def test_curves_come_by_model_and_a_missing_one_is_told(html: str) -> None:
    text = text_of(html, "curves")
    assert "reference 9 2 → 2 – – 0.1 → 0.1 1 → 1 forget 9 3 → 3 4 → 4 1e-05 → 1e-05 0.1 → 0.1 1 → 1" in text
    assert "No curves of sft" in text


def test_long_curves_are_thinned_to_means() -> None:
    written = "\n".join(json.dumps({"step": step, "lr": float(step)}) for step in range(1, 10 * POINTS - 3))
    curve = read_curves({"forget": written})["forget"]["lr"]
    assert len(curve.steps) == 10 * POINTS - 4
    few = thinned(curve)
    assert len(few.steps) == POINTS
    assert np.array_equal(few.steps, few.values)
    assert (few.low[0], few.values[0], few.high[0]) == (1, 5.5, 10)
    assert (few.low[-1], few.values[-1], few.high[-1]) == (591, 593.5, 596)
    assert ends_of(curve) == (30, 567)


def test_the_sweep_shows_every_rho_and_the_models_that_do_not_depend_on_it(html: str) -> None:
    text = text_of(html, "sweep")
    assert "forget 0.5 0.5000 ± 0.0100 –" in text
    assert "forget 0.7 this page 0.7000 ± 0.0100 –" in text
    assert "base any 0.5000 ± 0.0123 3.5000" in text


def test_one_rho_is_no_sweep(inputs: Inputs, tmp_path: Path) -> None:
    assert read_sweep(points("0.7"), METRICS) is None
    inputs.write(tmp_path / "out", facts=RunFacts(sweep=points("0.7")))
    assert 'id="sweep"' not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
