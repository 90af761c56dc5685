"""The numbers of the study: accuracy of each setting over seeds, and paired differences against sft and ignore.

Plain JSON data, made of the records alone; seeds that a setting lacks are left out of it, and counted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.study.grid import ARMS, Arm
from forgetting_core.comparison import paired_difference

Record = Mapping[str, Any]
AGAINST = ("sft", "ignore")
_ARM = {arm.name: arm for arm in ARMS}


@dataclass(frozen=True)
class Setting:
    """What a model's result depends on beside the seed; None where it makes no difference."""

    arm: str
    noise: str
    reference: str | None
    rho: str | None

    @classmethod
    def of(cls, arm: Arm, noise: str, reference: str, rho: str) -> "Setting":
        """Without what makes no difference to the arm."""
        return cls(arm.name, noise, reference if arm.on_reference else None, rho if arm.on_rho else None)


Trained = dict[Setting, dict[int, dict[str, Any]]]
"""{setting: {seed: what the record has of it}}"""


def tabulate(records: Iterable[Record]) -> list[dict[str, Any]]:
    """A dictionary for each noise and reference there are records of: `noise`, `reference`, `detection`, `lines`.

    `detection` is the area under the ROC of influence as a noise detector (`mean`, `stderr`, `per_seed`), None
    without noise. A line is a setting: `arm`, `rho`, `accuracy` likewise, `training` (its losses over the first and
    the last tenth of the steps, nats, means over seeds) and `against`: by the name of the other setting, which has
    the same ρ if it has one, the paired difference (`comparison.Difference`) over the seeds that both have.

    Raises `ValueError` when two models of a seed were asked different questions.
    """
    records = list(records)
    trained = _trained(records)
    conditions = sorted(
        {(record["noise"], record["reference"]) for record in records}, key=lambda c: (float(c[0]), c[1])
    )
    rhos = sorted({record["rho"] for record in records}, key=float)
    return [
        {
            "noise": noise,
            "reference": reference,
            "detection": _detection(records, noise, reference),
            "lines": [
                _line(setting, trained, reference)
                for setting in _settings(noise, reference, rhos)
                if setting in trained
            ],
        }
        for noise, reference in conditions
    ]


def _trained(records: list[Record]) -> Trained:
    found: Trained = {}
    asked: dict[int, str] = {}
    for record in records:
        seed = record["seed"]
        for name, result in record["arms"].items():
            if asked.setdefault(seed, result["asked"]) != result["asked"]:
                raise ValueError(f"seed {seed}: models were asked different questions, so they cannot be paired")
            setting = Setting.of(_ARM[name], record["noise"], record["reference"], record["rho"])
            found.setdefault(setting, {})[seed] = result
    return found


def _settings(noise: str, reference: str, rhos: list[str]) -> list[Setting]:
    found = [Setting.of(arm, noise, reference, rho) for arm in ARMS for rho in rhos]
    return list(dict.fromkeys(found))


def _line(setting: Setting, trained: Trained, reference: str) -> dict[str, Any]:
    ours = trained[setting]
    against = {}
    for name in AGAINST:
        other = Setting.of(_ARM[name], setting.noise, reference, setting.rho or "")
        theirs = trained.get(other, {})
        if other != setting and (both := sorted(ours.keys() & theirs.keys())):
            against[name] = asdict(paired_difference(_items(ours, both), _items(theirs, both)))
    accuracy = {seed: float(np.mean(result["items"])) for seed, result in ours.items()}
    return {
        "arm": setting.arm,
        "rho": setting.rho,
        "accuracy": over_seeds(accuracy),
        "training": _training(list(ours.values())),
        "against": against,
    }


def _items(of: Mapping[int, Mapping[str, Any]], seeds: list[int]) -> dict[int, np.ndarray]:
    return {seed: np.array(of[seed]["items"]) for seed in seeds}


def over_seeds(per_seed: Mapping[int, float]) -> dict[str, Any]:
    """Mean, standard error of the mean (None for a single seed), and the values."""
    values = [per_seed[seed] for seed in sorted(per_seed)]
    stderr = float(stats.sem(values)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "stderr": stderr, "per_seed": dict(sorted(per_seed.items()))}


def _training(results: list[Mapping[str, Any]]) -> dict[str, list[float]] | None:
    curves = [result["training"] for result in results if result["training"]]
    if not curves:
        return None
    names = sorted(set.intersection(*map(set, curves)))
    return {name: np.mean([curve[name] for curve in curves], axis=0).tolist() for name in names}


def _detection(records: list[Record], noise: str, reference: str) -> dict[str, Any] | None:
    """Influence does not depend on ρ, so any of a seed's runs will do."""
    aucs = {
        record["seed"]: record["detection"]["auc"]
        for record in records
        if (record["noise"], record["reference"]) == (noise, reference) and record["detection"]
    }
    return over_seeds(aucs) if aucs else None
