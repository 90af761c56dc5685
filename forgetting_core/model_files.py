"""Which files of a Hugging Face model folder make the model. Light: the planner imports it.

Only top-level files count, so that a hub snapshot, a local copy and a copy with extra folders (`original/`,
`onnx/`) have the same identity.
"""

import json
from fnmatch import fnmatch
from pathlib import Path

from forgetting_core.errors import InputError

TOKENIZER_PATTERNS = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "spiece.model",
    "chat_template.*",
)
WEIGHT_PATTERNS = ("*.safetensors", "*.safetensors.index.json")
BASE_FILE = "base_model.json"
"""Beside an adapter: the digest of its base model."""
ADAPTER_FILE = "adapter_config.json"
CONFIG_PATTERNS = ("config.json", "generation_config.json", ADAPTER_FILE, BASE_FILE)


def _matching(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in patterns)
    )


def tokenizer_files(folder: Path) -> list[Path]:
    """The tokenizer's files, sorted by name."""
    return _matching(folder, TOKENIZER_PATTERNS)


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds a LoRA adapter and no model of its own."""
    return (folder / ADAPTER_FILE).exists()


def base_of_adapter(folder: Path) -> str | None:
    """Digest of the base model that an adapter says it was trained on; None where it does not say."""
    named = folder / BASE_FILE
    return str(json.loads(named.read_text(encoding="utf-8"))["digest"]) if named.exists() else None


def model_files(folder: Path) -> list[Path]:
    """Weights, config and tokenizer files, sorted by name.

    Raises `InputError` when the folder is missing, has no `config.json` or no safetensors weights.
    """
    if not folder.is_dir():
        raise InputError(f"model {folder}: no such folder; give a local folder, an s3:// folder or a hub id")
    if not any((folder / name).exists() for name in ("config.json", ADAPTER_FILE)):
        raise InputError(f"model {folder}: no config.json; expected a Hugging Face model folder")
    if not _matching(folder, WEIGHT_PATTERNS):
        pickled = [path.name for path in _matching(folder, ("*.bin", "*.pt", "*.pth"))]
        found = f" (only pickled ones: {', '.join(pickled)}, which are never loaded)" if pickled else ""
        raise InputError(f"model {folder}: no *.safetensors weights{found}; save it with save_pretrained first")
    return _matching(folder, (*WEIGHT_PATTERNS, *CONFIG_PATTERNS, *TOKENIZER_PATTERNS))
