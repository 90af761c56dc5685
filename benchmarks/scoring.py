"""Token losses: against padded batches with full float32 logits, and against bare arithmetic."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch.nn import functional as F
from transformers import LlamaForCausalLM

from benchmarks.memory import MB, in_own_process
from benchmarks.rows import Row, at_least, at_most, reported
from benchmarks.timing import take_turns
from benchmarks.workload import SMOLLM2_135M, WIDE_VOCABULARY, mixed_rows, padded, random_model, rows_of_lengths
from forgetting_core.batching import MicroBatch, Passes
from forgetting_core.progress import Progress
from forgetting_core.scoring import Scorer
from forgetting_core.tables import TokenRows
from forgetting_core.token_loss import TokenLossModel

PLAIN_ROWS = 8
"""Of a padded batch."""
TARGETS = {torch.float32: 2.5, torch.bfloat16: 3.3}
WIDE_TOKENS = 12_000


def measure(quick: bool) -> list[Row]:
    """Rates in both types, agreement with the plain way, and memory under a large vocabulary."""
    rows = mixed_rows(PLAIN_ROWS if quick else 4 * PLAIN_ROWS, int(SMOLLM2_135M["vocab_size"]))
    return [*_rates(rows, torch.float32, quick), *_rates(rows, torch.bfloat16, quick), *_memory()]


def _rates(rows: TokenRows, dtype: torch.dtype, quick: bool) -> list[Row]:
    model = random_model(SMOLLM2_135M, dtype)
    scorer = Scorer(TokenLossModel(model), "auto", Progress(), [rows])  # with its one-off checks of the model
    lines, everything = Passes.of(model, "auto", "cpu", packed=True), np.arange(len(rows))
    found: dict[str, np.ndarray] = {}

    def plain() -> None:
        found["plain"] = plain_losses(model, rows)

    def ours() -> None:
        found["ours"] = scorer.losses(rows, 0)

    contestants: dict[str, Callable[[], object]] = {
        "ours": ours,
        "limit": partial(bare_arithmetic, model, lines.micro_batches(rows, rows.response_mask(), everything)),
        "plain": plain,
    }
    times = take_turns(contestants, rounds=2 if quick else 3)
    name = str(dtype).removeprefix("torch.")
    rates = ", ".join(f"{who} {len(rows.input_ids) / times.median(who):.0f}" for who in contestants)
    note = f"SmolLM2-135M's shape, {len(rows)} rows of 20 to 600 tokens; tokens/s: {rates}"
    off = float(np.nanmax(np.abs(found["ours"] - found["plain"])))
    agreement = (
        at_most if dtype == torch.float32 else (lambda what, off, unit, _, note: reported(what, off, unit, note))
    )
    return [
        at_least(f"scoring, {name}, share of the limit", times.ratio("limit", "ours"), "", 0.95, note),
        at_least(f"scoring, {name}", times.ratio("plain", "ours"), "× the plain way", TARGETS[dtype]),
        agreement(f"scoring, {name}, largest difference of a loss", off, "nats", 3e-5, "from the plain way"),
    ]


@torch.inference_mode()
def plain_losses(model: LlamaForCausalLM, rows: TokenRows) -> np.ndarray:
    """float32 (T,), NaN where not a response token: padded batches in file order, the loss of all logits.

    The model is given the labels, as in the published recipe, so the library's own loss is computed as well.
    """
    losses = np.full(len(rows.input_ids), np.nan, np.float32)
    for first in range(0, len(rows), PLAIN_ROWS):
        some = range(first, min(first + PLAIN_ROWS, len(rows)))
        batch = padded(rows, some)
        logits = model(**batch).logits.float()
        loss = F.cross_entropy(logits[:, :-1].transpose(1, 2), batch["labels"][:, 1:], reduction="none")
        for line, row in enumerate(some):
            span = slice(rows.offsets[row] + 1, rows.offsets[row + 1])
            of_row = loss[line, : span.stop - span.start].numpy()
            losses[span] = np.where(rows.response_mask()[span], of_row, np.nan)
    return losses


@torch.inference_mode()
def bare_arithmetic(model: LlamaForCausalLM, batches: Sequence[MicroBatch]) -> None:
    """What cannot be avoided: the body over each token once, and the head's product at response tokens only.

    The rows lie in lines already; the losses are not computed.
    """
    for batch in batches:
        inputs = {"input_ids": batch.input_ids, "position_ids": batch.layout.position_ids}
        hidden = model.model(**inputs, use_cache=False).last_hidden_state
        model.lm_head(hidden[batch.chosen])


def _memory() -> list[Row]:
    """Of one batch of mixed rows, in a process of its own, above the model's weights."""
    measured = in_own_process(wide_scoring)
    weights = measured.result
    peak = (measured.added - weights) / MB
    return [
        at_most(
            "scoring, vocabulary 128k, 12k tokens: peak memory above the weights",
            peak,
            "MB",
            400,
            f"weights {weights / MB:.0f} MB; the batch's float32 logits alone would be "
            f"{WIDE_TOKENS * int(WIDE_VOCABULARY['vocab_size']) * 4 / MB:.0f} MB",
        )
    ]


def wide_scoring() -> int:
    """Score 12 000 tokens under a vocabulary of 128 000; returns the bytes of the weights."""
    model = random_model(WIDE_VOCABULARY, torch.float32)
    rows = rows_of_lengths([600] * (WIDE_TOKENS // 600), int(WIDE_VOCABULARY["vocab_size"]))
    Scorer(TokenLossModel(model), "auto", Progress(), [rows]).losses(rows, 0)
    return sum(value.nbytes for value in model.parameters())
