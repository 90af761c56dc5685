"""Loading refuses what would be silently wrong; token losses equal the library's on every architecture."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import Gemma3TextConfig

from forgetting_core.errors import InputError, NumericalError
from forgetting_core.model_files import model_files
from forgetting_core.models import check_adapter, load_base, load_checkpoint, load_tokenizer, save_checkpoint
from forgetting_core.progress import Progress
from forgetting_core.scoring import token_losses
from forgetting_core.token_loss import TokenLossModel
from tests.tiny import CONFIGS, SHAPE, save_model, token_rows


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("micro_batch", [1, 3, "auto"])
def test_token_losses_equal_the_plain_ones(architecture: str, micro_batch: int | str, tmp_path: Path) -> None:
    model = load_base(save_model(tmp_path, architecture), dtype="float64", device="cpu")
    rows = token_rows(12)
    found = token_losses(TokenLossModel(model), rows, block_rows=5, micro_batch=micro_batch, progress=Progress())
    response = rows.response_mask()
    assert np.array_equal(~np.isnan(found), response)
    for span in rows.rows():
        input_ids = torch.from_numpy(rows.input_ids[span].astype(np.int64))
        logits = model(input_ids=input_ids.unsqueeze(0)).logits[0].detach()
        plain = F.cross_entropy(logits[:-1].double(), input_ids[1:], reduction="none").numpy()
        chosen = response[span][1:]
        assert np.abs(found[span][1:][chosen] - plain[chosen]).max(initial=0) < 1e-6


def test_losses_keep_float32_resolution_in_bfloat16(tmp_path: Path) -> None:
    model = TokenLossModel(load_base(save_model(tmp_path), dtype="bfloat16", device="cpu"))
    found = token_losses(model, token_rows(40), block_rows=64, micro_batch="auto", progress=Progress())
    values = found[~np.isnan(found)]
    assert len(np.unique(values)) > 0.9 * len(values)


def test_a_loss_that_is_not_finite_names_its_row(tmp_path: Path) -> None:
    folder = save_model(tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"][:] = float("inf")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model = load_base(folder, dtype="float32", device="cpu")
    with pytest.raises((NumericalError, InputError), match=r"row \d+|logits"):
        token_losses(TokenLossModel(model), token_rows(4), block_rows=4, micro_batch=1, progress=Progress())


def test_weights_missing_from_the_file_are_an_error(tmp_path: Path) -> None:
    folder = save_model(tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="missing"):
        load_base(folder, dtype="float32", device="cpu")


def test_pickled_weights_are_never_loaded(tmp_path: Path) -> None:
    folder = save_model(tmp_path)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"pytorch_model\.bin, which are never loaded"):
        load_base(folder, dtype="float32", device="cpu")


def test_a_model_that_changes_its_logits_after_the_head_is_refused(tmp_path: Path) -> None:
    from transformers import CohereConfig, CohereForCausalLM

    CohereForCausalLM(
        CohereConfig(
            vocab_size=97,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            pad_token_id=0,
        )
    ).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="CohereForCausalLM"):
        TokenLossModel(load_base(tmp_path, dtype="float32", device="cpu"))


@pytest.mark.parametrize("missing, message", [("config.json", "no config.json"), ("tokenizer.json", "tokenizer")])
def test_an_incomplete_folder_says_what_is_missing(tmp_path: Path, missing: str, message: str) -> None:
    folder = save_model(tmp_path)
    for path in folder.glob(f"{missing.split('.')[0]}*"):
        path.unlink()
    with pytest.raises(InputError, match=message):
        load_tokenizer(folder)
        model_files(folder)
    with pytest.raises(InputError, match=message):
        model_files(folder)
        load_tokenizer(folder)


def test_only_top_level_model_files_are_identity(tmp_path: Path) -> None:
    folder = save_model(tmp_path)
    before = model_files(folder)
    (folder / "original").mkdir()
    (folder / "original" / "model.safetensors").write_bytes(b"x")
    (folder / "README.md").write_text("x")
    assert model_files(folder) == before


def test_an_adapter_loads_on_its_base_in_the_base_dtype(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = save_model(tmp_path / "base")
    model = load_base(base, dtype="float32", device="cpu")
    get_peft_model(model, LoraConfig(target_modules="all-linear", r=2)).save_pretrained(tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert config["r"] == 2
    loaded = load_checkpoint(base, tmp_path / "adapter", dtype="bfloat16", device="cpu")
    assert {value.dtype for value in loaded.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("architecture", CONFIGS)
def test_a_saved_model_computes_what_it_computed_before(architecture: str, tmp_path: Path) -> None:
    base = save_model(tmp_path / "base", architecture)
    model = load_base(base, dtype="float32", device="cpu")
    save_checkpoint(model, tmp_path / "saved", base=base, base_digest="0" * 64, dtype="float32")
    saved = load_base(tmp_path / "saved", dtype="float32", device="cpu")
    input_ids = torch.arange(40).unsqueeze(0)
    assert torch.equal(model(input_ids=input_ids).logits, saved(input_ids=input_ids).logits)


def test_the_order_of_layer_types_survives_saving(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    kinds = ["sliding_attention", "full_attention"] * 2
    config = Gemma3TextConfig(**{**SHAPE, "num_hidden_layers": 4}, head_dim=8, layer_types=kinds)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    model = load_base(tmp_path / "base", dtype="float32", device="cpu")
    save_checkpoint(model, tmp_path / "saved", base=tmp_path / "base", base_digest="0" * 64, dtype="float32")
    assert json.loads((tmp_path / "saved/config.json").read_text())["layer_types"] == kinds


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    (tmp_path / "base_model.json").write_text(json.dumps({"digest": "a" * 64}))
    check_adapter(tmp_path, "a" * 64)
    check_adapter(None, "b" * 64)
    with pytest.raises(InputError, match="trained on a base model with digest aaaa"):
        check_adapter(tmp_path, "b" * 64)


def test_a_rank_that_is_sent_its_weights_reads_none_and_knows_the_same_shapes(tmp_path: Path) -> None:
    save_model(tmp_path)
    read = load_base(tmp_path, dtype="float64", device="cpu").state_dict()
    known = load_base(tmp_path, dtype="float64", device="meta").state_dict()
    assert {value.device.type for value in known.values()} == {"meta"}
    assert {name: (value.shape, value.dtype) for name, value in known.items()} == {
        name: (value.shape, value.dtype) for name, value in read.items()
    }
