"""The five benchmarks on a real model, from local files, beside lm-evaluation-harness run by hand on that model.

By hand means its own command line, which knows nothing of this project, and task files written here.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import yaml

from forgetting_core.config import EvaluateConfig, ExecutionConfig
from forgetting_core.evaluation.evaluate import evaluate_benchmarks
from forgetting_core.evaluation.tydiqa import LANGUAGES
from forgetting_core.progress import Progress
from tests.oracle import SHARED

SMOLLM2_TOOL = SHARED / "tools" / "smollm2.py"
DATA = SHARED / "data"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not SMOLLM2_TOOL.is_file(), reason="../shared is not beside this checkout"),
]
BY_HAND = {
    "truthfulqa_mc1": ("truthfulqa/truthfulqa_mc1.yaml", {"validation": "truthfulqa_mc.jsonl"}),
    "truthfulqa_mc2": ("truthfulqa/truthfulqa_mc2.yaml", {"validation": "truthfulqa_mc.jsonl"}),
    "truthfulqa_gen": ("truthfulqa/truthfulqa_gen.yaml", {"validation": "truthfulqa_gen.jsonl"}),
    "boolq": ("super_glue/boolq/default.yaml", {"validation": "boolq.jsonl"}),
    "logiqa": ("logiqa/logiqa.yaml", {"test": "logiqa_test.jsonl"}),
    "asdiv": ("asdiv/default.yaml", {"validation": "asdiv.jsonl"}),
    **{
        f"tydiqa_goldp_{language}": (
            f"tydiqa/tydiqa_goldp_{language}.yaml",
            {"train": "tydiqa_goldp_train.jsonl", "validation": "tydiqa_goldp_validation.jsonl"},
        )
        for language in LANGUAGES
    },
}
"""{task: (the harness's own file, {split: data})}"""
CHOICES = {"truthfulqa_mc1": 2, "truthfulqa_mc2": 2, "boolq": 4, "logiqa": 2, "asdiv": 4}
"""Items of each; of the tasks with generated answers one, in each language."""


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tmp_path_factory.mktemp("model") / "smollm2"
    subprocess.run([sys.executable, str(SMOLLM2_TOOL), str(model)], check=True, stdout=subprocess.DEVNULL)
    return model


def ours(model: Path, task: str, limit: int, out: Path, protocol: str = "harness") -> dict[str, Any]:
    out.mkdir(parents=True)
    config = EvaluateConfig.model_validate(
        {"tasks": [task], "limit": limit, "dtype": "float32", "protocol": protocol}
    )
    evaluate_benchmarks(
        config,
        base=model,
        checkpoint=None,
        task_dir=DATA,
        out=out,
        execution=ExecutionConfig(device="cpu"),
        progress=Progress(),
    )
    stored: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    assert stored["protocol"]["name"] == protocol
    return stored


def by_hand(model: Path, tasks: list[str], limit: int, folder: Path) -> dict[str, dict[str, float]]:
    """{task: {`metric,filter`: value}} of `lm_eval --model hf …`."""
    definitions = folder / "tasks"
    definitions.mkdir(parents=True)
    for task in tasks:
        original, files = BY_HAND[task]
        train = "train" if "train" in files else None
        definition = {
            "include": str(Path(lm_eval.__file__).parent / "tasks" / original),
            "task": task,
            "tag": [],
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": {split: str(DATA / file) for split, file in files.items()}},
            "training_split": train,
            "fewshot_split": train,
            "validation_split": "validation" if "validation" in files else None,
            "test_split": "test" if "test" in files else None,
        }
        (definitions / f"{task}.yaml").write_text(yaml.safe_dump(definition))
    command = [sys.executable, "-m", "lm_eval", "--model", "hf"]
    command += ["--model_args", f"pretrained={model},dtype=float32", "--tasks", ",".join(tasks), "--device", "cpu"]
    command += ["--include_path", str(definitions), "--limit", str(limit), "--output_path", str(folder / "results")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    (results,) = (folder / "results").rglob("results_*.json")
    found: dict[str, dict[str, float]] = json.loads(results.read_text())["results"]
    return found


def numbers(results: dict[str, Any]) -> dict[str, float]:
    """The harness's numbers under our names."""
    return {
        key.split(",")[0]: value for key, value in results.items() if "," in key and isinstance(value, int | float)
    }


@pytest.mark.parametrize("task", CHOICES)
def test_likelihoods_are_those_of_the_harness_by_hand_to_the_last_digit(
    smollm2: Path, task: str, tmp_path: Path
) -> None:
    found = ours(smollm2, task, CHOICES[task], tmp_path / "ours")[task]
    assert found == numbers(by_hand(smollm2, [task], CHOICES[task], tmp_path / "hand")[task])


def test_generated_answers_are_those_of_the_harness_by_hand(smollm2: Path, tmp_path: Path) -> None:
    languages = [f"tydiqa_goldp_{language}" for language in LANGUAGES]
    expected = by_hand(smollm2, ["truthfulqa_gen", *languages], 1, tmp_path / "hand")
    assert ours(smollm2, "truthfulqa_gen", 1, tmp_path / "gen")["truthfulqa_gen"] == numbers(
        expected["truthfulqa_gen"]
    )
    found = ours(smollm2, "tydiqa", 1, tmp_path / "tydiqa")["tydiqa"]
    for metric in ("f1", "exact_match"):
        values = [expected[task][f"{metric},none"] for task in languages]
        assert [found[f"{metric}.{language}"] for language in LANGUAGES] == values
        assert found[metric] == pytest.approx(sum(values) / 9, abs=1e-15)


@pytest.mark.parametrize("task", [*CHOICES, "truthfulqa_gen", "tydiqa"])
def test_every_benchmark_runs_under_the_published_protocol(smollm2: Path, task: str, tmp_path: Path) -> None:
    stored = ours(smollm2, task, 1, tmp_path / "out", "published")
    assert all(0 <= value <= 100 or name.endswith("_diff") for name, value in stored[task].items())
    asked = stored["protocol"]["tasks"]
    assert {how["num_fewshot"] for how in asked.values()} == {1 if task == "tydiqa" else 0}
    assert sorted(path.stem for path in (tmp_path / "out/samples").iterdir()) == sorted(asked)
    assert len(asked) == (9 if task == "tydiqa" else 1)
