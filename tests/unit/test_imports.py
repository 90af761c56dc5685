"""The arrows between the packages point one way: flows -> tasks -> {infra, forgetting_core} (design §2)."""

import ast
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
MAY_IMPORT = {
    "flows": {"flows", "tasks", "infra", "forgetting_core"},
    "tasks": {"tasks", "infra", "forgetting_core"},
    "infra": {"infra"},
    "forgetting_core": {"forgetting_core"},
}
OUTSIDE_THE_CORE = {"prefect", "mlflow", "s3fs", "fsspec", "boto3", "botocore", "aiobotocore"}


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_no_arrow_points_back(package: str) -> None:
    files = sorted((PROJECT / package).rglob("*.py"))
    assert files
    wrong = {
        str(path.relative_to(PROJECT)): sorted(imported(path) & MAY_IMPORT.keys() - MAY_IMPORT[package])
        for path in files
    }
    assert not {path: names for path, names in wrong.items() if names}


def test_the_core_knows_no_orchestrator_tracker_or_store() -> None:
    for path in (PROJECT / "forgetting_core").rglob("*.py"):
        assert not imported(path) & OUTSIDE_THE_CORE, path


def test_no_package_beside_the_fixed_ones() -> None:
    packages = {path.parent.name for path in PROJECT.glob("*/__init__.py")}
    assert packages == {*MAY_IMPORT, "tests"}
