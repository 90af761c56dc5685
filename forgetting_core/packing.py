"""Rows one after the other in one line, without padding, for models that keep them apart.

transformers sees from position ids that begin again at 0 where a row begins, and masks attention across rows. Not
every architecture heeds them (OPT counts positions from its attention mask), so each loaded model is asked once.
"""

import numpy as np
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from forgetting_core.models import causal_lm
from forgetting_core.tables import TokenRows

PACK_TOKENS = 1024
"""Of a packed line: attention is computed over the whole line, so a longer one costs more than it saves."""
_PROBE_ROWS = (5, 3, 8)


def packs(rows: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """Cut `rows` (their `lengths`, indexed by row) into lines of at most `PACK_TOKENS` tokens, in order of length.

    A longer row is a line of its own.
    """
    ordered = rows[np.argsort(lengths[rows], kind="stable")]
    lines: list[np.ndarray] = []
    first = filled = 0
    for index, row in enumerate(ordered):
        if filled and filled + lengths[row] > PACK_TOKENS:
            lines.append(ordered[first:index])
            first, filled = index, 0
        filled += int(lengths[row])
    return [*lines, ordered[first:]] if len(ordered) else lines


def pack(data: TokenRows, values: np.ndarray, rows: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """(1, T) tensor of `values` (aligned with `data.input_ids`) for `rows`, one after the other."""
    spans = [values[data.offsets[row] : data.offsets[row + 1]] for row in rows]
    return torch.from_numpy(np.concatenate(spans)).to(dtype).unsqueeze(0)


def position_ids(lengths: np.ndarray) -> torch.Tensor:
    """int64 (1, T): 0, 1, … for each of the rows of a line."""
    return torch.cat([torch.arange(int(length)) for length in lengths]).unsqueeze(0)


@torch.no_grad()
def keeps_rows_apart(model: PreTrainedModel | PeftModel) -> bool:
    """Whether a packed line gives each row the hidden states that it has alone."""
    inner = causal_lm(model)
    training = inner.training
    inner.eval()
    vocabulary = inner.get_input_embeddings().weight.shape[0]
    probes = [torch.arange(length, device=inner.device) * (7 + length) % vocabulary for length in _PROBE_ROWS]
    alone = [inner.base_model(input_ids=probe[None], use_cache=False).last_hidden_state[0] for probe in probes]
    line = inner.base_model(
        input_ids=torch.cat(probes)[None],
        position_ids=position_ids(np.array(_PROBE_ROWS)).to(inner.device),
        use_cache=False,
    ).last_hidden_state[0]
    inner.train(training)
    expected = torch.cat(alone).float()
    tolerance = 1e-2 if inner.dtype == torch.bfloat16 else 1e-4
    return bool((line.float() - expected).abs().max() <= tolerance * expected.abs().max())
