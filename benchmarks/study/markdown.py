"""The study's table for people: one section per noise and reference, after what it all amounts to."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.study.made import UNKNOWN
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
    yield "# Does forgetting help? A controlled study"
    yield ""
    if study["tiny"]:
        yield "**A tiny model, to see the machinery work: its numbers mean nothing.**"
        yield ""
    yield (
        "Exact match on held-out questions of a synthetic corpus, answered by a small Llama that was fine-tuned on "
        "answers of which a share of the tokens is planted noise. A *clean* reference model saw none of it, a "
        "*noisy* one as much as the training data has. Mean ± standard error over seeds; a seed changes corpus, "
        "base model, order of training and random labels. Differences are paired by seed and question; ignore is "
        f"the one of the same ρ. In brackets {CONFIDENCE:.0%} intervals, Student's t over the differences of the "
        "seeds, whose number K comes after them (K − 1 degrees of freedom; with a single seed over its questions "
        "only). Bold: the interval leaves out 0, over two seeds or more."
    )
    yield ""
    yield f"![Accuracy against ρ]({plot})"
    yield ""
    yield f"{study['runs']} of {study['runs_in_all']} runs of the grid; seeds {_listed(study['seeds'])}."
    if outdated := study["outdated"]:
        yield (
            f"{outdated} of them by another version of the recipe or of a step than that which wrote this table; "
            "running the study makes them again."
        )
    yield f"Table of `{study['command']}`."
    yield ""
    yield from _made(study["made"])


def _made(made: Mapping[str, Any]) -> Iterator[str]:
    first, last = made["dates"] or (UNKNOWN, UNKNOWN)
    yield f"- Made: {first if first == last else f'{first} to {last}'}"
    for name in ("commits", "libraries", "machines"):
        yield f"- {name.capitalize()}: " + "; ".join(f"{value} ({_runs(n)})" for value, n in made[name].items())
    yield ""


def _verdict(verdict: Mapping[str, Any]) -> Iterator[str]:
    yield "## What comes out"
    yield ""
    for line in verdict["conditions"]:
        if line["summary"]:
            yield f"- Noise {line['noise']}, {line['reference']} reference: {_sentence(line['summary'])}"
    yield ""
    yield (
        "By rule: a setting that forgets (ascent with t_max 0.25 or 0.03, or npo; any ρ) is *better* where both "
        "intervals, against sft and against ignore, lie above 0; with fewer than "
        f"{verdict['fewest_seeds']} seeds it is not judged. With {verdict['candidates']} such settings in the "
        "whole grid some will look better by chance; *corrected* are those whose intervals of "
        f"{verdict['corrected_confidence']:.2%} (Bonferroni; Student's t over as many seeds) still do. The last "
        "column is the labels' gain alone: positive-only training above sft."
    )
    yield ""
    columns = (
        "noise | reference | judged | seeds | better than both | corrected | worse than sft | ignore above sft"
    )
    yield f"| {columns} |"
    yield "|---|---|---|---|---|---|---|---|"
    for line in verdict["conditions"]:
        cells = [
            line["noise"],
            line["reference"],
            str(line["judged"]),
            _listed(line["seeds"]),
            *(_named(line[name]) for name in ("better", "better_corrected", "worse_than_sft", "ignore_better")),
        ]
        yield f"| {' | '.join(cells)} |"
    yield ""


def _sentence(summary: Mapping[str, Any]) -> str:
    """Of what the labels gain, and of what forgetting adds to that."""
    labels = summary["labels"]
    added = [_added(arm, found, labels) for arm, found in summary["forgetting"].items()]
    return (
        f"sft {summary['sft']:.3f}, ignore at ρ {summary['rho']} {summary['ignore']:.3f} "
        f"({_counted_seeds(labels)}): the labels {'gain' if labels['mean'] >= 0 else 'cost'} {_mean(labels)}; "
        f"forgetting on top: {', '.join(added) or 'not run yet'}."
    )


def _added(arm: str, found: Mapping[str, Any], labels: Mapping[str, Any]) -> str:
    seeds = "" if found["per_seed"].keys() == labels["per_seed"].keys() else f", {_counted_seeds(found)}"
    return f"{_mean(found)} ({arm.removeprefix('forget, ')}{seeds})"


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
    interval = "" if found["low"] is None else f" [{found['low']:+.3f}, {found['high']:+.3f}]"
    return _emphasised(f"{found['mean']:+.3f}{interval}", found) + f" {_counted_seeds(found)}"


def _mean(difference: Mapping[str, Any]) -> str:
    return _emphasised(f"{difference['mean']:+.3f}", difference)


def _emphasised(text: str, difference: Mapping[str, Any]) -> str:
    return f"**{text}**" if difference["sign"] and len(difference["per_seed"]) > 1 else text


def _counted_seeds(difference: Mapping[str, Any]) -> str:
    count = len(difference["per_seed"])
    return f"{count} seed{'s' * (count != 1)}"


def _runs(count: int) -> str:
    return f"{count} run{'s' * (count != 1)}"


def _from_to(ends: Sequence[float] | None) -> str:
    return "" if ends is None else f"{ends[0]:.2f} → {ends[1]:.2f}"


def _named(settings: Sequence[str]) -> str:
    return "; ".join(settings) or "none"


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))
