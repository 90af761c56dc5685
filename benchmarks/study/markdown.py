"""The study's table for people: one section per noise and reference, after what it all amounts to."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.study.table import AGAINST
from forgetting_core.comparison.paired import CONFIDENCE


def markdown(study: Mapping[str, Any], plot: str) -> str:
    """`study` is the document beside it; `plot` the name of the picture."""
    conditions = study["conditions"]
    lines = [*_head(study, plot), *_verdict(study["verdict"])]
    for condition in conditions:
        lines += _section(condition)
    return "\n".join(lines) + "\n"


def _head(study: Mapping[str, Any], plot: str) -> Iterator[str]:
    made = study["made"]
    libraries = ", ".join(f"{name} {found}" for name, found in made["libraries"].items())
    yield "# Does forgetting help? A controlled study"
    yield ""
    yield (
        "Exact match on held-out questions of a synthetic corpus, answered by a small Llama that was fine-tuned on "
        "answers of which a share of the tokens is planted noise. A *clean* reference model saw none of it, a "
        "*noisy* one as much as the training data has. Mean ± standard error over seeds; a seed changes corpus, "
        "base model, order of training and random labels. Differences are paired by seed and question, with "
        f"{CONFIDENCE:.0%} intervals of a bootstrap over seeds and questions; ignore is the one of the same ρ."
    )
    yield ""
    yield f"![Accuracy against ρ]({plot})"
    yield ""
    yield f"Made on {made['date']} by `{made['command']}`, commit {made['git_commit']}; {made['machine']}."
    yield f"Python {made['python']}, {libraries}."
    yield f"{study['runs']} of {study['runs_in_all']} runs of the grid; seeds {_listed(study['seeds'])}."
    yield ""


def _verdict(verdict: Mapping[str, Any]) -> Iterator[str]:
    yield "## What comes out"
    yield ""
    yield (
        "By rule: a setting that forgets (ascent with t_max 0.25 or 0.03, or npo; any ρ) is *better* where both "
        "intervals, against sft and against ignore, lie above 0. "
        f"With {verdict['candidates']} such settings in all some will look better by chance; *corrected* are those "
        f"whose intervals of {verdict['corrected_confidence']:.2%} (Bonferroni) still do. The last column is the "
        "labels' gain alone: positive-only training above sft."
    )
    yield ""
    yield "| noise | reference | settings | better than both | corrected | worse than sft | ignore above sft |"
    yield "|---|---|---|---|---|---|---|"
    for line in verdict["conditions"]:
        cells = [
            line["noise"],
            line["reference"],
            str(line["candidates"]),
            *(_named(line[name]) for name in ("better", "better_corrected", "worse_than_sft", "ignore_better")),
        ]
        yield f"| {' | '.join(cells)} |"
    yield ""


def _section(condition: Mapping[str, Any]) -> Iterator[str]:
    yield f"## Noise {condition['noise']}, {condition['reference']} reference"
    yield ""
    if detection := condition["detection"]:
        yield f"Influence as a noise detector, area under the ROC: {_value(detection)} ({_seeds(detection)})."
        yield ""
    yield "| setting | ρ | accuracy | minus sft | minus ignore | positive loss | negative loss | per seed |"
    yield "|---|---|---|---|---|---|---|---|"
    for line in condition["lines"]:
        training = line["training"] or {}
        cells = [
            line["arm"],
            line["rho"] or "",
            _value(line["accuracy"]),
            *(_difference(line["against"].get(name)) for name in AGAINST),
            *(_from_to(training.get(name)) for name in ("loss_positive", "loss_negative")),
            _seeds(line["accuracy"]),
        ]
        yield f"| {' | '.join(cells)} |"
    yield ""


def _value(over_seeds: Mapping[str, Any]) -> str:
    stderr = over_seeds["stderr"]
    return f"{over_seeds['mean']:.3f}" + ("" if stderr is None else f" ± {stderr:.3f}")


def _seeds(over_seeds: Mapping[str, Any]) -> str:
    return " ".join(f"{value:.2f}" for value in over_seeds["per_seed"].values())


def _difference(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    text = f"{found['mean']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"
    return f"**{text}**" if found["low"] > 0 or found["high"] < 0 else text


def _from_to(ends: Sequence[float] | None) -> str:
    return "" if ends is None else f"{ends[0]:.2f} → {ends[1]:.2f}"


def _named(settings: Sequence[str]) -> str:
    return "; ".join(settings) or "none"


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))
