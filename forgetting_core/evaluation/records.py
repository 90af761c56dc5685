"""The files of an evaluation: what the harness found, under plain names and as JSON."""

import importlib.metadata
import json
import math
from collections import Counter
from numbers import Real
from pathlib import Path
from typing import Any

from forgetting_core.config import EvaluateConfig
from forgetting_core.evaluation.harness import BenchmarkResults
from forgetting_core.json_files import write_json
from forgetting_core.progress import Progress

PROTOCOL = "harness"
"""0-shot unless a task says otherwise, greedy, no chat template: the defaults of lm-evaluation-harness."""


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
    """JSON lines, one per item and filter: `doc_id`, `doc`, `target`, `response`, `filter`, `metrics`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as lines:
        for sample in sorted(samples, key=lambda sample: (sample["doc_id"], sample["filter"])):
            record = {
                "doc_id": sample["doc_id"],
                "doc": sample["doc"],
                "target": sample["target"],
                "response": sample["filtered_resps"],
                "filter": sample["filter"],
                "metrics": {name: sample[name] for name in sample["metrics"]},
            }
            lines.write(json.dumps(record, ensure_ascii=False, default=_plain) + "\n")


def write_protocol(path: Path, config: EvaluateConfig, results: BenchmarkResults) -> None:
    """How the numbers were made: versions of the harness and its tasks, few-shot numbers, items, limit, dtype."""
    write_json(
        path,
        {
            "protocol": PROTOCOL,
            "harness": "lm-evaluation-harness",
            "harness_version": importlib.metadata.version("lm_eval"),
            "task_versions": {task: str(version) for task, version in results.versions.items()},
            "num_fewshot": results.num_fewshot,
            "items": {task: evaluated_items(samples) for task, samples in results.samples.items()},
            "limit": config.limit,
            "dtype": config.dtype,
            "seed": config.seed,
            "batch_size": results.batch_size,
            "warnings": dict(results.warnings),
        },
    )


def evaluated_items(samples: list[dict[str, Any]]) -> int:
    """Number of items; one with several filters has several samples."""
    return len({sample["doc_id"] for sample in samples})


def _plain(value: Any) -> Any:
    """numpy's scalars and arrays as plain numbers and lists, anything else as its text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
