"""What the table says, stated by rule: which settings beat plain fine-tuning and positive-only training."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from statistics import fmean
from typing import Any

from scipy import stats

from benchmarks.study.grid import FORGETTING, RHOS, Run
from benchmarks.study.table import AGAINST, Setting
from forgetting_core.comparison.paired import CONFIDENCE

Condition = Mapping[str, Any]
Line = Mapping[str, Any]
"""Both as `table.tabulate` makes them."""
FEWEST_SEEDS = 3
"""That both sides of a difference must have for it to be judged: the spread of two says next to nothing."""


def judge(conditions: Sequence[Condition], runs: Sequence[Run]) -> dict[str, Any]:
    """`candidates`, `corrected_confidence`, `fewest_seeds`, and a line for each of the `conditions`.

    `candidates` are all settings that forget in the grid that was asked for, done or not: a study that is looked at
    before its end corrects for all that will be looked at. A line: `noise`, `reference`, `seeds` (the numbers of
    seeds that its judged differences have), `judged` (settings that forget with enough seeds), and as names of
    settings `better` (the interval of the difference lies above 0, against sft and against ignore at the same ρ),
    `better_corrected` (so do intervals that are wide enough for all candidates at once: Bonferroni, Student's t),
    `worse_than_sft`, and `ignore_better` (positive-only training that beats sft: the labels' gain without the
    loss's). `summary` see `_summary`.
    """
    candidates = len(
        {
            Setting.of(arm, run.noise, run.reference, run.rho)
            for run in runs
            for arm in run.kind.arms.values()
            if arm.name in FORGETTING
        }
    )
    confidence = 1 - (1 - CONFIDENCE) / max(1, candidates)
    return {
        "candidates": candidates,
        "corrected_confidence": confidence,
        "fewest_seeds": FEWEST_SEEDS,
        "conditions": [_judged(condition, confidence) for condition in conditions],
    }


def _judged(condition: Condition, confidence: float) -> dict[str, Any]:
    forgetting = [line for line in condition["lines"] if line["arm"] in FORGETTING and _enough(line, AGAINST)]
    ignore = [line for line in condition["lines"] if line["arm"] == "ignore" and _enough(line, ("sft",))]
    pairs = [*product(forgetting, AGAINST), *product(ignore, ("sft",))]
    return {
        "noise": condition["noise"],
        "reference": condition["reference"],
        "seeds": sorted({len(line["against"][name]["per_seed"]) for line, name in pairs}),
        "judged": len(forgetting),
        "better": [setting_name(line) for line in forgetting if _lowest(line) > 0],
        "better_corrected": [setting_name(line) for line in forgetting if _lowest(line, confidence) > 0],
        "worse_than_sft": [setting_name(line) for line in forgetting if line["against"]["sft"]["high"] < 0],
        "ignore_better": [setting_name(line) for line in ignore if line["against"]["sft"]["low"] > 0],
        "summary": _summary(condition),
    }


def setting_name(line: Line) -> str:
    """`ignore, ρ 0.7`"""
    return line["arm"] if line["rho"] is None else f"{line['arm']}, ρ {line['rho']}"


def _enough(line: Line, names: Iterable[str]) -> bool:
    return all(len(line["against"].get(name, {}).get("per_seed", ())) >= FEWEST_SEEDS for name in names)


def _lowest(line: Line, confidence: float = CONFIDENCE) -> float:
    """The smaller of the lower ends of the two intervals of `confidence`, against sft and against ignore."""
    return min(_low(line["against"][name], confidence) for name in AGAINST)


def _low(difference: Mapping[str, Any], confidence: float) -> float:
    width = stats.t.ppf((1 + confidence) / 2, len(difference["per_seed"]) - 1)
    return float(difference["mean"] - width * difference["stderr"])


def _summary(condition: Condition) -> dict[str, Any] | None:
    """What the labels gain and what forgetting adds to it, at the ρ of `RHOS` that comes first: the grid's choice,
    made before there were results. `rho`, `labels` (ignore minus sft), `sft` and `ignore` (accuracies over
    the same seeds), and `forgetting` ({arm: its difference from ignore}); None where ignore or sft is missing.
    """
    lines = {line["arm"]: line for line in condition["lines"] if line["rho"] in (None, RHOS[0])}
    if not {"sft", "ignore"} <= lines.keys() or "sft" not in lines["ignore"]["against"]:
        return None
    labels = lines["ignore"]["against"]["sft"]
    return {
        "rho": RHOS[0],
        **{arm: fmean(lines[arm]["accuracy"]["per_seed"][seed] for seed in labels["per_seed"]) for arm in AGAINST},
        "labels": labels,
        "forgetting": {
            arm: lines[arm]["against"]["ignore"]
            for arm in FORGETTING
            if arm in lines and "ignore" in lines[arm]["against"]
        },
    }
