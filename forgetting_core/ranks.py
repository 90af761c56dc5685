"""One training in several processes: how the model and the work are spread over ranks, and what ranks exchange.

Micro-batches are cut for the whole optimizer step first and dealt to the ranks then, and randomness depends on
(seed, step, micro-batch) alone, so a step means the same for any number of ranks. `accelerate launch` starts the
ranks; with one process everything here is a formality.
"""

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import InitProcessGroupKwargs, broadcast, reduce
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from forgetting_core.models import causal_lm
from forgetting_core.token_loss import TokenLossModel

LONGEST_WAIT = timedelta(hours=2)
"""For the other ranks, while the first one writes a checkpoint."""
_T = TypeVar("_T")


class Ranks:
    """The processes of one training, as each of them sees them."""

    def __init__(self, device: str) -> None:
        self.accelerator = Accelerator(
            cpu=device == "cpu",
            mixed_precision="no",  # the recipe's dtype decides, whatever the environment says
            kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_WAIT)],
        )
        self.count: int = self.accelerator.num_processes
        self.index: int = self.accelerator.process_index
        self.main: bool = self.accelerator.is_main_process
        """Whether this rank writes files and reports."""

    @property
    def sharding_device(self) -> str:
        """Where a model to be sharded is built: the first rank reads it, the others only know its shapes."""
        return "cpu" if self.main else "meta"

    def main_says(self, ask: Callable[[], bool]) -> bool:
        """What the main rank, which has the weights, answers to `ask`; called by all ranks."""
        answer = self.main and ask()
        return answer if self.count == 1 else any_rank(answer)

    def spread(self, model: TokenLossModel, *, sharded: bool) -> nn.Module:
        """`model` for the forward pass: itself, a replica with averaged gradients, or, `sharded`, a part of it.

        Sharded parameters become `DTensor`s, layer by layer, so that no GPU ever holds the whole model, and of
        the hosts' memory only the first rank's.
        """
        if sharded:
            full = model.state_dict() if self.main else {}
            inner = causal_lm(model.model)
            layers = set(inner._no_split_modules or ())
            for module in list(inner.modules()):
                if type(module).__name__ in layers:
                    fully_shard(module)
            fully_shard(model)
            if not self.main:
                model.to_empty(device=self.accelerator.device)
            from_main = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
            set_model_state_dict(model, full, options=from_main)
            for buffer in model.buffers():  # some are no part of the state
                broadcast(buffer)
            return model
        prepared: nn.Module = self.accelerator.prepare(model)
        return prepared

    def reshard(self, model: nn.Module) -> None:
        """After a forward pass that no backward pass follows: a sharded model is spread again."""
        if isinstance(model, FSDPModule):
            model.reshard()

    def deal(self, items: Sequence[_T], idle: Callable[[_T], _T]) -> list[_T]:
        """This rank's share; where others have one more, `idle(first item)`, since all must take equally many."""
        mine = list(items[self.index :: self.count])
        return mine if len(mine) * self.count >= len(items) else [*mine, idle(items[0])]

    def accumulating(self, model: nn.Module, *, last: bool) -> AbstractContextManager[None]:
        """Around a micro-batch's backward pass: replicas exchange gradients once per step, after the `last` one."""
        if last or isinstance(model, TokenLossModel):
            return contextlib.nullcontext()
        skipped: AbstractContextManager[None] = self.accelerator.no_sync(model)
        return skipped

    def backward(self, loss: torch.Tensor) -> None:
        """The backward pass of a summed loss; ranks average their gradients, so the sum comes back here."""
        (loss * self.count if self.count > 1 else loss).backward()

    def sum(self, values: Sequence[float]) -> list[float]:
        """Element by element over the ranks."""
        if self.count == 1:
            return list(values)
        summed = reduce(torch.tensor(values, dtype=torch.float64, device=self.accelerator.device), "sum")
        return [float(value) for value in summed]


def any_rank(flag: bool) -> bool:
    """Whether it is set on any rank; called by all of them. Within a training that was spread."""
    state = PartialState()
    asked = torch.tensor(float(flag), device=state.device)
    return bool(reduce(asked, "sum"))


def leave() -> None:
    """The end of a rank's work: its connections to the others are closed."""
    PartialState().destroy_process_group()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """On the CPU, gathered from all ranks where it is sharded: then every rank must ask at the same time."""
    gathered = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return gathered.detach().contiguous().cpu()


def sharded_like(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """`value` as every rank has it, spread as `like` is."""
    if not isinstance(like, DTensor):
        return value.to(like.device)
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
