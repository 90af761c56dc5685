"""What the table says, stated by rule: which settings beat plain fine-tuning and positive-only training."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import Any

from benchmarks.study.grid import FORGETTING
from benchmarks.study.table import AGAINST
from forgetting_core.comparison.paired import CONFIDENCE

Condition = Mapping[str, Any]
"""As `table.tabulate` makes it."""


def judge(conditions: Sequence[Condition]) -> dict[str, Any]:
    """`candidates` (settings that forget, compared with both), `corrected_confidence`, and a line per condition.

    A line: `noise`, `reference`, `seeds`, `candidates`, and as names of settings `better` (the interval of the
    difference leaves out 0 against sft and against ignore at the same ρ), `better_corrected` (so do intervals that
    are wide enough for all candidates of the study at once: Bonferroni, normal), `worse_than_sft`, and
    `ignore_better` (positive-only training that beats sft: the labels' gain without the loss's).
    """
    candidates = sum(len(list(_candidates(condition))) for condition in conditions)
    confidence = 1 - (1 - CONFIDENCE) / max(1, candidates)
    width = NormalDist().inv_cdf((1 + confidence) / 2)

    def line(condition: Condition) -> dict[str, Any]:
        found = list(_candidates(condition))
        return {
            "noise": condition["noise"],
            "reference": condition["reference"],
            "seeds": sorted({len(one["accuracy"]["per_seed"]) for one in found}),
            "candidates": len(found),
            "better": [setting_name(one) for one in found if _lowest(one) > 0],
            "better_corrected": [setting_name(one) for one in found if _lowest(one, width) > 0],
            "worse_than_sft": [setting_name(one) for one in found if one["against"]["sft"]["high"] < 0],
            "ignore_better": [
                setting_name(one)
                for one in condition["lines"]
                if one["arm"] == "ignore" and one["against"].get("sft", {}).get("low", 0) > 0
            ],
        }

    return {
        "candidates": candidates,
        "corrected_confidence": confidence,
        "conditions": [line(condition) for condition in conditions],
    }


def setting_name(line: Mapping[str, Any]) -> str:
    """`ignore, ρ 0.7`"""
    return line["arm"] if line["rho"] is None else f"{line['arm']}, ρ {line['rho']}"


def _candidates(condition: Condition) -> Iterator[Mapping[str, Any]]:
    for line in condition["lines"]:
        if line["arm"] in FORGETTING and set(AGAINST) <= line["against"].keys():
            yield line


def _lowest(line: Mapping[str, Any], width: float | None = None) -> float:
    """The smaller of the two lower ends: of the bootstrap intervals, or of means ± `width` standard errors."""
    found = [line["against"][name] for name in AGAINST]
    if width is None:
        return min(float(difference["low"]) for difference in found)
    return min(float(difference["mean"] - width * difference["stderr"]) for difference in found)
