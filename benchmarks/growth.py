"""How the time of scoring and of partitioning grows with the tokens: linearly, from the smallest corpus on.

A line is laid through the times, what a call costs without tokens and what each token costs; how far the farthest
time is from it says how linear they are.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.losses import write_losses
from benchmarks.partition import step
from benchmarks.rows import Row, at_most
from benchmarks.timing import take_turns
from forgetting_core.models import load_checkpoint
from forgetting_core.progress import Progress
from forgetting_core.scoring import token_losses
from forgetting_core.tables import TokenRows
from forgetting_core.token_loss import TokenLossModel
from tests.tiny import save_model, token_rows

SIZES = {True: (10_000, 100_000, 1_000_000), False: (10_000, 100_000, 1_000_000, 10_000_000)}
LONGEST = 60
TOKENS_PER_ROW = 31
BLOCK_ROWS = 512
ROUNDS = {"scoring": 3, "partition": 9}


def measure(quick: bool) -> list[Row]:
    """The rows of growth, each with its curve."""
    with TemporaryDirectory() as folder:
        return [
            _growth("partition", _partitions(Path(folder)), SIZES[quick]),
            _growth("scoring", _scorings(Path(folder)), SIZES[quick]),
        ]


def _growth(name: str, prepared: Callable[[int], Callable[[], object]], sizes: tuple[int, ...]) -> Row:
    times = take_turns({str(size): prepared(size) for size in sizes}, rounds=ROUNDS[name])
    seconds = np.array([times.best(str(size)) for size in sizes])
    each, once = np.polyfit(sizes, seconds, 1, w=1 / seconds)
    off = seconds / (once + each * np.array(sizes)) - 1
    what = f"{name}, {sizes[0]:.0e} to {sizes[-1]:.0e} tokens: farthest from a line"
    note = f"{1e3 * once:.1f} ms and {1e9 * each:.3g} ns per token; off by {', '.join(f'{x:+.1%}' for x in off)}"
    curve = tuple((float(size), 1e9 * time / size) for size, time in zip(sizes, seconds, strict=True))
    return at_most(what, 100 * float(np.abs(off).max()), "%", 10, note, curve)


def _partitions(folder: Path) -> Callable[[int], Callable[[], object]]:
    """The step, from files to files."""

    def prepared(tokens: int) -> Callable[[], object]:
        losses = folder / f"losses-{tokens}"
        write_losses(losses, tokens)
        return lambda: step(losses, folder / "labels")

    return prepared


def _scorings(folder: Path) -> Callable[[int], Callable[[], object]]:
    """Scoring by a tiny model with random weights, in blocks as the step scores."""
    checkpoint = load_checkpoint(save_model(folder / "model"), None, dtype="float32", device="cpu")
    model = TokenLossModel(checkpoint)

    def prepared(tokens: int) -> Callable[[], object]:
        rows = token_rows(-(-tokens // TOKENS_PER_ROW), longest=LONGEST)
        exactly = _first(rows, tokens)
        return lambda: token_losses(model, exactly, block_rows=BLOCK_ROWS, micro_batch="auto", progress=Progress())

    return prepared


def _first(rows: TokenRows, tokens: int) -> TokenRows:
    """The rows that begin within the first `tokens` tokens, cut there."""
    end = min(tokens, int(rows.offsets[-1]))
    offsets = np.append(rows.offsets[rows.offsets < end], end)
    return TokenRows(rows.input_ids[:end], rows.labels[:end], offsets)
