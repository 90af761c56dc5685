"""Loading and saving models and tokenizers: folders in, canonical folders out.

Nothing is invented on the way: weights missing from a file are an error (transformers would draw them at random),
pickles are not read, code that a model brings along is not run unless it is trusted, embeddings are never resized.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from forgetting_core.config import LoraConfig
from forgetting_core.errors import InputError, brief
from forgetting_core.finite import require_finite_tensors
from forgetting_core.json_files import write_json
from forgetting_core.model_files import (
    ADAPTER_FILE,
    ADAPTER_WEIGHTS,
    BASE_FILE,
    base_of_adapter,
    is_adapter,
    model_files,
    own_code,
    refuse_adapter,
    tokenizer_files,
)

VOLATILE_CONFIG_KEYS = ("transformers_version", "_name_or_path", "peft_version", "base_model_name_or_path")
SET_LIKE_ADAPTER_KEYS = ("target_modules", "modules_to_save", "exclude_modules", "target_parameters")
"""What PEFT keeps as sets, and so writes in hash order. In config.json the order of a list has a meaning."""


def resolve_device(requested: str) -> str:
    """`auto` is CUDA when there is one. Raises `InputError` when CUDA is asked for and missing."""
    if requested == "cuda" and not torch.cuda.is_available():
        raise InputError("execution.device: cuda was asked for, but torch sees no GPU; use `auto` or `cpu`")
    if requested == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return requested


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The fast tokenizer of a model folder. Raises `InputError` when there is none."""
    if not tokenizer_files(folder):
        raise InputError(f"model {folder}: no tokenizer files; expected tokenizer.json beside the weights")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises nothing more special
        why = brief(error)
        if "trust_remote_code" in str(error):
            why = "it needs code that it brings along, which is never run for a tokenizer; save it as a fast one"
        raise InputError(f"model {folder}: the tokenizer cannot be loaded: {why}") from error


def load_config(folder: Path, *, trust_remote_code: bool) -> PreTrainedConfig:
    """The config of a model folder. Raises `InputError` when there is none, or only code that is not trusted."""
    if trust_remote_code:
        own_code(folder)
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    except Exception as error:  # transformers checks values in many ways
        raise InputError(
            f"{folder}: expected a Hugging Face model folder with a config.json: {_why(error, trust_remote_code)}"
        ) from error


def load_base(folder: Path, *, dtype: str, device: str, trust_remote_code: bool = False) -> PreTrainedModel:
    """A causal language model in evaluation mode; on the device `meta` only its shapes, and no weight is read.

    Raises `InputError` when the folder is no safetensors model of a causal language model or lacks weights.
    """
    model_files(folder, code=trust_remote_code)
    refuse_adapter(folder)
    transformers_logging.disable_progress_bar()
    try:
        if device == "meta":
            config = load_config(folder, trust_remote_code=trust_remote_code)
            with torch.device(device):
                return AutoModelForCausalLM.from_config(
                    config, dtype=getattr(torch, dtype), trust_remote_code=trust_remote_code
                ).eval()
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, by name
        )
    except Exception as error:
        raise InputError(
            f"model {folder}: cannot be loaded as a causal language model: {_why(error, trust_remote_code)}"
        ) from error
    for kind in ("missing_keys", "mismatched_keys"):
        if report[kind]:
            names = ", ".join(map(str, sorted(report[kind])[:5]))
            raise InputError(
                f"model {folder}: {len(report[kind])} weights are {kind[:-5]} ({names}, …); expected those "
                "that its config.json describes"
            )
    return model.to(device).eval()


def _why(error: Exception, trust_remote_code: bool) -> str:
    """What transformers says, with our setting instead of its argument."""
    if trust_remote_code or "trust_remote_code" not in str(error):
        return brief(error)
    return (
        "it needs code that it brings along, and none is run unless the recipe trusts it: read its *.py files, and"
        " set execution.trust_remote_code to true if they may run"
    )


