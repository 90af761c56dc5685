"""Imported by the processes in which steps compute, before anything else: the heavy libraries, for good.

The server from which those processes are forked imports them once for all steps of a run, which makes half a
million objects that stay. Python's garbage collector would look through them again and again: that takes a quarter
of the time of the imports, and slows every forked process. So it is off during the imports, and leaves these
objects alone after.
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
try:
    for library in LIBRARIES:
        import_module(library)
    gc.freeze()
finally:
    gc.enable()
