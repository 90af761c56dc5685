"""Timing things against each other, in turns, so that whatever else the machine does meanwhile hits them all."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Times:
    """Seconds of each contestant in every round; the same round of two of them lies next to each other in time."""

    seconds: Mapping[str, list[float]]

    def median(self, name: str) -> float:
        """Seconds of `name`."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, to: str) -> float:
        """How many times as long `name` takes as `to`: the median over the rounds."""
        rounds = zip(self.seconds[name], self.seconds[to], strict=True)
        return statistics.median(first / second for first, second in rounds)


def take_turns(contestants: Mapping[str, Callable[[], object]], *, rounds: int, warm_up: int = 1) -> Times:
    """Call each of `contestants` once per round, in turns, after `warm_up` rounds that do not count."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(warm_up + rounds):
        for name, call in contestants.items():
            started = time.perf_counter()
            call()
            if turn >= warm_up:
                found[name].append(time.perf_counter() - started)
    return Times(found)
