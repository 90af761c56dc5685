"""What a result was measured on: the kind of machine and the versions of what ran on it, never which machine."""

import os
import platform
from pathlib import Path
from typing import Any

import psutil

from infra.provenance import provenance

GIB = 2**30


def machine() -> dict[str, Any]:
    """`cpu`, `instructions`, `cores`, `memory_gib`, `gpu` (None without one) and `system`."""
    import torch

    return {
        "cpu": _cpu_model(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / GIB),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def software() -> dict[str, Any]:
    """`git_commit`, `git_dirty`, `python` and `libraries` with their versions."""
    by = provenance()
    return {name: by[name] for name in ("git_commit", "git_dirty", "python", "libraries")}


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())
