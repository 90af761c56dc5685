"""A fine-tuned model as anyone else expects it: a plain Hugging Face folder with a model card.

The card says where the model comes from, in full: whoever gets the folder alone can still ask for what made it.
"""

import html
import shutil
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from forgetting_core.errors import InputError
from forgetting_core.model_files import BASE_FILE, base_of_adapter, model_files

CARD = "README.md"
_DTYPES = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}


@dataclass(frozen=True)
class Ancestor:
    """One step on the way to the model."""

    label: str
    fingerprint: str
    digest: str
    uri: str


@dataclass(frozen=True)
class Lineage:
    """What a model card states."""

    name: str
    base: str
    """URI."""
    base_digest: str
    training: Mapping[str, Any]
    """Identity config of the step that trained it, flat: `forget.lambda.t_max`."""
    partition: Mapping[str, Any]
    """How the positive tokens were chosen, likewise: `partition.rho`; empty where no labels went in."""
    data: Sequence[tuple[str, str, str]] = ()
    """(name, URI, digest) of what it was trained on, and of the raw inputs."""
    chain: Sequence[Ancestor] = field(default_factory=tuple)
    """The model first, the first step last."""


def export_full(checkpoint: Path, out: Path, lineage: Lineage, *, code: bool = False) -> None:
    """Copy a full checkpoint's weights, config and tokenizer to `out`, and its own `code`; write its card."""
    for path in model_files(checkpoint, code=code):
        if path.name != BASE_FILE:
            shutil.copyfile(path, out / path.name)
    write_card(out, lineage)


def export_merged(
    checkpoint: Path,
    base: Path,
    base_digest: str,
    out: Path,
    lineage: Lineage,
    *,
    trust_remote_code: bool = False,
) -> None:
    """Add a LoRA adapter to its base model and write the result to `out`, in the base's dtype, with its card.

    As PEFT's `merge_and_unload`: the product of the adapter is computed in float32 and rounded once, when it is
    added to the base's weights. Raises `InputError` when the base is not the one that the adapter was trained on.
    """
    from peft import PeftModel

    from forgetting_core.models import load_base, save_checkpoint

    trained_on = base_of_adapter(checkpoint)
    if trained_on != base_digest:
        raise InputError(f"base {base}: its digest is {base_digest}, but the adapter was trained on {trained_on}")
    dtype = weights_dtype(base)
    model = load_base(base, dtype=dtype, device="cpu", trust_remote_code=trust_remote_code)
    # PEFT keeps the adapter in float32 on a base of a narrower type
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # between PEFT and transformers
        merged = PeftModel.from_pretrained(model, checkpoint).merge_and_unload()
    save_checkpoint(merged, out, base=checkpoint, base_digest=base_digest, dtype=dtype)
    for path in out.glob("*.safetensors"):
        path.chmod((out / "config.json").stat().st_mode)  # the library lets only the owner read
    write_card(out, lineage)


def weights_dtype(folder: Path) -> str:
    """The dtype of most floating-point weights of a safetensors model, such as `bfloat16`.

    Raises `InputError` for weights of another kind, such as quantised ones.
    """
    from safetensors import safe_open

    counts: Counter[str] = Counter()
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (it is no dict)
                counts[weights.get_slice(name).get_dtype()] += 1
    most = counts.most_common(1)[0][0]
    if most not in _DTYPES:
        raise InputError(
            f"base {folder}: its weights are {most}; an adapter is merged into {', '.join(_DTYPES.values())}"
        )
    return _DTYPES[most]


def write_card(out: Path, lineage: Lineage) -> None:
    """The model card: front matter that the hub reads, then where the model comes from."""
    front: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if lineage.base.startswith("hf://"):
        front["base_model"] = lineage.base.removeprefix("hf://").rpartition("@")[0]
    front["tags"] = ["forgetting"]
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False).strip(),
        "---",
        "",
        f"# {_cell(lineage.name)}",
        "",
        "Fine-tuned by forgetting ([arXiv 2508.04329](https://arxiv.org/abs/2508.04329)).",
        "",
        "## Lineage",
        "",
        *_table(
            ("", "address", "content digest (SHA-256)"),
            [("base model", lineage.base, lineage.base_digest), *lineage.data],
        ),
        "",
        "Every step that led here, the model first:",
        "",
        *_table(
            ("step", "fingerprint", "content digest", "artifact"),
            [(step.label, step.fingerprint, step.digest, step.uri) for step in lineage.chain],
        ),
        "",
        "## Training",
        "",
        *_table(("setting", "value"), [*lineage.partition.items(), *lineage.training.items()]),
        "",
    ]
    (out / CARD).write_text("\n".join(lines), encoding="utf-8")


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    cells = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(map(_cell, row)) + " |" for row in cells]


def _cell(value: object) -> str:
    """One line without markup: addresses and file names are not ours."""
    return html.escape(" ".join(str(value).split()), quote=False).replace("|", "\\|").replace("[", "\\[")
