"""What a wrong recipe is told, and which fields are part of identity."""

from pathlib import Path
from typing import Any

import pytest

from flows.recipes import FOLDER, recipe_names
from forgetting_core.config import Recipe, identity
from forgetting_core.errors import InputError
from forgetting_core.recipe import load_recipe, parse_recipe

MINIMAL: dict[str, Any] = {"name": "x", "model": {"path": "m"}, "data": {"train": ["a.jsonl"]}}


def recipe(**fields: Any) -> Recipe:
    return parse_recipe({**MINIMAL, **fields})


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"partition": {"roh": 1}}, "partition.roh: unknown key; did you mean `rho`?"),
        ({"partition": {"rho": 1.5}}, "partition.rho: 1.5; expected a number from 0 to 1"),
        ({"partition": {"rho": -0.1}}, "partition.rho: -0.1; expected a number from 0 to 1"),
        ({"partition": {"rho": "much"}}, "partition.rho: 'much'; expected a number from 0 to 1"),
        ({"partition": {"rho": True}}, "partition.rho: True; expected a number from 0 to 1"),
        ({"partition": {"rho": "nan"}}, "partition.rho: 'nan'; expected a number from 0 to 1"),
        (
            {"partition": {"rho": 0.5, "threshold": 0}},
            "partition: has both rho 0.5 and threshold 0; give exactly one",
        ),
        (
            {"partition": {"rho": None}},
            "partition: has neither; give exactly one of rho (a share) and threshold (nats)",
        ),
        ({"partition": {"threshold": "high"}}, "partition.threshold: 'high'; expected a number of nats"),
        ({"partition": {"threshold": "inf"}}, "partition.threshold: 'inf'; expected a number of nats"),
        ({"partition": {"labelling": "loss"}}, "partition.labelling: 'loss'; expected 'influence', 'random',"),
        (
            {"forget": {"objective": "sft"}, "baselines": ["random"]},
            "`random` needs an objective that reads labels",
        ),
        ({"forget": {"lambda": {"tmax": 1}}}, "forget.lambda.tmax: unknown key; did you mean `t_max`?"),
        ({"forget": {"objective": "forgot"}}, "forget.objective: 'forgot'; expected forget, ignore or sft"),
        ({"forget": {"learning_rate": "fast"}}, "forget.learning_rate: 'fast'; expected a valid number"),
        ({"forget": {"learning_rate": float("nan")}}, "forget.learning_rate"),
        ({"forget": {"objective": "sft", "lambda": {}}}, "forget.lambda: unknown key"),
        ({"modle": {}}, "modle: unknown key; did you mean `model`?"),
        ({"baselines": ["sfd"]}, "baselines.0: 'sfd'; expected 'base', 'sft', 'ignore', 'reference', 'npo' or"),
        ({"baselines": ["sft", "sft"]}, "baselines: sft, sft; name each one once"),
        ({"split": {"reference_rows": 0}}, "split.reference_rows: 0 leaves nothing to train a reference on"),
        ({"model": None}, "`model` is missing"),
        ({"data": {}}, "`data.train` is missing"),
        ({"synthetic": {}}, "`synthetic` stands in for model"),
        ({"forget": {"normalization": "microbatch"}}, "needs execution.micro_batch to be a divisor"),
    ],
)
def test_a_wrong_field_is_named_with_what_is_allowed(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        recipe(**fields)
    assert message in str(caught.value)


def test_every_fault_is_listed_at_once() -> None:
    with pytest.raises(InputError) as caught:
        recipe(partition={"rho": 2}, split={"seed": "x"})
    assert "partition.rho" in str(caught.value) and "split.seed" in str(caught.value)


def test_equal_rho_has_one_spelling() -> None:
    spellings = [0.7, "0.7", "0.70", "7e-1", " .7 "]
    assert {recipe(partition={"rho": rho}).partition.rho for rho in spellings} == {"0.7"}


def test_equal_thresholds_have_one_spelling_and_leave_out_rho() -> None:
    for spellings in ([0, 0.0, "0", "0.00", "-0", -0.0], [-0.25, "-0.250", " -25e-2 "]):
        found = {recipe(partition={"threshold": threshold}).partition for threshold in spellings}
        assert len({config.threshold for config in found}) == 1
        assert {config.rho for config in found} == {None}
    assert identity(recipe(partition={"threshold": 0})) == identity(
        recipe(partition={"threshold": 0.0, "rho": None})
    )


def test_a_recipe_with_rho_is_turned_to_a_threshold_on_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("name: x\nmodel: {path: m}\ndata: {train: [a]}\npartition: {rho: 0.7}\n")
    with pytest.raises(InputError, match=r"both rho 0.7 and threshold 0; .* null the other"):
        load_recipe(path, ["partition.threshold=0"])
    found = load_recipe(path, ["partition.threshold=0", "partition.rho=null"]).partition
    assert (found.rho, found.threshold, found.rule) == (None, "0", "threshold=0")


def test_exponents_without_a_dot_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("name: x\nmodel: {path: m}\ndata: {train: [a]}\nforget: {learning_rate: 1e-4}\n")
    assert load_recipe(path).forget.learning_rate == 1e-4


def test_overrides_reach_nested_fields_and_name_themselves_when_wrong(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("name: x\nmodel: {path: m}\ndata: {train: [a]}\n")
    found = load_recipe(path, ["forget.lambda.t_max=1e-2", "baselines=[sft]", "split.train_rows=null"])
    assert found.forget.lambda_.t_max == 0.01  # type: ignore[union-attr]
    assert found.baselines == ["sft"]
    with pytest.raises(InputError, match="expected FIELD=VALUE"):
        load_recipe(path, ["partition.rho"])
    with pytest.raises(InputError, match="has no field"):
        load_recipe(path, ["name.first=x"])


@pytest.mark.parametrize("text", ["- a\n", "name: [\n", ""])
def test_a_recipe_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"r\.yaml"):
        load_recipe(path)


def test_paths_and_execution_are_not_identity() -> None:
    first = recipe(execution={"device": "cpu", "micro_batch": 3})
    second = recipe(model={"path": "elsewhere"}, data={"train": ["b.jsonl"]}, execution={"device": "cuda"})
    assert identity(first) == identity(second)
    assert identity(recipe(partition={"rho": 0.5})) != identity(first)


def test_identity_uses_the_names_of_the_recipe() -> None:
    assert "lambda" in identity(recipe())["forget"]


@pytest.mark.parametrize("name", recipe_names())
def test_built_in_recipes_are_valid(name: str) -> None:
    assert load_recipe(FOLDER / f"{name}.yaml").evaluate.dtype in ("float32", "bfloat16")


def test_a_change_of_one_section_does_not_reach_another_through_an_anchor(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "name: x\nmodel: {path: m}\ndata: {train: [a]}\n"
        "reference: &training {lora: {r: 4}}\nforget: {<<: *training, objective: forget}\n"
    )
    found = load_recipe(path, ["forget.lora.r=8"])
    assert (found.reference.lora.r, found.forget.lora.r) == (4, 8)


def test_a_default_written_out_is_the_same_identity() -> None:
    assert identity(recipe(forget={"lora": {"alpha": 16}})) == identity(recipe())


ADDRESS = "s3://AK:hunter2/x@bucket/rows.jsonl"


@pytest.mark.parametrize("address", [ADDRESS, "https://u@h/hunter2", "https://h/rows.jsonl?signature=hunter2"])
def test_an_address_with_credentials_is_refused_without_repeating_it(address: str, tmp_path: Path) -> None:
    recipe = tmp_path / "own.yaml"
    recipe.write_text(f"name: own\ndata: {{train: ['{address}'], template: plain}}\n")
    with pytest.raises(InputError, match="data: train: an address with") as in_file:
        load_recipe(recipe)
    recipe.write_text("name: own\ndata: {template: plain}\n")
    with pytest.raises(InputError, match=r"--set data\.train: an address with") as in_override:
        load_recipe(recipe, [f"data.train=['{address}']"])
    assert "hunter2" not in f"{in_file.value}{in_override.value}"


def test_an_at_sign_in_a_path_is_no_credential(tmp_path: Path) -> None:
    recipe = tmp_path / "own.yaml"
    recipe.write_text(
        "name: own\nmodel: {path: 's3://bucket/model@rev'}\ndata: {train: [a@b.jsonl], template: plain}\n"
    )
    assert load_recipe(recipe).model is not None
