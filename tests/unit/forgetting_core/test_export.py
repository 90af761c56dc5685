"""An exported model is a plain Hugging Face folder that computes what the fine-tuned one computes."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from forgetting_core.config import LoraConfig
from forgetting_core.errors import InputError
from forgetting_core.export import Ancestor, Lineage, export_full, export_merged, weights_dtype
from forgetting_core.models import add_adapter, load_base, save_checkpoint
from tests.tiny import save_model

LINEAGE = Lineage(
    name="tiny",
    base="hf://some/model@abc",
    base_digest="b" * 64,
    training={"forget.objective": "forget", "forget.lambda.t_max": 0.25},
    partition={"partition.rho": "0.7"},
    data=[("split: train", "rows|1.jsonl", "d" * 64)],
    chain=[Ancestor("forget", "f" * 64, "e" * 64, "s3://bucket/v1/data/forget/x")],
)


def make_adapter(base: Path, folder: Path, dtype: str) -> Path:
    """An adapter far from zero, saved as training does."""
    torch.manual_seed(1)
    model = add_adapter(load_base(base, dtype=dtype, device="cpu"), LoraConfig(r=4))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.3)
    folder.mkdir()
    save_checkpoint(model, folder, base=base, base_digest="b" * 64, dtype=dtype)
    return folder


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt_neo"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_merged_model_has_the_weights_that_peft_merges(architecture: str, dtype: str, tmp_path: Path) -> None:
    base = save_model(tmp_path / "base", architecture, dtype=getattr(torch, dtype))
    adapter = make_adapter(base, tmp_path / "adapter", dtype)
    out = tmp_path / "out"
    out.mkdir()
    export_merged(adapter, base, "b" * 64, out, LINEAGE)

    expected = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype)), adapter
    ).merge_and_unload()
    found = AutoModelForCausalLM.from_pretrained(out)
    weights = found.state_dict()
    assert {value.dtype for value in weights.values()} == {getattr(torch, dtype)} == {found.dtype}
    assert weights.keys() == expected.state_dict().keys()
    for name, value in expected.state_dict().items():
        assert torch.equal(weights[name], value), name
    before = load_base(base, dtype=dtype, device="cpu").state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in weights.items())


def test_an_exported_model_generates_with_its_own_tokenizer(tmp_path: Path) -> None:
    base = save_model(tmp_path / "base")
    out = tmp_path / "out"
    out.mkdir()
    export_merged(make_adapter(base, tmp_path / "adapter", "float32"), base, "b" * 64, out, LINEAGE)
    tokenizer = AutoTokenizer.from_pretrained(out)
    generated = AutoModelForCausalLM.from_pretrained(out).generate(
        **tokenizer("abc", return_tensors="pt"), max_new_tokens=2, do_sample=False
    )
    assert generated.shape[1] == 5
    assert not list(out.glob("*adapter*"))
    assert all(path.stat().st_mode & 0o044 for path in out.iterdir())


def test_an_adapter_is_not_merged_into_another_base(tmp_path: Path) -> None:
    base = save_model(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", "float32")
    with pytest.raises(InputError, match=f"{'c' * 64}, but the adapter was trained on {'b' * 64}"):
        export_merged(adapter, base, "c" * 64, tmp_path, LINEAGE)


def test_a_full_checkpoint_is_copied_byte_for_byte_without_what_is_no_model(tmp_path: Path) -> None:
    checkpoint, out = save_model(tmp_path / "checkpoint", dtype=torch.bfloat16), tmp_path / "out"
    (checkpoint / "aux").mkdir()
    (checkpoint / "base_model.json").write_text("{}")
    out.mkdir()
    export_full(checkpoint, out, LINEAGE)
    names = {path.name for path in checkpoint.iterdir()} - {"aux", "base_model.json"}
    assert {path.name for path in out.iterdir()} == names | {"README.md"}
    assert all((out / name).read_bytes() == (checkpoint / name).read_bytes() for name in names)
    assert weights_dtype(out) == "bfloat16"


def test_the_card_states_the_lineage(tmp_path: Path) -> None:
    export_full(save_model(tmp_path / "checkpoint"), tmp_path, LINEAGE)
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    for told in (
        "base_model: some/model\n",
        "| base model | hf://some/model@abc | " + "b" * 64,
        "| split: train | rows\\|1.jsonl | " + "d" * 64,
        "| forget | " + "f" * 64 + " | " + "e" * 64 + " | s3://bucket/v1/data/forget/x |",
        "| partition.rho | 0.7 |",
        "| forget.lambda.t_max | 0.25 |",
    ):
        assert told in card
