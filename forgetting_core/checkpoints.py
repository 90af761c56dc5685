"""Training checkpoints: all that a resumed run needs to end with the very weights of an undisturbed one.

Safetensors and JSON only, never a pickle. A checkpoint is a folder that appears whole, by rename.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from forgetting_core.json_files import write_json

_OPTIONS = StateDictOptions(full_state_dict=True, cpu_offload=True, flatten_optimizer_state_dict=True)


def save_state(folder: Path, step: int, model: nn.Module, optimizer: Optimizer) -> None:
    """Replace the checkpoint in `folder` by one after `step` optimizer steps."""
    part = folder / "checkpoint.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    trainable = {
        name: value.detach().contiguous().cpu() for name, value in model.named_parameters() if value.requires_grad
    }
    save_file(trainable, part / "weights.safetensors")
    state: dict[str, Any] = get_optimizer_state_dict(model, optimizer, options=_OPTIONS)
    tensors = {key: value.contiguous() for key, value in state.items() if isinstance(value, torch.Tensor)}
    save_file(tensors, part / "optimizer.safetensors")
    generators = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        generators["cuda"] = torch.cuda.get_rng_state()
    save_file(generators, part / "generators.safetensors")
    write_json(part / "state.json", {"step": step})
    for path in part.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    target = folder / f"step-{step}"
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    for older in _steps(folder):
        if older < step:
            shutil.rmtree(folder / f"step-{older}")


def resume_state(folder: Path, model: nn.Module, optimizer: Optimizer) -> int:
    """Load the newest checkpoint of `folder` into `model` and `optimizer`; the steps done, 0 without one."""
    steps = _steps(folder)
    if not steps:
        return 0
    source = folder / f"step-{max(steps)}"
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in load_file(source / "weights.safetensors").items():
            parameters[name].copy_(value)
    state = get_optimizer_state_dict(model, optimizer, options=_OPTIONS)
    settings = {key: value for key, value in state.items() if key.startswith("param_groups.")}
    tensors = load_file(source / "optimizer.safetensors")
    set_optimizer_state_dict(model, optimizer, {**settings, **tensors}, options=_OPTIONS)
    generators = load_file(source / "generators.safetensors")
    torch.set_rng_state(generators["cpu"])
    if "cuda" in generators and torch.cuda.is_available():
        torch.cuda.set_rng_state(generators["cuda"])
    return int(json.loads((source / "state.json").read_text())["step"])


def _steps(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in folder.glob("step-*")]
