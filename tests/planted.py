"""A pickle that leaves a trace when anything unpickles it, for the places where one could be planted."""

import os
import pickle
from pathlib import Path
from typing import Any

PICKLED = (
    "pytorch_model.bin",
    "adapter_model.bin",
    "training_args.bin",
    "optimizer.pt",
    "rng_state.pth",
    "vocab.pkl",
)
"""Names under which training software leaves pickles in model folders."""


class _Trap:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


class Planted:
    """The bytes of such a pickle."""

    def __init__(self, folder: Path) -> None:
        self._trace = folder / "sprung"
        self.pickle = pickle.dumps(_Trap(self._trace))

    @property
    def sprung(self) -> bool:
        """Whether it was unpickled."""
        return self._trace.exists()
