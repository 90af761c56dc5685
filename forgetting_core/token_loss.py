"""The one loss primitive: −log p of chosen tokens, from which scoring, training and held-out loss are built.

Only the hidden states of the chosen positions meet the output head, and they do so in chunks, so that the
(tokens × vocabulary) logits never exist at once; in training each chunk is recomputed in the backward pass.
"""

import torch
from peft import PeftModel
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from forgetting_core.errors import InputError
from forgetting_core.models import causal_lm

CHUNK_LOGITS = 2**25
"""Logits of one head chunk: 128 MiB in float32."""


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
        self, input_ids_BT: torch.Tensor, select_BT: torch.Tensor, position_ids_BT: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Losses (N,) in nats of the N selected tokens in row order; float32, or float64 for such a model.

        `input_ids_BT` int64 (B, T); `select_BT` bool (B, T), False for the first token of a row, which nothing
        predicts. `position_ids_BT` int64 (1, T) begins again at 0 with each row of a packed line: see `packing`.
        """
        inner = causal_lm(self.model)
        hidden_BTD = inner.base_model(
            input_ids=input_ids_BT, position_ids=position_ids_BT, use_cache=False
        ).last_hidden_state
        hidden_ND = hidden_BTD[:, :-1][select_BT[:, 1:]]
        if len(hidden_ND) == 0:
            # Every rank takes part in every backward pass, so the graph must hold every parameter.
            return head_losses(inner, hidden_BTD[:1, 0], input_ids_BT[:1, 0])[:0]
        return head_losses(inner, hidden_ND, input_ids_BT[:, 1:][select_BT[:, 1:]])


def head_losses(model: PreTrainedModel, hidden_ND: torch.Tensor, target_N: torch.Tensor) -> torch.Tensor:
    """−log softmax(head(hidden))[target] in nats, (N,), reduced in at least float32."""
    vocabulary = model.get_output_embeddings().weight.shape[0]
    chunk = max(1, CHUNK_LOGITS // vocabulary)
    losses = []
    for hidden, target in zip(hidden_ND.split(chunk), target_N.split(chunk), strict=True):
        if torch.is_grad_enabled():
            loss = checkpoint(_chunk_losses, model, hidden, target, use_reentrant=False, preserve_rng_state=False)
        else:
            loss = _chunk_losses(model, hidden, target)
        losses.append(loss)
    return torch.cat(losses)


def _chunk_losses(model: PreTrainedModel, hidden_ND: torch.Tensor, target_N: torch.Tensor) -> torch.Tensor:
    logits_NV = head_logits(model, hidden_ND)
    if logits_NV.dtype != torch.float64:
        logits_NV = logits_NV.float()
    return F.cross_entropy(logits_NV, target_N, reduction="none")


def head_logits(model: PreTrainedModel, hidden_ND: torch.Tensor) -> torch.Tensor:
    """The output head, with the soft cap of Gemma 2."""
    logits_NV = model.get_output_embeddings()(hidden_ND)
    softcap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return logits_NV if softcap is None else softcap * torch.tanh(logits_NV / softcap)


@torch.no_grad()
def check_head(model: PreTrainedModel | PeftModel) -> None:
    """Compare our logits with the model's own on one short row; raises `InputError` when they differ.

    Some architectures scale or bias logits outside the head; computing them without that would be silently wrong.
    """
    inner = causal_lm(model)
    training = inner.training
    inner.eval()
    input_ids = torch.arange(8, device=inner.device).unsqueeze(0) % inner.get_input_embeddings().weight.shape[0]
    expected = inner(input_ids=input_ids, use_cache=False).logits.float()
    found = head_logits(inner, inner.base_model(input_ids=input_ids, use_cache=False).last_hidden_state).float()
    inner.train(training)
    tolerance = 1e-2 if inner.dtype == torch.bfloat16 else 1e-4
    if not torch.allclose(found, expected, rtol=tolerance, atol=tolerance):
        raise InputError(
            f"model: {type(inner).__name__} computes its logits otherwise than head(hidden); it is not supported"
        )
