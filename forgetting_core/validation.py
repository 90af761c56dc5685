"""Held-out loss in the middle of a training: measured between optimizer steps, and leaving no trace in them.

The same loss as the step `evaluate[…,held_out]` measures of the finished model, by the training's own arithmetic:
micro-batches are dealt to the ranks, and what they find is summed.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from forgetting_core.batching import MicroBatch, Passes
from forgetting_core.errors import NumericalError
from forgetting_core.evaluation.held_out import answered_rows, ratio_with_stderr
from forgetting_core.finite import GENTLER, listed
from forgetting_core.metrics_file import VALIDATION_CHANGE, VALIDATION_CHANGE_STDERR, VALIDATION_LOSS
from forgetting_core.ranks import Ranks
from forgetting_core.tables import TokenRows
from forgetting_core.token_loss import TokenLossModel


class Validation:
    """Measures the loss of a split again and again. Made once per training."""

    def __init__(self, data: Path, passes: Passes) -> None:
        """Raises `InputError` when no row of `data` has a response token."""
        self.rows = TokenRows.read(data)
        response = self.rows.response_mask()
        self._scored = answered_rows(self.rows)
        self._counts = self.rows.count(response)[self._scored]
        self._batches = passes.micro_batches(self.rows, response.astype(np.int8), self._scored)
        self._first: np.ndarray | None = None
        """Sums of the rows' losses at the first measurement."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training has to know of the measurements before it."""
        assert self._first is not None  # measured before the first step
        return {"first": self._first.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on measuring where `state` was taken."""
        self._first = np.array(state["first"])

    @torch.no_grad()
    def measure(
        self, model: TokenLossModel, done: int, ranks: Ranks, autocast: Callable[[], AbstractContextManager[object]]
    ) -> dict[str, float]:
        """The curves' values of `model` after `done` steps; called by all ranks, and it goes on in training mode.

        Raises `NumericalError` for a loss that is not finite. Draws nothing at random. Not in inference mode:
        sharded parameters that are first gathered in it could not be trained.
        """
        device = ranks.accelerator.device
        sums = np.zeros(len(self.rows))
        model.eval()
        for batch in ranks.deal(self._batches, MicroBatch.idle):
            with autocast():
                losses = model(**batch.inputs(device))
            np.add.at(sums, self.rows.row_of(batch.chosen_tokens), losses.double().cpu().numpy())
        model.train()
        ranks.reshard(model)
        return self._values(np.array(ranks.sum(sums.tolist()))[self._scored], done)

    def _values(self, sums: np.ndarray, done: int) -> dict[str, float]:
        loss, _ = ratio_with_stderr(sums, self._counts)
        wrong = self._scored[~np.isfinite(sums)]
        if len(wrong):
            raise NumericalError(
                f"training: the validation loss after optimizer step {done} is {loss} (validation rows "
                f"{listed(wrong)}); {GENTLER}"
            )
        if self._first is None:
            self._first = sums
            return {VALIDATION_LOSS: loss}
        change, error = ratio_with_stderr(sums - self._first, self._counts)
        values = {VALIDATION_LOSS: loss, VALIDATION_CHANGE: change}
        return values if error is None else {**values, VALIDATION_CHANGE_STDERR: error}
