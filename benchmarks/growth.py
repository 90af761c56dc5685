"""How the time of scoring and of partitioning grows with the tokens: linearly, from the smallest corpus on.

What a call costs without tokens (allocating counters, say) is measured on a handful of them and taken off, so that
a point of the curve is what each further token costs.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.losses import make_losses
from benchmarks.partition import RHO, our_labels
from benchmarks.rows import Row, flat
from benchmarks.timing import take_turns
from forgetting_core.models import load_checkpoint
from forgetting_core.progress import Progress
from forgetting_core.scoring import token_losses
from forgetting_core.tables import TokenRows
from forgetting_core.token_loss import TokenLossModel
from tests.tiny import save_model, token_rows

SIZES = {True: (10_000, 100_000, 1_000_000), False: (10_000, 100_000, 1_000_000, 10_000_000)}
HANDFUL = 100
LONGEST = 60
TOKENS_PER_ROW = 31
BLOCK_ROWS = 512
ROUNDS = {"scoring": 3, "partition": 9}


def measure(quick: bool) -> list[Row]:
    """The rows of growth, each with its curve."""
    with TemporaryDirectory() as folder:
        return [
            _growth("partition", _partitions, SIZES[quick]),
            _growth("scoring", _scorings(folder), SIZES[quick]),
        ]


def _growth(name: str, prepared: Callable[[int], Callable[[], object]], sizes: tuple[int, ...]) -> Row:
    calls = {str(size): prepared(size) for size in (HANDFUL, *sizes)}
    times = take_turns(calls, rounds=ROUNDS[name])
    fixed = times.best(str(HANDFUL))
    curve = tuple((float(size), 1e9 * (times.best(str(size)) - fixed) / size) for size in sizes)
    costs = np.array([cost for _, cost in curve])
    against_median = costs / np.median(costs)
    farthest = float(against_median[np.argmax(np.abs(against_median - 1))])
    what = f"{name} per token, {sizes[0]:.0e} to {sizes[-1]:.0e} tokens"
    points = ", ".join(f"{cost:.3g}" for cost in costs)
    note = f"{points} ns, and {1e3 * fixed:.1f} ms once; the farthest from the median"
    return flat(what, farthest, note, curve)


def _partitions(tokens: int) -> Callable[[], object]:
    losses = make_losses(tokens, seed=0)
    return lambda: our_labels(*losses, RHO)


def _scorings(folder: str) -> Callable[[int], Callable[[], object]]:
    """Scoring by a tiny model with random weights, in blocks as the step scores."""
    checkpoint = load_checkpoint(save_model(Path(folder) / "model"), None, dtype="float32", device="cpu")
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
