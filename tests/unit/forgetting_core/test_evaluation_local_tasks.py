"""Which local files a benchmark reads, and what the user is told when they are not there."""

import subprocess
import sys
from pathlib import Path

import pytest

from forgetting_core.errors import InputError
from forgetting_core.evaluation.local_tasks import KNOWN_TASKS, _harness_tasks, local_tasks, task_files


def test_files_of_known_tasks_are_listed_once(tmp_path: Path) -> None:
    for name in ("boolq.jsonl", "truthfulqa_mc.jsonl", "unrelated.jsonl"):
        (tmp_path / name).write_text("{}\n")
    files = task_files(tmp_path, ["truthfulqa_mc1", "boolq", "truthfulqa_mc2", "boolq"])
    assert files == [tmp_path / "boolq.jsonl", tmp_path / "truthfulqa_mc.jsonl"]


def test_every_known_task_is_one_of_the_installed_harness() -> None:
    assert all((_harness_tasks() / task.definition).is_file() for task in KNOWN_TASKS.values())


def test_an_own_task_is_made_of_its_yamls_their_code_and_its_data(tmp_path: Path) -> None:
    (tmp_path / "common.yaml").write_text("dataset_path: json\nprocess_docs: !function code.docs\n")
    (tmp_path / "code.py").write_text("def docs(data):\n    return data\n")
    (tmp_path / "data").mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / "data" / name).write_text("{}\n")
    (tmp_path / "own.yaml").write_text(
        "include: common.yaml\ntask: own\ndataset_kwargs:\n  data_files: {test: [data/a.jsonl, data/b.jsonl]}\n"
    )
    names = ["code.py", "common.yaml", "data/a.jsonl", "data/b.jsonl", "own.yaml"]
    assert task_files(tmp_path, ["own"]) == [tmp_path / name for name in names]


def test_an_own_yaml_comes_before_a_known_task(tmp_path: Path) -> None:
    (tmp_path / "boolq.yaml").write_text("task: boolq\ndataset_path: someone/boolq\n")
    (task,) = local_tasks(tmp_path, ["boolq"])
    assert task.definition == tmp_path / "boolq.yaml"
    assert not task.reads_only_local_data


def test_a_missing_file_of_a_known_task_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"boolq reads .*boolq\.jsonl, which does not exist"):
        task_files(tmp_path, ["boolq"])


def test_an_unknown_task_is_answered_with_the_nearest_local_ones(tmp_path: Path) -> None:
    (tmp_path / "my_skills.yaml").write_text("task: my_skills\n")
    with pytest.raises(InputError, match=r"'my_skill', and .*my_skill\.yaml does not exist\. Nearest: my_skills\."):
        task_files(tmp_path, ["my_skill"])


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"evaluate\.task_dir: .*nowhere is not a folder"):
        task_files(tmp_path / "nowhere", ["boolq"])


def test_files_outside_the_folder_are_refused_unless_linked_or_of_the_harness(tmp_path: Path) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    (tmp_path / "data.jsonl").write_text("{}\n")
    (folder / "linked.jsonl").symlink_to(tmp_path / "data.jsonl")
    include = f"include: {_harness_tasks() / KNOWN_TASKS['boolq'].definition}\n"
    (folder / "own.yaml").write_text(include + "dataset_kwargs: {data_files: linked.jsonl}\n")
    assert task_files(folder, ["own"]) == [folder / "linked.jsonl", folder / "own.yaml"]
    (folder / "own.yaml").write_text(include + "dataset_kwargs: {data_files: ../data.jsonl}\n")
    with pytest.raises(InputError, match=r"reads .*data\.jsonl, which is outside of evaluate\.task_dir"):
        task_files(folder, ["own"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: own\ndataset_kwargs: {data_files: gone.jsonl}\n", r"names 'gone\.jsonl', but .* is not a file"),
        ("task: own\ndataset_kwargs: {data_files: 'https://x/y.jsonl'}\n", "expected the name of a local file"),
        ("include: gone.yaml\n", r"gone\.yaml: cannot be read as a task YAML"),
        ("include: own.yaml\n", "is included more than once"),
        ("task: [a, b]\ngroup: own\n", r"is a group of tasks; name its tasks in evaluate\.tasks"),
        ("- a list\n", "expected a mapping"),
        ("task: 'open\n", "cannot be read as a task YAML"),
    ],
)
def test_a_broken_own_yaml_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        task_files(tmp_path, ["own"])


def test_listing_files_waits_for_neither_torch_nor_the_harness() -> None:
    code = (
        "import sys; from forgetting_core.evaluation.local_tasks import task_files; "
        "print(sorted({'torch', 'lm_eval', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_tydiqa_is_nine_tasks_of_two_files(tmp_path: Path) -> None:
    files = [tmp_path / f"tydiqa_goldp_{split}.jsonl" for split in ("train", "validation")]
    for path in files:
        path.write_text("{}\n")
    assert task_files(tmp_path, ["tydiqa"]) == files
    names = [task.name for task in local_tasks(tmp_path, ["tydiqa", "tydiqa_goldp_en"])]
    assert names == [
        f"tydiqa_goldp_{language}" for language in ("ar", "bn", "en", "fi", "id", "ko", "ru", "sw", "te")
    ]
