"""`forgetting artifacts export`: the model of a commit as anyone else expects it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from forgetting_core.config import LoraConfig
from forgetting_core.model_files import model_files
from forgetting_core.models import add_adapter, load_base, save_checkpoint
from infra.commits import Commit, Input
from infra.digests import content_digest, file_sha256
from infra.store import Store
from tests.stores import make_step, write_files
from tests.tiny import save_model
from tests.unit.flows.artifact_commands import Command


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_model(tmp_path / "base")


def model_digest(folder: Path) -> str:
    return content_digest({path.name: file_sha256(path) for path in model_files(folder)})


def fine_tune(
    store: Store, base: Path, out: Path, data: Commit, base_uri: str | None = None, *, code: bool = False
) -> Commit:
    """A LoRA fine-tune as `forget` would commit it."""
    torch.manual_seed(1)
    model = add_adapter(load_base(base, dtype="float32", device="cpu"), LoraConfig(r=4))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    out.mkdir()
    digest = model_digest(base)
    save_checkpoint(model, out, base=base, base_digest=digest, dtype="float32")
    labels = make_step(
        store,
        write_files(out.parent / "labels", {"token_labels.parquet": b"labels"}),
        "partition",
        config={"partition": {"rho": "0.3", "scope": "corpus"}},
    )
    source = Input(digest=digest, uri=base_uri or str(base))
    config: dict[str, Any] = {"forget": {"objective": "forget", "lambda": {"t_max": 0.25}}}
    if code:
        config["execution"] = {"trust_remote_code": True}
    return make_step(store, out, "forget", {"base": source, "data": data, "token_labels": labels}, config=config)


def test_export_merges_an_adapter_and_states_its_lineage(
    artifacts: Command, store: Store, chain: tuple[Commit, Commit], base: Path, tmp_path: Path
) -> None:
    model = fine_tune(store, base, tmp_path / "adapter", chain[0])
    out = tmp_path / "model"
    done = artifacts("export", "--merge", model.fingerprint, out, "--json")
    assert done.status == 0, done.errors
    assert done.document["base"]["digest"] == model_digest(base)
    merged, plain = load_file(out / "model.safetensors"), load_file(base / "model.safetensors")
    assert merged.keys() == plain.keys()
    assert not torch.equal(merged["model.layers.0.mlp.up_proj.weight"], plain["model.layers.0.mlp.up_proj.weight"])
    card = (out / "README.md").read_text()
    for told in (
        model.fingerprint,
        chain[0].fingerprint,
        model_digest(base),
        str(base),
        "| partition.rho | 0.3 |",
        "0.25",
    ):
        assert told in card
    assert artifacts("export", "--merge", model.fingerprint, out).status == 2, "the folder is in use"
    assert artifacts("export", model.fingerprint, tmp_path / "plain").status == 2, "an adapter is no plain model"
    assert artifacts("export", chain[0].fingerprint, tmp_path / "plain").status == 2, "a split is no model"
    assert not (tmp_path / "plain").exists()


def test_export_finds_a_base_that_is_an_artifact(
    artifacts: Command, store: Store, chain: tuple[Commit, Commit], tmp_path: Path
) -> None:
    save_model(tmp_path / "prepared/base")
    prepared = make_step(store, tmp_path / "prepared", "prepare")
    assert prepared.outputs["base"].digest == model_digest(tmp_path / "prepared/base")
    uri = prepared.output_uri("base")
    model = fine_tune(store, tmp_path / "prepared/base", tmp_path / "adapter", chain[0], uri)
    (tmp_path / "prepared").rename(tmp_path / "gone")
    assert artifacts("export", "--merge", model.fingerprint, tmp_path / "model").status == 0
    assert prepared.fingerprint in (tmp_path / "model/README.md").read_text()


def test_a_base_that_is_gone_or_another_one_is_named_and_can_be_given(
    artifacts: Command, store: Store, chain: tuple[Commit, Commit], base: Path, tmp_path: Path
) -> None:
    model = fine_tune(store, base, tmp_path / "adapter", chain[0])
    base.rename(tmp_path / "moved")
    gone = artifacts("export", "--merge", model.fingerprint, tmp_path / "model")
    assert gone.status == 2
    assert str(base) in gone.errors
    assert "--base DIR" in gone.errors
    other = save_model(tmp_path / "other", "qwen2")
    wrong = artifacts("export", "--merge", "--base", other, model.fingerprint, tmp_path / "model")
    assert wrong.status == 2
    assert model_digest(other) in wrong.errors
    assert not (tmp_path / "model").exists()
    given = artifacts("export", "--merge", "--base", tmp_path / "moved", model.fingerprint, tmp_path / "model")
    assert given.status == 0, given.errors


def test_the_code_of_a_base_runs_only_when_whoever_merges_says_so(
    artifacts: Command, store: Store, chain: tuple[Commit, Commit], base: Path, tmp_path: Path
) -> None:
    model = fine_tune(store, base, tmp_path / "adapter", chain[0], code=True)
    refused = artifacts("export", "--merge", model.fingerprint, tmp_path / "model")
    assert refused.status == 2 and "--trust-remote-code" in refused.errors
    assert not (tmp_path / "model").exists()
    done = artifacts("export", "--merge", "--trust-remote-code", model.fingerprint, tmp_path / "model")
    assert done.status == 0, done.errors
    assert "| execution.trust_remote_code | True |" in (tmp_path / "model/README.md").read_text()
