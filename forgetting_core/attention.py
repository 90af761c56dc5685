"""Attention of packed rows on a CPU: each row by itself, instead of the whole line under a mask.

A line of n rows of L tokens costs n·L² that way and (n·L)² under a mask. On a GPU the rows of a line are too small
to be computed one by one.
"""

import torch
from peft import PeftModel
from torch import nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from forgetting_core.models import causal_lm

ROW_BY_ROW = "sdpa_row_by_row"
"""What transformers calls it."""


def attend_row_by_row(model: PreTrainedModel | PeftModel, device: str) -> None:
    """Have `model` use it, where it is to use `sdpa` on a CPU; its weights may still be elsewhere."""
    inner = causal_lm(model)
    if torch.device(device).type == "cpu" and inner.config.get_text_config()._attn_implementation == "sdpa":
        inner.set_attn_implementation(ROW_BY_ROW)


def _row_by_row(
    module: nn.Module,
    query_BHTD: torch.Tensor,
    key_BHTD: torch.Tensor,
    value_BHTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None = None,
    **settings: object,
) -> tuple[torch.Tensor, None]:
    """The result of transformers' `sdpa`, (B, T, H, D); rows of one line apart where the mask does nothing else."""
    lengths = _rows_of_line(attention_mask, position_ids)
    if lengths is None:
        return sdpa_attention_forward(module, query_BHTD, key_BHTD, value_BHTD, attention_mask, **settings)
    rows = zip(*(states.split(lengths, dim=2) for states in (query_BHTD, key_BHTD, value_BHTD)), strict=True)
    return torch.cat([sdpa_attention_forward(module, *row, None, **settings)[0] for row in rows], dim=1), None


def _rows_of_line(attention_mask: torch.Tensor | None, position_ids: torch.Tensor | None) -> list[int] | None:
    """Lengths of the rows in the only line; None where attention is not causal within each and nothing else.

    A window, a chunk or a cache lets fewer tokens be seen than that, so it is enough to count them.
    """
    if attention_mask is None or attention_mask.dtype != torch.bool or position_ids is None:
        return None
    if attention_mask.shape[0] != 1 or position_ids.shape != (1, attention_mask.shape[-1]):
        return None
    starts = torch.nonzero(position_ids[0] == 0).flatten()
    lengths = torch.diff(starts, append=torch.tensor([position_ids.shape[1]]))
    if int(torch.count_nonzero(attention_mask)) != int((lengths * (lengths + 1) // 2).sum()):
        return None
    found: list[int] = lengths.tolist()
    return found


AttentionInterface.register(ROW_BY_ROW, _row_by_row)
AttentionMaskInterface.register(ROW_BY_ROW, sdpa_mask)
