"""When two fine-tunes of a recipe are the same, with the configs and inputs that the DAG hands to their steps."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from flows.dag import Input, Node, walk
from forgetting_core.config import ExecutionConfig, Recipe
from forgetting_core.progress import Progress
from tasks.child import Job
from tasks.spec import StepCall
from tests.identity import Recorder
from tests.tiny import save_model, token_rows, write_rows

RECIPE: dict[str, Any] = {
    "name": "x",
    "model": {"path": "m"},
    "data": {"train": ["a.jsonl"]},
    "baselines": ["sft", "ignore", "npo", "random"],
    "score": {"dtype": "float32"},
}
TRAINING = {"mode": "full", "learning_rate": 1e-2, "rows_per_step": 6, "warmup_ratio": 0.3, "dtype": "float32"}
NO_FORGETTING = {"schedule": "constant", "t_min": 0, "t_max": 0}


@dataclass
class Computing(Recorder):
    """Walks the DAG by computing scores, labels and fine-tunes of a tiny model, each by its real step."""

    folder: Path = field(kw_only=True)
    execution: ExecutionConfig = field(kw_only=True)

    def step(self, call: StepCall, inputs: Mapping[str, Input]) -> Node:
        if call.spec.name not in ("score", "partition", "forget"):
            return Node("")
        out = self.folder / call.label
        out.mkdir()
        found = {name: (self._path(name, value),) for name, value in inputs.items() if value is not None}
        digests = {"base": "0" * 64}
        work = self.folder / f"{call.label}-work"
        job = Job(call.spec.compute, dict(call.config), found, digests, out, work, self.execution)
        call.spec.compute(job, Progress())
        return Node(call.label)

    def _path(self, name: str, value: Input) -> Path:
        given = {"base": "base", "checkpoint": "reference", "data": "train"}
        return self.folder / (given.get(name) or value.handle)  # type: ignore[union-attr]


def weights(folder: Path, micro_batch: int | str = "auto", **fields: Any) -> dict[str, dict[str, torch.Tensor]]:
    """{model: {parameter: value}} of every fine-tune of the recipe."""
    save_model(folder / "base")
    write_rows(token_rows(20), folder / "train")
    plain = load_file(save_model(folder / "reference") / "model.safetensors")
    generator = torch.Generator().manual_seed(1)
    moved = {name: value + 0.05 * torch.randn(value.shape, generator=generator) for name, value in plain.items()}
    save_file(moved, folder / "reference/model.safetensors", metadata={"format": "pt"})
    execution = ExecutionConfig.model_validate({"device": "cpu", "micro_batch": micro_batch})
    recipe = Recipe.model_validate({**RECIPE, **fields})
    walk(recipe, Computing(folder=folder, execution=execution))
    models = {"forget": "forget", **{name: f"forget[{name}]" for name in recipe.baselines}}
    return {name: load_file(folder / label / "model.safetensors") for name, label in models.items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    assert first.keys() == second.keys()
    return all(np.array_equal(first[name].numpy(), second[name].numpy()) for name in first)


@pytest.mark.parametrize("micro_batch", ["auto", 2])
@pytest.mark.parametrize("negative", ["ascent", "unlikelihood"])
def test_forgetting_with_lambda_zero_is_ignoring_to_the_bit(
    tmp_path: Path, micro_batch: int | str, negative: str
) -> None:
    forget = {**TRAINING, "lambda": NO_FORGETTING, "negative": negative}
    found = weights(tmp_path, micro_batch, forget=forget)
    assert same(found["forget"], found["ignore"])
    assert same(found["npo"], found["ignore"])
    assert not same(found["ignore"], found["sft"])
    assert not same(found["ignore"], found["random"])


@pytest.mark.parametrize("micro_batch", ["auto", 2])
def test_all_tokens_positive_is_plain_fine_tuning_to_the_bit(tmp_path: Path, micro_batch: int | str) -> None:
    found = weights(tmp_path, micro_batch, forget={**TRAINING}, partition={"rho": 1})
    for model in ("forget", "ignore", "npo", "random"):
        assert same(found[model], found["sft"]), model


def test_every_baseline_is_a_model_of_its_own(tmp_path: Path) -> None:
    constant = {"schedule": "constant", "t_max": 0.25}
    found = weights(tmp_path, forget={**TRAINING, "lambda": constant}, partition={"scope": "row", "rho": 0.6})
    models = list(found)
    assert len(models) == 5
    for index, model in enumerate(models):
        assert not any(same(found[model], found[other]) for other in models[index + 1 :]), model
