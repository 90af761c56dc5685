"""Imported by the processes in which steps compute, before anything else: the heavy libraries, for good.

The server from which they are forked imports them once for all steps of a run. That makes half a million objects
that stay. Python's garbage collector would look through them again and again meanwhile, a quarter of the time that
the imports take, and in each forked process at every full collection and at its end; so it is told to leave them
alone.
"""

import gc
from importlib import import_module

LIBRARIES = (
    "torch",
    "transformers",
    "transformers.trainer_utils",
    "peft",
    "accelerate",
    "pandas",
    "pyarrow.parquet",
    "forgetting_core.config",
)
"""With what most steps would import later: pyarrow imports pandas when it converts its first array."""

gc.disable()
for library in LIBRARIES:
    import_module(library)
gc.freeze()
gc.enable()
