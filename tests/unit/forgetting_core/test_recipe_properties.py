"""Whatever a recipe says, it is a recipe or a message; one that is written down is the same experiment."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.recipes import find_recipe, recipe_names
from forgetting_core.config import Recipe, identity
from forgetting_core.errors import InputError
from forgetting_core.recipe import load_recipe, parse_recipe
from infra.fingerprint import canonical_json
from infra.plan import flatten

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["0.7", "1e-4"])
)
PLAIN = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NANO = yaml.safe_load(find_recipe("nano").read_text(encoding="utf-8"))
FIELDS = sorted(flatten(parse_recipe(NANO).model_dump(by_alias=True)))


def spoiled(field: str, value: Any) -> dict[str, Any]:
    """The recipe `nano` with another value in one field."""
    recipe: dict[str, Any] = parse_recipe(NANO).model_dump(by_alias=True)
    *parents, last = field.split(".")
    section: Any = recipe
    for parent in parents:
        section = section[parent]
    section[last] = value
    return recipe


def accepted(recipe: Any) -> Recipe | None:
    try:
        return parse_recipe(recipe)
    except InputError as error:
        assert str(error).isascii() or str(error).encode("utf-8", "backslashreplace")
        return None


@given(st.dictionaries(st.sampled_from(list(Recipe.model_fields)) | st.text(max_size=8), PLAIN, max_size=4))
@settings(max_examples=150, deadline=None)
def test_anything_is_a_recipe_or_a_message(data: dict[str, Any]) -> None:
    accepted(data)


@given(st.sampled_from(FIELDS), PLAIN)
@settings(max_examples=300, deadline=None)
def test_a_recipe_that_is_taken_has_a_fingerprint(field: str, value: Any) -> None:
    recipe = accepted(spoiled(field, value))
    if recipe is not None:
        canonical_json(identity(recipe))


@given(st.sampled_from(FIELDS), PLAIN)
@settings(max_examples=100, deadline=None)
def test_a_recipe_written_down_is_the_same_experiment(field: str, value: Any) -> None:
    recipe = accepted(spoiled(field, value))
    if recipe is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "again.yaml"
        path.write_text(yaml.safe_dump(recipe.model_dump(by_alias=True), allow_unicode=True), encoding="utf-8")
        assert load_recipe(path) == recipe


@given(st.text(max_size=20), st.text(max_size=20))
@settings(max_examples=150, deadline=None)
def test_any_override_is_taken_or_told(field: str, value: str) -> None:
    try:
        load_recipe(find_recipe("nano"), [f"{field}={value}"])
    except InputError as error:
        assert str(error)


@pytest.mark.parametrize("name", recipe_names())
def test_the_built_in_recipes_are_the_same_when_written_down(name: str) -> None:
    recipe = load_recipe(find_recipe(name))
    assert parse_recipe(recipe.model_dump(by_alias=True)) == recipe
