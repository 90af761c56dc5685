"""Models that compute by code of their own: it runs where the recipe says so, and is part of what the model is."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from transformers import dynamic_module_utils

from forgetting_core.config import DataConfig, ExecutionConfig, ForgetConfig
from forgetting_core.data.tokenising import RowTokeniser
from forgetting_core.errors import InputError
from forgetting_core.model_files import model_files
from forgetting_core.models import load_base, load_checkpoint, load_tokenizer, save_checkpoint
from forgetting_core.progress import Progress
from forgetting_core.training import TrainingRun
from forgetting_core.training_data import TrainingData
from tests.tiny import save_model, token_rows
from tests.unit.forgetting_core.test_hostile_models import configure

pytestmark = pytest.mark.security("pickles, code and weights from elsewhere in models")
MODULE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
from .marks import MARK

Path(MARK).touch()

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""
AUTO_MAP = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}


@pytest.fixture(scope="module", autouse=True)
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where transformers copies code to before it imports it."""
    folder = str(tmp_path_factory.mktemp("modules"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", folder)
        patch.syspath_prepend(folder)
        yield


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """What the code leaves behind when it runs."""
    return tmp_path / "it-ran"


@pytest.fixture
def model(mark: Path, tmp_path: Path) -> Path:
    return with_own_code(save_model(tmp_path / "model"), mark)


def with_own_code(folder: Path, mark: Path, **auto_map: str) -> Path:
    config = folder / "config.json"
    configure(config, model_type="own", architectures=["OwnForCausalLM"], auto_map=AUTO_MAP | auto_map)
    (folder / "own.py").write_text(MODULE)
    (folder / "marks.py").write_text(f"MARK = {str(mark)!r}\n")
    return folder


def test_it_does_not_run_unless_it_is_trusted(model: Path, mark: Path) -> None:
    for device in ("cpu", "meta"):
        with pytest.raises(InputError, match=r"read its \*\.py files, and set execution\.trust_remote_code"):
            load_base(model, dtype="float32", device=device)
    with pytest.raises(InputError, match=r"execution\.trust_remote_code"):
        RowTokeniser(DataConfig(), model)
    load_tokenizer(model)
    assert not mark.exists()


def test_it_runs_where_it_is_trusted(model: Path, mark: Path) -> None:
    for device in ("cpu", "meta"):
        loaded = load_checkpoint(model, None, dtype="float32", device=device, trust_remote_code=True)
        assert type(loaded).__name__ == "OwnForCausalLM"
    RowTokeniser(DataConfig(), model, trust_remote_code=True)
    assert mark.exists()


def test_it_is_part_of_the_model_only_where_it_is_trusted(model: Path) -> None:
    names = {path.name for path in model_files(model)}
    assert names & {"own.py", "marks.py"} == set()
    assert {path.name for path in model_files(model, code=True)} == {*names, "own.py", "marks.py"}


@pytest.mark.parametrize("place", ["org/model--own.Own", "../own.Own", "gone.Own", "own"])
def test_code_from_elsewhere_never_runs(place: str, model: Path, mark: Path) -> None:
    with_own_code(model, mark, AutoModelForCausalLM=place)
    for device in ("cpu", "meta"):
        with pytest.raises(InputError, match=r"expected MODULE\.CLASS of a"):
            load_base(model, dtype="float32", device=device, trust_remote_code=True)
    assert not mark.exists()


def test_a_model_that_transformers_knows_needs_no_code_of_its_own(tmp_path: Path, mark: Path) -> None:
    model = with_own_code(save_model(tmp_path / "model"), mark)
    configure(model / "config.json", model_type="llama")
    load_base(model, dtype="float32", device="cpu")
    assert not mark.exists()


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_a_fine_tuned_model_can_be_loaded_again(mode: str, model: Path, tmp_path: Path) -> None:
    rows = token_rows(24)
    config = ForgetConfig(mode=mode, dtype="float32", rows_per_step=8)
    execution = ExecutionConfig(device="cpu", trust_remote_code=True)
    data = TrainingData(rows, rows.response_mask().astype(np.int8))
    run = TrainingRun(config, data, model, tmp_path / "work", execution, Progress())
    run.train()
    trained = run.whole_model(model)
    assert trained is not None
    out = tmp_path / "out"
    save_checkpoint(trained.model, out, base=model, base_digest="d" * 64, dtype="float32")
    again = load_checkpoint(model, out, dtype="float32", device="cpu", trust_remote_code=True)
    for name, value in trained.model.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], value, name)
    if mode == "full":
        assert {"own.py", "marks.py"} <= {path.name for path in model_files(out, code=True)}
        with pytest.raises(InputError, match=r"execution\.trust_remote_code"):
            load_base(out, dtype="float32", device="cpu")
