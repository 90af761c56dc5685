"""Held-out loss in the middle of a training: measured between optimizer steps, and leaving no trace in them.

The same loss as the step `evaluate[…,held_out]` measures of the finished model, by the training's own arithmetic:
micro-batches are dealt to the ranks, and what they find is summed.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch

from forgetting_core.batching import MicroBatch, padded_batches
from forgetting_core.errors import InputError, NumericalError
from forgetting_core.evaluation.held_out import ratio_with_stderr
from forgetting_core.metrics_file import VALIDATION_LOSS, VALIDATION_STDERR
from forgetting_core.ranks import Ranks
from forgetting_core.tables import TokenRows
from forgetting_core.token_loss import TokenLossModel


class Validation:
    """Measures the loss of a split again and again. Made once per training."""

    def __init__(self, data: Path, micro_batch: int | str) -> None:
        """Raises `InputError` when no row of `data` has a response token."""
        self.rows = TokenRows.read(data)
        response = self.rows.response_mask()
        self._counts = self.rows.count(response)
        scored = np.flatnonzero(self._counts)
        if not len(scored):
            raise InputError(f"{data}: no validation row has a response token; leave eval_steps out")
        self._batches = padded_batches(self.rows, response.astype(np.int8), scored, micro_batch)

    @torch.no_grad()
    def measure(
        self, model: TokenLossModel, ranks: Ranks, autocast: Callable[[], AbstractContextManager[object]]
    ) -> dict[str, float]:
        """The curves' values of `model` as it is; called by all ranks, and it goes on in training mode.

        Raises `NumericalError` for a loss that is not finite. Draws nothing at random. Not in inference mode:
        sharded parameters that are first gathered in it could not be trained.
        """
        device = ranks.accelerator.device
        sums = np.zeros(len(self.rows))
        model.eval()
        for batch in ranks.deal(self._batches, MicroBatch.idle):
            chosen = batch.sign != 0
            with autocast():
                losses = model(batch.input_ids.to(device), chosen.to(device))
            row = np.repeat(batch.rows, chosen.sum(dim=1).numpy())
            np.add.at(sums, row, losses.double().cpu().numpy())
        model.train()
        ranks.reshard(model)
        scored = self._counts > 0
        loss, error = ratio_with_stderr(np.array(ranks.sum(sums.tolist()))[scored], self._counts[scored])
        if not math.isfinite(loss):
            raise NumericalError(
                f"training: the validation loss is {loss}; lower the learning rate or forget.lambda.t_max, or use "
                "float32"
            )
        return {VALIDATION_LOSS: loss} if error is None else {VALIDATION_LOSS: loss, VALIDATION_STDERR: error}
