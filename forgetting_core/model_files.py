"""Which files of a Hugging Face model folder make the model. Light: the planner imports it.

Only top-level files count, so that a hub snapshot, a local copy and a copy with extra folders (`original/`,
`onnx/`) have the same identity. A folder may come from anywhere, and the libraries follow what its JSON files say:
to pickles, to weights elsewhere, to code on the hub. What would lead out of the folder or to code is refused here.
"""

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

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
ADAPTER_WEIGHTS = "adapter_model.safetensors"
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
    """Digest of the base model that an adapter says it was trained on; None where it does not say.

    Raises `InputError` when the file that says it cannot be read.
    """
    named = folder / BASE_FILE
    if not named.exists():
        return None
    digest = _read_object(named).get("digest")
    if not isinstance(digest, str):
        raise InputError(
            f"{named}: field `digest`: expected the base model's digest; delete the file if it is unknown"
        )
    return digest


def refuse_adapter(folder: Path) -> None:
    """Raises `InputError` for an adapter where a whole model is expected.

    transformers would load the base that it names, wherever that is, or add it to the model unasked.
    """
    if is_adapter(folder):
        raise InputError(
            f"model {folder}: has an {ADAPTER_FILE}; expected a model without adapter: name the adapter under"
            " `reference.model`, or merge it first"
        )


def own_code(folder: Path) -> list[Path]:
    """The modules of a model that its config.json names code of its own for, sorted by name; else none.

    Raises `InputError` when that code is not in the folder.
    """
    config = folder / "config.json"
    named = _read_object(config).get("auto_map") if config.exists() else None
    if not named:
        return []
    for place in sorted(map(str, named.values())) if isinstance(named, dict) else [str(named)]:
        if not re.fullmatch(r"\w+\.\w+", place) or not (folder / f"{place.partition('.')[0]}.py").is_file():
            raise InputError(
                f"{config}: `auto_map` names the code {place!r}; expected MODULE.CLASS of a *.py file beside it,"
                " since no other is run: copy it there"
            )
    return _matching(folder, ("*.py",))


def model_files(folder: Path, *, code: bool = False) -> list[Path]:
    """Weights, config and tokenizer files, sorted by name; with `code` also what `own_code` finds.

    Raises `InputError` when the folder is missing, has no `config.json` or no safetensors weights, and when its
    files would have other weights loaded, or code from elsewhere.
    """
    if not folder.is_dir():
        raise InputError(f"model {folder}: no such folder; give a local folder, an s3:// folder or a hub id")
    if not any((folder / name).exists() for name in ("config.json", ADAPTER_FILE)):
        raise InputError(f"model {folder}: no config.json; expected a Hugging Face model folder")
    if not _matching(folder, WEIGHT_PATTERNS):
        pickled = [path.name for path in _matching(folder, ("*.bin", "*.pt", "*.pth"))]
        found = f" (only pickled ones: {', '.join(pickled)}, which are never loaded)" if pickled else ""
        raise InputError(f"model {folder}: no *.safetensors weights{found}; save it with save_pretrained first")
    _refuse_weights_elsewhere(folder)
    _refuse_modules(folder)
    _refuse_detours(folder)
    files = _matching(folder, (*WEIGHT_PATTERNS, *CONFIG_PATTERNS, *TOKENIZER_PATTERNS))
    return sorted([*files, *(own_code(folder) if code else [])])


def _refuse_weights_elsewhere(folder: Path) -> None:
    """The libraries read whatever an index names, and an adapter's pickle where its safetensors are missing."""
    for index in _matching(folder, ("*.safetensors.index.json",)):
        named = _read_object(index).get("weight_map")
        if not isinstance(named, dict):
            raise InputError(f"{index}: expected `weight_map`, an object of file names; save the model again")
        for name in sorted(set(map(str, named.values()))):
            if "/" in name or "\\" in name or not name.endswith(".safetensors"):
                raise InputError(
                    f"{index}: names the weights {name!r}; expected *.safetensors files beside it, since no others"
                    " are loaded; save the model again with save_pretrained"
                )
    if is_adapter(folder) and not (folder / ADAPTER_WEIGHTS).exists():
        raise InputError(
            f"adapter {folder}: no {ADAPTER_WEIGHTS}; other files, pickled ones too, are never loaded as an"
            " adapter; save it with save_pretrained first"
        )


def _refuse_modules(folder: Path) -> None:
    """PEFT would import what some adapters name."""
    adapter = _read_object(folder / ADAPTER_FILE) if is_adapter(folder) else {}
    if adapter.get("peft_type", "LORA") != "LORA" or adapter.get("megatron_config"):
        raise InputError(
            f"adapter {folder}: {ADAPTER_FILE} has `peft_type` {adapter.get('peft_type')!r} and `megatron_config`"
            f" {adapter.get('megatron_config')!r}; expected a LoRA adapter without Megatron"
        )


def _refuse_detours(folder: Path) -> None:
    """What a config, or one in it, names beside the usual files: kernels of the hub, weights, another config.

    `attribute_map` would hide such a key behind another name.
    """
    config = folder / "config.json"
    for key, value in _pairs(_read_object(config)) if config.exists() else ():
        if key.endswith("attn_implementation") and isinstance(value, str) and "/" in value:
            raise InputError(
                f"{config}: `{key}` is {value!r}, which names code on the hub; code that a model brings along is"
                f" never run: remove `{key}`"
            )
        if (
            key == "transformers_weights"
            and value
            and folder / str(value) not in _matching(folder, WEIGHT_PATTERNS)
        ):
            raise InputError(
                f"{config}: `{key}` names the weights {value!r}; expected a *.safetensors file or index beside it,"
                f" since no others are loaded: remove `{key}`"
            )
        if key in ("configuration_files", "attribute_map") and value:
            raise InputError(
                f"{config}: `{key}` makes another configuration count than what is written here; remove `{key}`,"
                " or save the model again with save_pretrained"
            )


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    """The keys and values of an object and of those in it."""
    for key, item in value.items():
        yield key, item
        if isinstance(item, dict):
            yield from _pairs(item)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected JSON: {error}; fetch or save the model again") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object; fetch or save the model again")
    return value
