"""The built-in recipes, one YAML file per experiment."""

from pathlib import Path

from forgetting_core.errors import InputError

FOLDER = Path(__file__).parent


def recipe_names() -> list[str]:
    """Names of the built-in recipes."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """The file of a built-in recipe or of the user's own. Raises `InputError` naming the known ones."""
    path = Path(name)
    if path.is_file():
        return path
    builtin = FOLDER / f"{name}.yaml"
    if builtin.is_file():
        return builtin
    known = ", ".join(recipe_names())
    raise InputError(f"recipe {name}: no such file and no built-in recipe; built in are {known}")
