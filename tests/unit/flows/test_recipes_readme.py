"""What `flows/recipes/README.md` claims of the recipes is what they say."""

import re

import pytest

from flows.recipes import FOLDER, find_recipe, recipe_names
from forgetting_core.config import identity
from forgetting_core.recipe import load_recipe
from infra.plan import flatten

TEXT = (FOLDER / "README.md").read_text(encoding="utf-8")
LINES = [
    [cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("|")
]
AVERAGES = {line[0].strip("`"): line[2] for line in LINES if re.fullmatch(r"[\d.]+ → [\d.]+", line[-1])}
"""{recipe: published averages}"""
SETTINGS = {
    field: (line[1].strip("`"), line[2].strip("`"), line[3])
    for line in LINES
    if len(line) == 4 and line[2].startswith("`")
    for field in re.findall(r"`([\w.]+)`", line[0])
}
"""{field: (published, here, why)}"""
SECTIONS = ("split.", "reference.", "score.", "partition.", "forget.")


def test_every_recipe_is_listed() -> None:
    listed = {line[0].strip("`") for line in LINES if len(line) == 3}
    assert set(recipe_names()) <= listed


@pytest.mark.parametrize("name", AVERAGES)
def test_a_recipe_of_the_paper_tells_the_same_averages(name: str) -> None:
    assert AVERAGES[name] in find_recipe(name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", AVERAGES)
def test_writing_a_documented_value_into_a_recipe_of_the_paper_changes_nothing(name: str) -> None:
    recipe = load_recipe(find_recipe(name))
    for field, (_, here, _) in SETTINGS.items():
        assert load_recipe(find_recipe(name), [f"{field}={here}"]) == recipe, field


def test_every_setting_of_the_papers_recipes_is_documented() -> None:
    assert len(AVERAGES) == 6
    for name in AVERAGES:
        fields = flatten(identity(load_recipe(find_recipe(name))))
        missing = {field for field in fields if field.startswith(SECTIONS)} - SETTINGS.keys()
        assert not missing, f"document {sorted(missing)} in flows/recipes/README.md"


def test_a_difference_has_a_reason() -> None:
    for field, (published, here, why) in SETTINGS.items():
        assert published == here or why, field


def test_the_published_arithmetic_is_what_the_documented_command_sets() -> None:
    command = re.search(r"forgetting run (\S+) ((?:--set \S+|\\|\s)+)", TEXT)
    assert command is not None
    settings = re.findall(r"--set (\S+)", command[2])
    changed = load_recipe(find_recipe(command[1]), settings)
    differing = {field: published for field, (published, here, _) in SETTINGS.items() if published != here}
    for field in ("forget.lambda.schedule", "forget.normalization", "forget.order", "reference.order"):
        assert load_recipe(find_recipe(command[1]), [*settings, f"{field}={differing[field]}"]) == changed
