"""A model folder from the internet: no pickle and no code of it runs, and nothing outside of it is loaded."""

import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from forgetting_core.checkpoints import resume_state
from forgetting_core.config import LoraConfig
from forgetting_core.errors import InputError
from forgetting_core.model_files import model_files
from forgetting_core.models import add_adapter, load_base, load_checkpoint, load_tokenizer, save_checkpoint
from tests.planted import PICKLED, Planted
from tests.tiny import save_model

pytestmark = pytest.mark.security("pickles, code and weights from elsewhere in models")
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model")


@pytest.fixture
def adapter(model: Path, tmp_path: Path) -> Path:
    adapted = add_adapter(load_base(model, dtype="float32", device="cpu"), LoraConfig())
    save_checkpoint(adapted, tmp_path / "adapter", base=model, base_digest="d" * 64, dtype="float32")
    return tmp_path / "adapter"


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    return Planted(tmp_path)


def configure(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def load(folder: Path) -> object:
    return load_base(folder, dtype="float32", device="cpu")


def test_the_planted_pickle_would_leave_its_trace(planted: Planted) -> None:
    pickle.loads(planted.pickle)
    assert planted.sprung


def test_pickles_beside_the_weights_are_left_alone(model: Path, adapter: Path, planted: Planted) -> None:
    for folder in (model, adapter):
        for name in PICKLED:
            (folder / name).write_bytes(planted.pickle)
    load_tokenizer(model)
    load_checkpoint(model, adapter, dtype="float32", device="cpu")
    assert not planted.sprung


@pytest.mark.parametrize("place", ["pytorch_model.bin", WEIGHTS, "the index"])
def test_a_pickle_in_the_place_of_the_weights_is_refused(place: str, model: Path, planted: Planted) -> None:
    (model / WEIGHTS).rename(model / "other.safetensors")
    (model / ("pytorch_model.bin" if place == "the index" else place)).write_bytes(planted.pickle)
    if place == "the index":
        (model / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": {"lm_head": "pytorch_model.bin"}}))
    with pytest.raises(InputError, match="model"):
        load(model)
    assert not planted.sprung


@pytest.mark.parametrize("tensors_only", [True, False])
def test_a_pickled_adapter_is_refused_even_when_it_holds_tensors_only(
    tensors_only: bool, model: Path, adapter: Path, planted: Planted
) -> None:
    weights = load_file(adapter / ADAPTER)
    (adapter / ADAPTER).rename(adapter / "other.safetensors")
    if tensors_only:
        torch.save(weights, adapter / "adapter_model.bin")
    else:
        (adapter / "adapter_model.bin").write_bytes(planted.pickle)
    with pytest.raises(InputError, match="never loaded as an adapter"):
        load_checkpoint(model, adapter, dtype="float32", device="cpu")
    assert not planted.sprung


@pytest.mark.parametrize(
    "name", ["../other/model.safetensors", "/other/model.safetensors", "sub\\..\\w.safetensors"]
)
def test_an_index_cannot_name_weights_outside_of_its_folder(name: str, model: Path, tmp_path: Path) -> None:
    other = save_model(tmp_path / "other")
    (model / WEIGHTS).unlink()
    (model / INDEX).write_text(
        json.dumps({"metadata": {}, "weight_map": dict.fromkeys(load_file(other / WEIGHTS), name)})
    )
    for use in (model_files, load):
        with pytest.raises(InputError, match="names the weights"):
            use(model)


@pytest.mark.parametrize("name", ["sub/model.safetensors.index.json", "sub/model.safetensors", "adapter_model.bin"])
def test_a_config_cannot_name_weights_that_nobody_has_looked_at(
    name: str, model: Path, planted: Planted, tmp_path: Path
) -> None:
    """As in CVE-2026-75104: an index in a subfolder leads out of the model's folder."""
    other = save_model(tmp_path / "other")
    named = model / name
    named.parent.mkdir(exist_ok=True)
    if named.suffix == ".json":
        outside = dict.fromkeys(load_file(other / WEIGHTS), "../../other/model.safetensors")
        named.write_text(json.dumps({"metadata": {}, "weight_map": outside}))
    elif named.suffix == ".bin":
        named.write_bytes(planted.pickle)
    else:
        shutil.copy(other / WEIGHTS, named)
    configure(model / "config.json", transformers_weights=name)
    for use in (model_files, load):
        with pytest.raises(InputError, match="names the weights"):
            use(model)
    assert not planted.sprung


@pytest.mark.parametrize(
    "field",
    [
        {"text_config": {"transformers_weights": "sub/other.safetensors"}},
        {"attribute_map": {"transformers_weights": "other"}, "other": "sub/other.safetensors"},
        {"configuration_files": ["config.4.0.0.json"]},
    ],
)
def test_a_config_cannot_name_weights_in_a_roundabout_way(field: dict[str, object], model: Path) -> None:
    configure(model / "config.json", **field)
    with pytest.raises(InputError, match=r"config\.json: `.*; .*remove `"):
        load(model)


def test_a_config_may_name_the_weights_beside_it(model: Path) -> None:
    (model / WEIGHTS).rename(model / "other.safetensors")
    configure(model / "config.json", transformers_weights="other.safetensors")
    assert model / "other.safetensors" in model_files(model)
    load(model)


@pytest.mark.parametrize("whole", [True, False])
def test_an_adapter_given_as_the_model_does_not_bring_a_base_of_its_choice(
    whole: bool, model: Path, adapter: Path, tmp_path: Path
) -> None:
    configure(adapter / "adapter_config.json", base_model_name_or_path=str(model))
    folder = adapter
    if whole:
        folder = save_model(tmp_path / "both")
        for name in ("adapter_config.json", ADAPTER):
            shutil.copy(adapter / name, folder)
    with pytest.raises(InputError, match="expected a model without adapter"):
        load(folder)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_code_that_a_model_brings_along_is_not_run(device: str, model: Path, planted: Planted) -> None:
    code = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    configure(model / "config.json", model_type="own", auto_map=code)
    (model / "own.py").write_text(f"import pickle\npickle.loads({planted.pickle!r})\n")
    with pytest.raises(InputError, match=r"set execution\.trust_remote_code to true if they may run"):
        load_base(model, dtype="float32", device=device)
    assert not planted.sprung


def test_code_that_a_tokenizer_brings_along_is_not_run(model: Path, planted: Planted) -> None:
    configure(model / "tokenizer_config.json", tokenizer_class="T", auto_map={"AutoTokenizer": ["own.T", None]})
    (model / "own.py").write_text(f"import pickle\npickle.loads({planted.pickle!r})\n")
    with pytest.raises(InputError, match="code that it brings along, which is never run for a tokenizer"):
        load_tokenizer(model)
    assert not planted.sprung


@pytest.mark.parametrize(
    "field", [{"attn_implementation": "o/kernel"}, {"text_config": {"_attn_implementation": "o/kernel@main"}}]
)
def test_a_config_cannot_name_a_kernel_of_the_hub(field: dict[str, object], model: Path) -> None:
    configure(model / "config.json", **field)
    with pytest.raises(InputError, match="names code on the hub"):
        load(model)


def test_an_adapter_cannot_have_a_module_imported(
    model: Path, adapter: Path, planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "megatron_planted.py").write_text(f"import pickle\npickle.loads({planted.pickle!r})\n")
    configure(
        adapter / "adapter_config.json",
        megatron_config={"x": 1},
        megatron_core="megatron_planted",
        auto_mapping={"base_model_class": "X", "parent_library": "megatron_planted"},
    )
    with pytest.raises(InputError, match="adapter"):
        load_checkpoint(model, adapter, dtype="float32", device="cpu")
    assert "megatron_planted" not in sys.modules
    assert not planted.sprung


def as_weights(checkpoint: Path, planted: Planted) -> None:
    (checkpoint / "weights.safetensors").write_bytes(planted.pickle)


def as_optimizer(checkpoint: Path, planted: Planted) -> None:
    (checkpoint / "optimizer.safetensors").write_bytes(planted.pickle)


@pytest.mark.parametrize("plant", [as_weights, as_optimizer])
def test_a_pickle_in_a_training_checkpoint_is_not_read(
    plant: Callable[[Path, Planted], None], model: Path, planted: Planted, tmp_path: Path
) -> None:
    from forgetting_core.checkpoints import save_state

    trained = load_base(model, dtype="float32", device="cpu")
    optimizer = torch.optim.AdamW(trained.parameters())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    metrics = tmp_path / "metrics.parquet"
    metrics.write_bytes(b"")
    checkpoint = save_state(tmp_path / "saved", 1, trained, optimizer, schedule, metrics, None)
    assert checkpoint is not None
    assert {path.suffix for path in checkpoint.iterdir()} <= {".safetensors", ".json", ".parquet"}
    for name in PICKLED:
        (checkpoint / name).write_bytes(planted.pickle)
    assert resume_state(tmp_path / "saved", trained, optimizer, schedule, None) == 1
    plant(checkpoint, planted)
    with pytest.raises(Exception, match=r"(?i)header|deserial"):
        resume_state(tmp_path / "saved", trained, optimizer, schedule, None)
    assert not planted.sprung
