"""Whether a model keeps rows apart that share a line, so that no arithmetic goes into padding.

transformers sees from position ids that begin again at 0 where a row begins, and masks attention across rows. Not
every architecture heeds them (OPT counts positions from its attention mask), so each loaded model is asked once.
"""

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from forgetting_core.models import causal_lm

_PROBE_ROWS = (5, 3, 8)
_TOLERANCE = 1e-3
_TOLERANCE_BFLOAT16 = 0.05
"""Of the hidden states' norm. 30 layers in bfloat16 round off 0.013; rows of a small OPT, which counts positions
together, are 0.15 off, and rows that see each other 0.2 to 0.8."""


@torch.no_grad()
def keeps_rows_apart(model: PreTrainedModel | PeftModel) -> bool:
    """Whether a packed line gives each row the hidden states that it has alone."""
    inner = causal_lm(model)
    training = inner.training
    inner.eval()
    vocabulary = inner.get_input_embeddings().weight.shape[0]
    probes = [torch.arange(length, device=inner.device) * (7 + length) % vocabulary for length in _PROBE_ROWS]
    alone = [inner.base_model(input_ids=probe[None], use_cache=False).last_hidden_state[0] for probe in probes]
    positions = torch.cat([torch.arange(length, device=inner.device) for length in _PROBE_ROWS])
    line = inner.base_model(
        input_ids=torch.cat(probes)[None], position_ids=positions[None], use_cache=False
    ).last_hidden_state[0]
    inner.train(training)
    expected = torch.cat(alone).float()
    off = (line.float() - expected).norm(dim=-1).mean() / expected.norm(dim=-1).mean()
    return bool(off <= (_TOLERANCE_BFLOAT16 if inner.dtype == torch.bfloat16 else _TOLERANCE))