def load_checkpoint(
    base: Path, checkpoint: Path | None, *, dtype: str, device: str, trust_remote_code: bool = False
) -> PreTrainedModel | PeftModel:
    """The base itself, a full checkpoint, or the base with a LoRA adapter; in evaluation mode."""
    adapter = checkpoint if checkpoint is not None and is_adapter(checkpoint) else None
    if adapter is not None:
        model_files(adapter)
    whole = base if checkpoint is None or adapter is not None else checkpoint
    model = load_base(whole, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
    return model if adapter is None else _with_adapter(model, adapter).eval()


def _with_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """PEFT alone would leave out in silence what has no place in the model, and draw at random what is missing."""
    try:
        adapted = PeftModel.from_pretrained(model, folder, autocast_adapter_dtype=False)
        with safe_open(folder / ADAPTER_WEIGHTS, "pt") as file:
            found = set(file.keys())
    except Exception as error:
        raise InputError(f"adapter {folder}: cannot be loaded onto the base model: {brief(error)}") from error
    expected = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    misfits = sorted(expected - found) + sorted(found - expected - adapted.state_dict().keys())
    if misfits:
        raise InputError(
            f"adapter {folder}: {len(misfits)} weights do not fit the base model ({', '.join(misfits[:5])}, …); "
            "name the model that it was trained on under `model`"
        )
    return adapted


def check_adapter(checkpoint: Path | None, base_digest: str) -> None:
    """Raises `InputError` when `checkpoint` is an adapter that says it belongs to another base model."""
    expected = base_of_adapter(checkpoint) if checkpoint else None
    if expected not in (None, base_digest):
        raise InputError(
            f"adapter {checkpoint}: it was trained on a base model with digest {expected}, but the recipe's has"
            f" {base_digest}; name the adapter's own base under `model`"
        )


def add_adapter(model: PreTrainedModel, config: LoraConfig) -> PeftModel:
    """`model` with a fresh adapter on every linear layer but the output head; drawn from torch's RNG.

    The layers are found from the model itself (PEFT's `all-linear`), so any architecture works.
    """
    peft_config = PeftLoraConfig(
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, peft_config)


def causal_lm(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The transformers model inside an adapter (its layers carry the adapter), or `model` itself."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def position_limit(model: PreTrainedModel | PeftModel) -> int | None:
    """Longest sequence with position embeddings of its own; None where positions are rotary."""
    return None if getattr(model.config.get_text_config(), "rope_parameters", None) else context_length(model)


def context_length(model: PreTrainedModel | PeftModel) -> int | None:
    """Positions that the model was made for, rotary or not; None where its config names none."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def check_lengths(model: PreTrainedModel | PeftModel, longest: int) -> None:
    """Raises `InputError` when a row of `longest` tokens has more positions than the model has embeddings."""
    limit = position_limit(model)
    if limit is not None and longest > limit:
        raise InputError(
            f"data.max_length: a row has {longest} tokens, but the model has {limit} positions; lower max_length"
        )


def save_checkpoint(
    model: PreTrainedModel | PeftModel, out: Path, *, base: Path, base_digest: str, dtype: str
) -> None:
    """Write a Hugging Face folder with canonical bytes: full weights in `dtype`, or a float32 LoRA adapter.

    The tokenizer's files are the base model's, byte for byte. An adapter names its base by digest in
    `base_model.json`. Raises `NumericalError` when a weight is not finite, for `dtype` rounds large ones up.
    """
    if not isinstance(model, PeftModel):
        model.to(getattr(torch, dtype))
    trained = ((name, value) for name, value in model.named_parameters() if value.requires_grad)
    require_finite_tensors(trained, f"in the finished model, written as {dtype}")
    if isinstance(model, PeftModel):
        model.save_pretrained(out, save_embedding_layers=False)
        write_json(out / BASE_FILE, {"digest": base_digest})
    else:
        model.save_pretrained(out)
    for name in ("config.json", "generation_config.json", ADAPTER_FILE):
        if (out / name).exists():
            write_json(out / name, _canonical_config(json.loads((out / name).read_text())))
    for path in tokenizer_files(base):
        shutil.copyfile(path, out / path.name)
    (out / "README.md").unlink(missing_ok=True)


def _canonical_config(config: dict[str, Any]) -> dict[str, Any]:
    """Without paths and versions, and with set-like lists sorted."""
    kept = {key: value for key, value in config.items() if key not in VOLATILE_CONFIG_KEYS}
    for key in SET_LIKE_ADAPTER_KEYS:
        if isinstance(kept.get(key), list):
            kept[key] = sorted(kept[key])
    return kept
