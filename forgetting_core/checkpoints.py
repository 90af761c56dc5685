"""Training checkpoints: all that a resumed run needs to end with the very weights of an undisturbed one.

Safetensors and JSON only, never a pickle. A checkpoint is a folder that appears whole, by rename, and is the same
for any number of ranks. It holds no state of random generators: training draws from (seed, step, micro-batch).
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from forgetting_core.finite import require_finite_tensors
from forgetting_core.json_files import write_json
from forgetting_core.ranks import sharded_like, whole
from forgetting_core.validation import Validation


def save_state(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: Optimizer,
    schedule: LRScheduler,
    metrics: Path | None,
    validation: Validation | None,
) -> Path | None:
    """Replace the checkpoint in `folder` by one after `step` optimizer steps; where it is, if this rank writes it.

    All ranks call it; the one that has the file of `metrics` writes, and puts a copy of that in. Raises
    `NumericalError`, with the older checkpoint untouched, when weights or moments are not finite.
    """
    writes = metrics is not None
    trained = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    states = optimizer.state_dict()["state"].items()
    moved = [(f"{index}.{name}", value) for index, state in states for name, value in state.items()]
    require_finite_tensors([*trained, *moved], f"after optimizer step {step}")
    trainable, moments = _gathered(trained, keep=writes), _gathered(moved, keep=writes)
    if metrics is None:
        return None
    part = folder / "checkpoint.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_file(trainable, part / "weights.safetensors")
    save_file(moments, part / "optimizer.safetensors")
    shutil.copyfile(metrics, part / metrics.name)
    state = {"step": step, "schedule": schedule.state_dict()}
    if validation is not None:
        state["validation"] = validation.state_dict()
    write_json(part / "state.json", state)
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


def resume_state(
    folder: Path,
    model: nn.Module,
    optimizer: Optimizer,
    schedule: LRScheduler,
    validation: Validation | None,
) -> int:
    """Load the newest checkpoint of `folder` into the others; the steps done, 0 without one."""
    steps = _steps(folder)
    if not steps:
        return 0
    source = checkpoint_folder(folder, max(steps))
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in _stored(source / "weights.safetensors"):
            parameters[name].copy_(sharded_like(value, parameters[name]))
    trained = [value for value in parameters.values() if value.requires_grad]
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in _stored(source / "optimizer.safetensors"):
        index, name = key.split(".")
        moment = value if name == "step" else sharded_like(value, trained[int(index)])
        moments.setdefault(int(index), {})[name] = moment
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    state = json.loads((source / "state.json").read_text())
    schedule.load_state_dict(state["schedule"])
    for group, rate in zip(optimizer.param_groups, schedule.get_last_lr(), strict=True):
        group["lr"] = rate
    if validation is not None:
        validation.load_state_dict(state["validation"])
    return int(state["step"])


def what_is_kept(folder: Path) -> str:
    """For a training that cannot go on: from where it could, and what of it another recipe can use."""
    steps = _steps(folder)
    kept = (
        f"the training checkpoint after optimizer step {max(steps)} is kept, and the same recipe goes on from it, "
        "which helps where the machine was at fault"
        if steps
        else "no training checkpoint was written before (execution.checkpoint_every)"
    )
    return (
        f"{kept}; with any other setting (learning rate, λ, dtype) it is another training, which begins at its "
        "first step: what the steps before it have made is used again"
    )


def _gathered(named: Iterable[tuple[str, torch.Tensor]], *, keep: bool) -> dict[str, torch.Tensor]:
    """The tensors, whole; those who do not `keep` them take part, one tensor at a time."""
    kept = {}
    for name, value in named:
        gathered = whole(value)
        if keep:
            kept[name] = gathered
    return kept


def _stored(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a file, one at a time."""
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118, it is no mapping
            yield name, file.get_tensor(name)


def checkpoint_folder(folder: Path, step: int) -> Path:
    """Where the checkpoint after `step` optimizer steps is."""
    return folder / f"step-{step}"


def _steps(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in folder.glob("step-*")]
