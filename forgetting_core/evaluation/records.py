"""The files of an evaluation: what the harness found, under plain names and as JSON."""

import importlib.metadata
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from numbers import Real
from pathlib import Path
from typing import Any

from forgetting_core.config import BenchmarkConfig
from forgetting_core.evaluation.harness import BenchmarkResults
from forgetting_core.json_files import write_json_lines
from forgetting_core.progress import Progress


def plain_metrics(results: dict[str, Any], progress: Progress, task: str) -> dict[str, float]:
    """`{"acc": …, "acc_stderr": …}` from the harness's `{"acc,none": …, "acc_stderr,none": …, "alias": …}`.

    The name of the filter is dropped, unless a metric was computed after several filters: then it becomes
    `metric.filter`. A value that is no finite number has no place in JSON: it is left out and noted; of a standard
    error it just means that there is none (the harness's "N/A").
    """
    found = [key.split(",", 1) for key in results if "," in key]
    filters = Counter(metric for metric, _ in found)
    plain: dict[str, float] = {}
    for metric, filter_ in found:
        value = results[f"{metric},{filter_}"]
        base = metric.removesuffix("_stderr")
        is_stderr = base != metric and f"{base},{filter_}" in results
        finite = isinstance(value, Real) and math.isfinite(value)
        if is_stderr and not finite:
            continue
        name = base if is_stderr else metric
        name = name if filters[metric] == 1 else f"{name}.{filter_}"
        name = f"{name}_stderr" if is_stderr else name
        if not finite:
            progress.note(f"evaluate: {task}: {name} is {value}, not a finite number; it is left out")
            continue
        plain[name] = float(value)
    return plain


def write_samples(path: Path, samples: list[dict[str, Any]]) -> None:
    """Canonical JSON lines, one per item and filter, in the order of the items.

    `doc_id`, `doc`, `prompt`, `target`, `response` (texts, or log-likelihoods of the choices in nats and whether
    each is the most likely text), `filter`, `metrics`.
    """
    records = (
        {
            "doc_id": sample["doc_id"],
            "doc": sample["doc"],
            "prompt": sample["arguments"][0][0],
            "target": sample["target"],
            "response": sample["filtered_resps"],
            "filter": sample["filter"],
            "metrics": {name: sample[name] for name in sample["metrics"]},
        }
        for sample in sorted(samples, key=lambda sample: (sample["doc_id"], sample["filter"]))
    )
    write_json_lines(path, records, default=_plain)


def protocol(config: BenchmarkConfig, results: Sequence[BenchmarkResults]) -> dict[str, Any]:
    """How the numbers were made, as far as they may depend on it by more than the last digits."""
    return {
        "name": config.protocol,
        "harness": "lm-evaluation-harness",
        "harness_version": importlib.metadata.version("lm_eval"),
        "dtype": config.dtype,
        "chat_template": False,
        "tasks": {
            task: {
                "version": str(result.versions.get(task)),
                "num_fewshot": result.num_fewshot.get(task),
                "generation": result.generation.get(task),
                "items": _items(samples),
                "limit": result.asked.limit,
                "seeds": asdict(result.asked.seeds),
            }
            for result in results
            for task, samples in result.samples.items()
        },
    }


def execution(results: Sequence[BenchmarkResults]) -> dict[str, Any]:
    """What varies with the machine and the libraries: requests of one forward pass, and the harness's warnings."""
    return {
        "batch_size": {task: result.asked.batch_size for result in results for task in result.samples},
        "warnings": dict(warnings(results)),
    }


def warnings(results: Sequence[BenchmarkResults]) -> Counter[str]:
    """How often the harness said what."""
    return sum((result.warnings for result in results), Counter())


def items(results: Sequence[BenchmarkResults]) -> int:
    """Number of items; one with several filters has several samples."""
    return sum(_items(samples) for result in results for samples in result.samples.values())


def _items(samples: list[dict[str, Any]]) -> int:
    return len({sample["doc_id"] for sample in samples})


def _plain(value: Any) -> Any:
    """numpy's scalars and arrays as plain numbers and lists, anything else as its text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
