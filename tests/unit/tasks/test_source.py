"""Code that changes without a new version does not go unnoticed: by the tests, by `plan`, by `run`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from infra.commits import Commit
from infra.fingerprint import fingerprint, step_payload
from tasks.partition import PARTITION
from tasks.score import SCORE
from tasks.source import CODE, NAMES_SHOWN, code_changes, code_warnings, identified, step_source
from tasks.spec import StepCall
from tests.golden.write import COMMAND, SOURCES, SPECS, sources

GOLDEN = json.loads(SOURCES.read_text(encoding="utf-8"))
PROJECT = Path(__file__).resolve().parents[3]


def commit_of_partition(**provenance: object) -> Commit:
    payload = step_payload("partition", 1, {}, {})
    return Commit(
        step="partition",
        fingerprint=fingerprint(payload),
        payload=payload,
        artifact="v1/data/partition/x",
        digest="0" * 64,
        bytes=0,
        outputs={},
        inputs={},
        provenance=dict(provenance),
    )


@pytest.mark.parametrize("step", [spec.name for spec in SPECS])
def test_code_changes_with_a_new_version_or_knowingly(step: str) -> None:
    expected, found = GOLDEN[step], sources()[step]
    old, new = expected["functions"], found["functions"]
    changed = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    unnoticed = expected["source_digest"] != found["source_digest"] and expected["version"] == found["version"]
    assert not unnoticed, (
        f"the code of the step `{step}` has changed, but not its version: {', '.join(changed)}.\n"
        f"Either results change: raise `version` in tasks/{step}.py, and run `{COMMAND}`.\n"
        f"Or they stay the same to the byte: run `{COMMAND}` and commit {SOURCES.relative_to(PROJECT)}."
    )


def test_the_expected_code_is_that_of_todays_steps_and_versions() -> None:
    expected = {step: golden["version"] for step, golden in GOLDEN.items()}
    assert expected == {spec.name: spec.version for spec in SPECS}, f"run `{COMMAND}`"


def test_every_step_of_the_project_is_watched() -> None:
    specified = {path.stem for path in (PROJECT / "tasks").glob("*.py") if "StepSpec(" in path.read_text()}
    assert specified - {"spec"} == GOLDEN.keys()


def test_what_a_step_computes_with_is_in_its_closure_and_what_others_do_is_not() -> None:
    partition, score = step_source(PARTITION).functions, step_source(SCORE).functions
    assert {"forgetting_core.partition.influence", "forgetting_core.tables.write_parquet"} <= partition.keys()
    assert {"forgetting_core.scoring.Scorer.losses", "tasks.child.Job.path"} <= score.keys()
    assert not any(name.startswith("forgetting_core.partition.") for name in score)
    assert "forgetting_core.report/page.html.j2" in GOLDEN["report"]["functions"]


def test_digesting_the_source_imports_none_of_it() -> None:
    script = (
        "import sys; from infra.source_code import closure\n"
        f"for step in {[spec.name for spec in SPECS]}: closure(f'tasks.{{step}}:compute', {CODE})\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", *CODE} & set(done.stdout.split())


def test_changed_added_and_removed_functions_are_named() -> None:
    today = step_source(PARTITION)
    assert code_changes(PARTITION, commit_of_partition(**today.record())) == []
    name, digest = next(iter(today.functions.items()))
    then = {**today.functions, name: "0" * 12, "gone": "1" * 12}
    del then["tasks.partition.compute"]
    found = code_changes(PARTITION, commit_of_partition(source=then))
    assert [(reason.kind, reason.field, reason.old, reason.new) for reason in found] == [
        ("code", name, "0" * 12, digest),
        ("code", "gone", "1" * 12, None),
        ("code", "tasks.partition.compute", None, today.functions["tasks.partition.compute"]),
    ]


def test_a_commit_that_does_not_record_its_code_says_nothing() -> None:
    assert code_changes(PARTITION, commit_of_partition()) == []


def test_one_warning_names_all_uses_of_a_step_its_file_and_what_to_do() -> None:
    changes = code_changes(PARTITION, commit_of_partition(source={}))
    assert len(changes) > NAMES_SHOWN
    (warning,) = code_warnings(
        [("score", "score[base]", changes), ("score", "score[x]", changes), ("split", "s", [])]
    )
    assert warning.startswith("score[base], score[x]: cached, but the code has changed since: forgetting_core.")
    assert f"and {len(changes) - NAMES_SHOWN} more" in warning
    assert "tasks/score.py" in warning and "--code-identity source" in warning


def test_by_source_the_digest_of_the_code_is_part_of_identity() -> None:
    call = StepCall("partition", PARTITION)
    assert identified(call, "version") == call
    assert identified(call, "source").identity == {"code": step_source(PARTITION).digest}
