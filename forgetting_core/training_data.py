"""What a fine-tune sees of its data: rows, and the sign that its objective gives each token."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from forgetting_core.config import ForgetConfig, IgnoreConfig, ReferenceConfig, SftConfig
from forgetting_core.errors import InputError
from forgetting_core.partition import LABELS_FILE, read_losses
from forgetting_core.tables import TokenRows, flatten, read_parquet

AnyObjective = ForgetConfig | IgnoreConfig | SftConfig | ReferenceConfig


@dataclass(frozen=True)
class TrainingData:
    """What one fine-tune sees: rows, and the sign of each token under its objective."""

    rows: TokenRows
    sign: np.ndarray
    """int8 (T,): +1 learn, −1 forget, 0 leave out"""
    loss_base: np.ndarray | None = None
    """float32 (T,) in nats, for bounded forgetting"""


def read_training_data(
    config: AnyObjective, data: Path, token_labels: Path | None, loss_base: Path | None
) -> TrainingData:
    """Rows and signs for `config`'s objective; raises `InputError` when no token would be trained on."""
    rows = TokenRows.read(data)
    response = rows.response_mask()
    objective = getattr(config, "objective", "sft")
    if objective == "sft":
        sign = response.astype(np.int8)
    else:
        assert token_labels is not None, f"{objective} needs token labels"
        sign, _ = flatten(read_parquet(token_labels, ["label"])["label"])
        if len(sign) != len(response) or ((sign != 0) != response).any():
            raise InputError(f"{token_labels / LABELS_FILE}: labels other tokens than {data} has; partition again")
        if objective == "ignore":
            sign = np.where(sign > 0, sign, 0).astype(np.int8)
    if not sign.any():
        more = "raise partition.rho or lower partition.threshold"
        what = more if token_labels is not None else f"no row of {data} has a response token"
        raise InputError(f"no token to train on under the objective `{objective}`; {what}")
    needs_base = isinstance(config, ForgetConfig) and config.negative == "npo"
    losses = read_losses(loss_base)[0] if needs_base and loss_base is not None else None
    assert not needs_base or losses is not None, "npo needs the base losses"
    if losses is not None and not np.array_equal(np.isfinite(losses), response):
        raise InputError(f"{loss_base}: lacks losses of response tokens of {data}, or has others; score it again")
    return TrainingData(rows, sign, losses)
