"""How to type the name of a program of this environment, wherever the user is and whatever is activated."""

import os
import shutil
import sys
from pathlib import Path


def program(name: str) -> str:
    """`name` where the shell finds this environment's own, else its path, relative to the current folder."""
    path = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    if not path.exists() or (found and Path(found).resolve() == path.resolve()):
        return name
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
