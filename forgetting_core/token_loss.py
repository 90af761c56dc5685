"""The one loss primitive: −log p of chosen tokens, from which scoring, training and held-out loss are built.

Only the hidden states of the chosen positions meet the output head, and they do so in chunks, so that the
(tokens × vocabulary) logits never exist at once. In training the objective's derivative by each loss is known as
soon as the loss is, so a chunk's gradient is computed with it, and its logits are gone before the next.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers import PreTrainedModel

from forgetting_core.errors import InputError, NumericalError
from forgetting_core.models import causal_lm

CHUNK_LOGITS = 2**24
"""Logits of one head chunk: 64 MiB in float32."""
CPU_LOGITS = 2**18
"""Of them, a CPU reduces so many at once: 1 MiB stays in its cache, and is not asked of the system each time."""

Objective = Callable[[torch.Tensor, slice], torch.Tensor]
"""(losses (n,) of the chosen tokens `slice`) -> their share of a scalar to be minimised."""


class TokenLossModel(nn.Module):
    """A causal language model whose forward pass returns token losses instead of logits.

    Being a module, it can be wrapped for distributed training as a whole. Rows are padded on the right: with
    causal attention no real token sees a pad, so no attention mask is needed.
    """

    def __init__(self, model: PreTrainedModel | PeftModel) -> None:
        super().__init__()
        self.model = model
        if model.device.type != "meta":  # the rank that has the weights checks
            check_head(model)

    def forward(
        self,
        input_ids_BT: torch.Tensor,
        select_BT: torch.Tensor,
        position_ids_BT: torch.Tensor | None = None,
        objective: Objective | None = None,
    ) -> Any:
        """Losses (N,) in nats of the N selected tokens in row order; float32, or float64 for such a model.

        `input_ids_BT` int64 (B, T); `select_BT` bool (B, T), False for the first token of a row, which nothing
        predicts; `position_ids_BT` int64 (B, T) where rows share a line (see `layout`).

        With an `objective`: (its value, a scalar to call `backward` on once; the losses, without gradient).
        """
        inner = causal_lm(self.model)
        hidden_BTD = inner.base_model(
            input_ids=input_ids_BT, position_ids=position_ids_BT, use_cache=False
        ).last_hidden_state
        hidden_ND = hidden_BTD[:, :-1][select_BT[:, 1:]]
        target_N = input_ids_BT[:, 1:][select_BT[:, 1:]]
        if objective is None:
            return torch.cat([_losses(inner, hidden_ND[part], target_N[part]) for part in _chunks(inner, target_N)])
        trained = [value for value in inner.get_output_embeddings().parameters() if value.requires_grad]
        return _HeadObjective.apply(inner, objective, target_N, hidden_ND, *trained)


class _HeadObjective(torch.autograd.Function):
    """The objective as a function of hidden states and the head's parameters, differentiated while it is computed.

    Every rank takes part in every backward pass, so without a chosen token it is 0 and its gradients are zeros.
    """

    @staticmethod
    def forward(
        ctx: Any,
        model: PreTrainedModel,
        objective: Objective,
        target_N: torch.Tensor,
        hidden_ND: torch.Tensor,
        *trained: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        values, losses, hidden_gradients = [], [], []
        trained_gradients: list[torch.Tensor] = []
        for part in _chunks(model, target_N):
            hidden = hidden_ND[part].detach().requires_grad_()
            with torch.enable_grad():
                loss = _losses(model, hidden, target_N[part])
                value = objective(loss, part)
            of_hidden, *of_trained = torch.autograd.grad(value, [hidden, *trained])
            if not trained_gradients:
                trained_gradients = [*of_trained]
            else:
                for total, gradient in zip(trained_gradients, of_trained, strict=True):
                    total += gradient
                    del gradient
            del of_trained  # as large as the head
            values.append(value.detach())
            losses.append(loss.detach())
            hidden_gradients.append(of_hidden)
        ctx.save_for_backward(torch.cat(hidden_gradients), *trained_gradients)
        all_losses = torch.cat(losses)
        ctx.mark_non_differentiable(all_losses)
        return torch.stack(values).sum(), all_losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return None, None, None, *(slope * gradient for gradient in ctx.saved_tensors)


def _chunks(model: PreTrainedModel, target_N: torch.Tensor) -> Iterator[slice]:
    """Parts of the chosen tokens with at most `CHUNK_LOGITS` logits; one empty part if nothing is chosen."""
    size = max(1, CHUNK_LOGITS // model.get_output_embeddings().weight.shape[0])
    return (slice(first, first + size) for first in range(0, max(1, len(target_N)), size))


def _losses(model: PreTrainedModel, hidden_ND: torch.Tensor, target_N: torch.Tensor) -> torch.Tensor:
    """−log softmax(head(hidden))[target] in nats, (N,), reduced in at least float32."""
    logits_NV = head_logits(model, hidden_ND)
    at_once = max(1, CPU_LOGITS // logits_NV.shape[1]) if logits_NV.device.type == "cpu" else max(1, len(target_N))
    parts = zip(logits_NV.split(at_once), target_N.split(at_once), strict=True)
    return torch.cat([F.cross_entropy(_at_least_float32(some), target, reduction="none") for some, target in parts])


def _at_least_float32(values: torch.Tensor) -> torch.Tensor:
    return values if values.dtype == torch.float64 else values.float()


def head_logits(model: PreTrainedModel, hidden_ND: torch.Tensor) -> torch.Tensor:
    """The output head, with the soft cap of Gemma 2."""
    logits_NV = model.get_output_embeddings()(hidden_ND)
    softcap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return logits_NV if softcap is None else softcap * torch.tanh(logits_NV / softcap)


@torch.no_grad()
def check_head(model: PreTrainedModel | PeftModel) -> None:
    """Compare our logits with the model's own on one short row; raises `InputError` when they differ.

    Raises `NumericalError` when they are not finite.

    Some architectures scale or bias logits outside the head; computing them without that would be silently wrong.
    """
    inner = causal_lm(model)
    training = inner.training
    inner.eval()
    input_ids = torch.arange(8, device=inner.device).unsqueeze(0) % inner.get_input_embeddings().weight.shape[0]
    expected = inner(input_ids=input_ids, use_cache=False).logits.float()
    body = inner.base_model(input_ids=input_ids, use_cache=False)
    inner.train(training)
    hidden = getattr(body, "last_hidden_state", None)
    if hidden is None or inner.get_output_embeddings() is None:
        raise InputError(
            f"model: {type(inner).__name__} has no body that gives hidden states to a head (transformers'"
            " `base_model` and `get_output_embeddings`); it is not supported"
        )
    found = head_logits(inner, hidden).float()
    if not bool(expected.isfinite().all()):
        raise NumericalError(
            f"model: the logits of this {type(inner).__name__} in {inner.dtype} are not finite; its weights are "
            "damaged, or too large for the dtype: use float32"
        )
    tolerance = 1e-2 if inner.dtype == torch.bfloat16 else 1e-4
    if not torch.allclose(found, expected, rtol=tolerance, atol=tolerance):
        raise InputError(
            f"model: {type(inner).__name__} computes its logits otherwise than head(hidden); it is not supported"
        )
