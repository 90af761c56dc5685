"""Training checkpoints: all that a resumed run needs to end with the very weights of an undisturbed one.

Safetensors and JSON only, never a pickle. A checkpoint is a folder that appears whole, by rename, and is the same
for any number of ranks. It holds no state of random generators: training draws from (seed, step, micro-batch).
"""

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from forgetting_core.json_files import write_json
from forgetting_core.ranks import sharded_like, whole


def save_state(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: Optimizer,
    schedule: LRScheduler,
    metrics: Path | None,
) -> Path | None:
    """Replace the checkpoint in `folder` by one after `step` optimizer steps; where it is, if this rank writes it.

    All ranks call it; the one that has the file of `metrics` writes, and puts a copy of that in.
    """
    trainable = {name: whole(value) for name, value in model.named_parameters() if value.requires_grad}
    moments = {
        f"{index}.{name}": whole(value)
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }
    if metrics is None:
        return None
    part = folder / "checkpoint.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_file(trainable, part / "weights.safetensors")
    save_file(moments, part / "optimizer.safetensors")
    shutil.copyfile(metrics, part / metrics.name)
    write_json(part / "state.json", {"step": step, "schedule": schedule.state_dict()})
    for path in part.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    target = checkpoint_folder(folder, step)
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    for older in _steps(folder):
        if older < step:
            shutil.rmtree(checkpoint_folder(folder, older))
    return target


def resume_state(folder: Path, model: nn.Module, optimizer: Optimizer, schedule: LRScheduler) -> int:
    """Load the newest checkpoint of `folder` into the three; the steps done, 0 without one."""
    steps = _steps(folder)
    if not steps:
        return 0
    source = checkpoint_folder(folder, max(steps))
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in load_file(source / "weights.safetensors").items():
            parameters[name].copy_(sharded_like(value, parameters[name]))
    trained = [value for value in parameters.values() if value.requires_grad]
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in load_file(source / "optimizer.safetensors").items():
        index, name = key.split(".")
        moment = value if name == "step" else sharded_like(value, trained[int(index)])
        moments.setdefault(int(index), {})[name] = moment
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    state = json.loads((source / "state.json").read_text())
    schedule.load_state_dict(state["schedule"])
    for group, rate in zip(optimizer.param_groups, schedule.get_last_lr(), strict=True):
        group["lr"] = rate
    return int(state["step"])


def checkpoint_folder(folder: Path, step: int) -> Path:
    """Where the checkpoint after `step` optimizer steps is."""
    return folder / f"step-{step}"


def _steps(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in folder.glob("step-*")]
