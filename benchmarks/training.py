"""An optimizer step of forgetting: against padded batches with full float32 logits, and what token signs cost."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_

from benchmarks.memory import MB, in_own_process
from benchmarks.rows import Row, at_least, at_most
from benchmarks.timing import take_turns
from benchmarks.workload import SMOLLM2_135M, WIDE_VOCABULARY, mixed_rows, padded, random_model, rows_of_lengths
from forgetting_core.batching import Passes
from forgetting_core.config import ExecutionConfig, ForgetConfig, LambdaConfig
from forgetting_core.progress import Progress
from forgetting_core.tables import TokenRows
from forgetting_core.trainable import build_model
from forgetting_core.training import TrainingRun
from forgetting_core.training_data import TrainingData

CONFIG = ForgetConfig(lambda_=LambdaConfig(schedule="constant", t_min=0, t_max=0.25))
"""As published: LoRA on all linear layers, bfloat16, 24 rows per optimizer step."""
PLAIN_ROWS = 4
"""Of a padded micro-batch."""
QUICK_ROWS = 6
MANY_TOKENS = 100_000_000
WIDE_LENGTHS = [512, 300, 200, 100]


def measure(quick: bool) -> list[Row]:
    """Rate, peak memory under a large vocabulary, and the cost of token signs in a large corpus."""
    with tempfile.TemporaryDirectory() as folder:
        rows = mixed_rows(QUICK_ROWS if quick else CONFIG.rows_per_step, int(SMOLLM2_135M["vocab_size"]))
        return [*_rate(rows, Path(folder), quick), _memory(Path(folder))]


def signs_of(rows: TokenRows) -> np.ndarray:
    """int8 (T,): three of ten response tokens are negative."""
    draws = np.random.default_rng(1).random(len(rows.input_ids))
    sign: np.ndarray = np.where(draws < 0.3, -1, 1) * rows.response_mask()
    return sign.astype(np.int8)


def _rate(rows: TokenRows, folder: Path, quick: bool) -> list[Row]:
    base = folder / "base"
    random_model(SMOLLM2_135M, torch.bfloat16).save_pretrained(base)
    ours, plain = our_step(rows, base, folder), plain_step(rows, base)
    contestants: dict[str, Callable[[], object]] = {"ours": ours, "plain": plain}
    times = take_turns(contestants, rounds=2 if quick else 3)
    rates = ", ".join(f"{who} {len(rows.input_ids) / times.median(who):.0f}" for who in contestants)
    note = f"SmolLM2-135M's shape, LoRA, {len(rows)} rows of 20 to 600 tokens; tokens/s: {rates}"
    preparing = seconds_to_lay_out_a_step()
    share = 100 * preparing / times.median("ours")
    return [
        at_least("training step, bfloat16", times.ratio("plain", "ours"), "× the plain way", 1.5, note),
        at_most(
            "token signs among 1e8 training tokens, share of a step",
            share,
            "%",
            0.5,
            f"{preparing * 1e3:.2f} ms to lay out {CONFIG.rows_per_step} rows with their signs",
        ),
    ]


def our_step(rows: TokenRows, base: Path, work: Path) -> Callable[[], object]:
    """An optimizer step over all `rows` by the training loop itself."""
    execution = ExecutionConfig(device="cpu")
    run = TrainingRun(CONFIG, TrainingData(rows, signs_of(rows)), base, work, execution, Progress())
    run.model.train()
    return lambda: run.step(0, np.arange(len(rows)))


def plain_step(rows: TokenRows, base: Path) -> Callable[[], object]:
    """The same step as first written: every batch padded, all logits in float32, masks token by token."""
    model = build_model(CONFIG, base, "cpu", ExecutionConfig(device="cpu")).model.train()
    parameters = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=CONFIG.learning_rate, weight_decay=CONFIG.weight_decay)
    sign = signs_of(rows)

    def step() -> None:
        for first in range(0, len(rows), PLAIN_ROWS):
            some = range(first, min(first + PLAIN_ROWS, len(rows)))
            batch = padded(rows, some)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float()
            loss = F.cross_entropy(logits[:, :-1].transpose(1, 2), batch["labels"][:, 1:], reduction="none")
            positive, negative = torch.zeros_like(loss), torch.zeros_like(loss)
            for line, row in enumerate(some):
                for place in range(1, int(rows.lengths[row])):
                    token = sign[rows.offsets[row] + place]
                    if token == 1:
                        positive[line, place - 1] = 1
                    elif token == -1:
                        negative[line, place - 1] = 1
            kept, pushed = (loss * positive).sum() / positive.sum(), (loss * negative).sum() / negative.sum()
            torch.autograd.backward(kept - CONFIG.lambda_.t_max * pushed)
        clip_grad_norm_(parameters, CONFIG.max_grad_norm or float("inf"))
        optimizer.step()
        optimizer.zero_grad()

    return step


def seconds_to_lay_out_a_step() -> float:
    """The tensors of a step over rows from all over a corpus of 1e8 tokens, signs included."""
    lengths = np.random.default_rng(2).integers(20, 601, MANY_TOKENS // 310)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    rows = TokenRows(np.zeros(offsets[-1], np.int32), np.zeros(offsets[-1], np.int32), offsets)
    sign = np.ones(offsets[-1], np.int8)
    passes = Passes("auto", 1024, "cpu")
    order = np.random.default_rng(3).permutation(len(rows))
    steps = iter(range(0, len(rows), CONFIG.rows_per_step))

    def lay_out() -> None:
        first = next(steps)
        passes.micro_batches(rows, sign, order[first : first + CONFIG.rows_per_step])

    return take_turns({"step": lay_out}, rounds=50, warm_up=5).median("step")


def _memory(folder: Path) -> Row:
    wide = folder / "wide"
    random_model(WIDE_VOCABULARY, torch.bfloat16).save_pretrained(wide)
    ours = in_own_process(wide_step, wide, folder, "ours")
    plain = in_own_process(wide_step, wide, folder, "plain")
    return at_most(
        "training, vocabulary 128k: peak memory",
        ours.added / plain.added,
        "× the plain way",
        1 / 3,
        f"{sum(WIDE_LENGTHS)} tokens in {len(WIDE_LENGTHS)} rows: ours {ours.added / MB:.0f} MB, "
        f"plain {plain.added / MB:.0f} MB, weights included",
    )


def wide_step(base: Path, work: Path, way: str) -> None:
    """One optimizer step over a few rows."""
    rows = rows_of_lengths(WIDE_LENGTHS, int(WIDE_VOCABULARY["vocab_size"]))
    step = our_step(rows, base, work) if way == "ours" else plain_step(rows, base)
    step()
