"""What stays cached although something above it ran again, and what the code has to do with it: real runs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.sealed import seal, unseal

PROJECT = Path(__file__).resolve().parents[2]
SAME_K = "partition.rho=0.7000001"
"""Another ρ that calls as many tokens positive."""


class Project:
    """The command line, with a state directory of its own."""

    def __init__(self, state: Path) -> None:
        self.store = state / "store"
        self._environment = {**os.environ, "FORGETTING_STATE_DIR": str(state), "PYTHONPATH": str(PROJECT)}

    def forgetting(self, *arguments: str) -> Any:
        """The JSON that `forgetting … --json` prints."""
        done = subprocess.run(
            [sys.executable, "-c", "from flows.cli import main; main()", *arguments, "--json"],
            cwd=PROJECT,
            env=self._environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def commits(self, step: str) -> list[Path]:
        """The commit records of a step."""
        found = sorted((self.store / "v1" / "commits" / step).glob("*.json"))
        assert found
        return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("cut-off") / "state")


@pytest.fixture(scope="module")
def first(project: Project) -> Any:
    """The run whose results the others find."""
    return project.forgetting("run", "nano")


@pytest.fixture(scope="module")
def second(project: Project, first: Any) -> Any:
    """Another ρ with the same k, and scores that have to be computed again."""
    for commit in project.commits("score"):
        commit.unlink()
    return project.forgetting("run", "nano", "--set", SAME_K)


def states(document: Any) -> dict[str, str]:
    return {label: step["state"] for label, step in document["steps"].items()}


def digests(document: Any) -> dict[str, str]:
    return {label: step["digest"] for label, step in document["steps"].items()}


def test_scores_computed_again_to_the_same_bytes_and_a_rho_with_the_same_k_leave_the_fine_tune_cached(
    first: Any, second: Any
) -> None:
    assert set(states(first).values()) == {"ran"}
    ran = {label for label, state in states(second).items() if state == "ran"}
    # the report shows ρ itself
    assert ran == {"score[base]", "score[reference]", "partition", "report"}
    unchanged = {label for label in digests(first) if digests(first)[label] == digests(second)[label]}
    assert unchanged == digests(first).keys() - {"report"}
    for label in ("score[base]", "forget"):
        assert first["steps"][label]["fingerprint"] == second["steps"][label]["fingerprint"]


def test_by_source_everything_is_keyed_on_the_code_and_a_report_made_again_is_the_same(
    project: Project, first: Any
) -> None:
    third = project.forgetting("run", "nano", "--code-identity", "source")
    assert set(states(third).values()) == {"ran"}
    assert digests(third) == digests(first)
    assert not {step["fingerprint"] for step in third["steps"].values()} & {
        step["fingerprint"] for step in first["steps"].values()
    }
    planned = project.forgetting("plan", "nano", "--code-identity", "source")
    assert {step["state"] for step in planned["steps"]} == {"cached"}


def test_plan_and_run_name_the_functions_that_changed_under_a_cached_step(
    project: Project, first: Any, second: Any
) -> None:
    assert first["warnings"] == second["warnings"] == []
    for path in project.commits("partition"):
        commit = unseal(path.read_bytes())
        assert len(commit["provenance"]["source_digest"]) == 64
        commit["provenance"]["source"]["forgetting_core.partition.influence"] = "0" * 12
        path.write_bytes(seal(commit))

    planned = project.forgetting("plan", "nano", "--set", SAME_K)
    (step,) = [step for step in planned["steps"] if step["step"] == "partition"]
    (reason,) = step["reasons"]
    assert (step["state"], reason["kind"], reason["field"], reason["old"]) == (
        "cached",
        "code",
        "forgetting_core.partition.influence",
        "0" * 12,
    )
    ran = project.forgetting("run", "nano", "--set", SAME_K)
    assert set(states(ran).values()) == {"cached"}
    for warnings in (planned["warnings"], ran["warnings"]):
        (warning,) = warnings
        assert warning.startswith("partition: cached") and "forgetting_core.partition.influence" in warning
