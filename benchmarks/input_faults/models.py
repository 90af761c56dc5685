"""Models: folders that are none, damaged or missing files, weights that would be a pickle, adapters of others."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks.input_faults.case import Case, Make, write_recipe

WEIGHTS = "model.safetensors"
ADAPTER = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}


def model(spoil: Callable[[Path], Any]) -> Make:
    """The good experiment with something done to the model's folder."""

    def make(folder: Path) -> None:
        write_recipe(folder)
        spoil(folder / "model")

    return make


def without(*names: str) -> Make:
    """A model whose folder lacks these files."""

    def spoil(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return model(spoil)


def with_config(**changes: Any) -> Make:
    """A model with other values in its config.json."""
    return model(lambda folder: edit(folder / "config.json", **changes))


def edit(path: Path, **changes: Any) -> int:
    """Other values in a JSON file; its new size."""
    return path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def with_file(name: str, content: str) -> Make:
    """A model with this text in one of its files."""
    return model(lambda folder: (folder / name).write_text(content))


def file_instead(folder: Path) -> None:
    """A file where the folder was."""
    folder.rename(folder.with_name("moved"))
    folder.touch()


def pickled(folder: Path) -> None:
    """Weights as torch.save writes them."""
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def cut(path: Path) -> None:
    """The first two thirds of a file."""
    path.write_bytes(path.read_bytes()[: 2 * path.stat().st_size // 3])


def without_tensor(folder: Path) -> None:
    """One tensor fewer."""
    tensors = load_file(folder / WEIGHTS)
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def huge_header(folder: Path) -> None:
    """A length of the header that no file has."""
    (folder / WEIGHTS).write_bytes(b"\xff" * 8 + (folder / WEIGHTS).read_bytes()[8:])


def missing_shard(folder: Path) -> None:
    """An index that names a second file."""
    names = list(load_file(folder / WEIGHTS))
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    weight_map = {name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(names)}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def remote_code(folder: Path, place: str = "own.Own") -> None:
    """A model that wants to bring its own code."""
    edit(folder / "config.json", model_type="own", auto_map={"AutoConfig": place, "AutoModelForCausalLM": "own.M"})
    (folder / "own.py").write_text("raise SystemExit('this code must not run')\n")


def code_of_the_hub(folder: Path) -> None:
    """The same from somewhere else, in a recipe that trusts the model's own."""
    write_recipe(folder, {"execution.trust_remote_code": True})
    remote_code(folder / "model", "org/own--own.Own")


def adapter(spoil: Callable[[Path], object]) -> Make:
    """An adapter as the reference model, with something done to its folder."""

    def make(folder: Path) -> None:
        write_recipe(folder, {"reference": {"model": {"path": "adapter"}}, "split": {"reference_rows": 0}})
        made = folder / "adapter"
        made.mkdir()
        (made / "adapter_config.json").write_text(json.dumps(ADAPTER))
        layers = [f"base_model.model.model.layers.{n}.self_attn.q_proj" for n in range(2)]
        shapes = {"lora_A": (2, 16), "lora_B": (16, 2)}
        tensors = {
            f"{layer}.{part}.weight": np.ones(shape, np.float32)
            for layer in layers
            for part, shape in shapes.items()
        }
        save_file(tensors, made / "adapter_model.safetensors", {"format": "pt"})
        spoil(made)

    return make


def adapter_pickled(folder: Path) -> None:
    """An adapter as torch.save writes it."""
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def adapter_of_more_layers(folder: Path) -> None:
    """Tensors of a layer that the base model does not have."""
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors |= {
        name.replace("layers.1.", "layers.7."): value for name, value in tensors.items() if "layers.1." in name
    }
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})


def adapter_of_fewer_layers(folder: Path) -> None:
    """Without the tensors of one layer."""
    tensors = load_file(folder / "adapter_model.safetensors")
    kept = {name: value for name, value in tensors.items() if "layers.1." not in name}
    save_file(kept, folder / "adapter_model.safetensors", {"format": "pt"})


def wider_adapter(folder: Path) -> None:
    """Tensors for a wider model."""
    tensors = load_file(folder / "adapter_model.safetensors")
    wide = {name: np.ones((2, 32) if "lora_A" in name else (32, 2), np.float32) for name in tensors}
    save_file(wide, folder / "adapter_model.safetensors", {"format": "pt"})


REFERENCE = "adapter"
CASES = (
    Case(
        "a file for a model",
        model(file_instead),
        ("model.path", "no such folder"),
    ),
    Case(
        "a model without config", without("config.json"), ("model", "no config.json", "Hugging Face model folder")
    ),
    Case("a config that is no JSON", with_file("config.json", "{"), ("model", "config.json", "JSON")),
    Case("a config that is a list", with_file("config.json", "[]"), ("model", "config.json")),
    Case("an unknown architecture", with_config(model_type="own"), ("model", "`own`", "architecture")),
    Case("no architecture", with_config(model_type=None), ("model", "config.json", "model type `None`")),
    Case(
        "an architecture that is no language model",
        with_config(model_type="vit", architectures=["ViTModel"]),
        ("model", "causal language model", "ViTConfig"),
    ),
    Case("an encoder-decoder", with_config(model_type="t5"), ("model", "causal language model", "T5Config")),
    Case("a model with code of its own", model(remote_code), ("model", "execution.trust_remote_code")),
    Case("a model with code of the hub", code_of_the_hub, ("config.json", "'org/own--own.Own'", "copy it there")),
    Case("a wrong hidden size", with_config(hidden_size=32), ("model", "weights are mismatched", "model.")),
    Case("a negative hidden size", with_config(hidden_size=-8), ("model", "cannot be loaded", "causal")),
    Case("a text for the number of layers", with_config(num_hidden_layers="two"), ("model", "num_hidden_layers")),
    Case(
        "more layers than weights", with_config(num_hidden_layers=3), ("model", "weights are missing", "layers.2.")
    ),
    Case("no weights", without(WEIGHTS), ("model", "no *.safetensors weights", "save_pretrained")),
    Case("pickled weights only", model(pickled), ("no *.safetensors", "pytorch_model.bin", "never loaded")),
    Case(
        "weights cut off", model(lambda folder: cut(folder / WEIGHTS)), ("model", "cannot be loaded", "incomplete")
    ),
    Case("weights of no bytes", with_file(WEIGHTS, ""), ("model", "cannot be loaded", "header")),
    Case("weights with a huge header", model(huge_header), ("model", "cannot be loaded", "header")),
    Case("weights that are a web page", with_file(WEIGHTS, "<!DOCTYPE html>" * 99), ("cannot be loaded", "header")),
    Case("a tensor missing", model(without_tensor), ("1 weights are missing", "up_proj")),
    Case("a shard missing", model(missing_shard), ("model", "model-00002-of-00002.safetensors")),
    Case(
        "no tokenizer", without("tokenizer.json", "tokenizer_config.json"), ("no tokenizer files", "tokenizer.json")
    ),
    Case("a tokenizer that is no JSON", with_file("tokenizer.json", "{"), ("model", "tokenizer cannot be loaded")),
    Case(
        "a tokenizer of another kind", with_file("tokenizer.json", '{"model": 1}'), ("tokenizer cannot be loaded",)
    ),
    Case(
        "a tokenizer config that is no JSON",
        with_file("tokenizer_config.json", "{"),
        ("tokenizer cannot be loaded",),
    ),
    Case(
        "a tokenizer of another model", with_config(vocab_size=50), ("line 1", "token id", "do not belong together")
    ),
    Case(
        "no end-of-text token",
        model(lambda folder: edit(folder / "tokenizer_config.json", eos_token=None)),
        ("EOS token", "set `eos_token`"),
    ),
    Case(
        "an adapter for a model",
        model(lambda folder: (folder / "config.json").rename(folder / "adapter_config.json")),
        ("model", "adapter"),
    ),
    Case(
        "an adapter of another base",
        adapter(lambda folder: (folder / "base_model.json").write_text('{"digest": "0123"}')),
        (REFERENCE, "digest 0123", "name the adapter's own base under `model`"),
    ),
    Case(
        "an adapter whose base cannot be read",
        adapter(lambda folder: (folder / "base_model.json").write_text("[1]")),
        (REFERENCE, "base_model.json", "expected a JSON object"),
    ),
    Case(
        "an adapter without weights",
        adapter(lambda f: (f / "adapter_model.safetensors").unlink()),
        (REFERENCE, "no *.safetensors"),
    ),
    Case("a pickled adapter", adapter(adapter_pickled), (REFERENCE, "adapter_model.bin", "never loaded")),
    Case(
        "an adapter cut off",
        adapter(lambda f: cut(f / "adapter_model.safetensors")),
        (REFERENCE, "cannot be loaded"),
    ),
    Case(
        "an adapter config that is no JSON",
        adapter(lambda f: (f / "adapter_config.json").write_text("{")),
        (REFERENCE, "adapter_config.json", "expected JSON", "save the model again"),
    ),
    Case("an adapter of a wider model", adapter(wider_adapter), (REFERENCE, "cannot be loaded", "size mismatch")),
    Case("an adapter of more layers", adapter(adapter_of_more_layers), (REFERENCE, "layers.7", "do not fit")),
    Case("an adapter of fewer layers", adapter(adapter_of_fewer_layers), (REFERENCE, "layers.1", "do not fit")),
    Case(
        "an adapter of other layers",
        adapter(lambda folder: edit(folder / "adapter_config.json", target_modules=["attn"])),
        (REFERENCE, "cannot be loaded", "attn"),
    ),
)
