"""Benchmarks: files that are missing, damaged or of other fields, and task definitions that are none."""

import json
from pathlib import Path
from typing import Any

from benchmarks.input_faults.case import Case, Make, write_recipe

BOOLQ = {"question": "is_it", "passage": "It_is.", "label": 1, "idx": 0}
OWN = (
    "task: own\ndataset_path: json\ndataset_kwargs: {data_files: {test: own.jsonl}}\ntest_split: test\n"
    'output_type: loglikelihood\ndoc_to_text: "{{question}}"\ndoc_to_target: "{{answer}}"\n'
)


def task(name: str, **files: str) -> Make:
    """The good experiment with `evaluate.tasks: [name]` and these files; `x_jsonl` is the file `x.jsonl`."""

    def make(folder: Path) -> None:
        evaluate = {"tasks": [name], "task_dir": "tasks", "dtype": "float32"}
        write_recipe(folder, {"evaluate": evaluate, "baselines": ["base"]})
        (folder / "tasks").mkdir()
        for file, text in files.items():
            (folder / "tasks" / file.replace("_", ".")).write_text(text, encoding="utf-8")

    return make


def lines(*rows: Any) -> str:
    """JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def lacking(field: str) -> dict[str, Any]:
    """An item of BoolQ without one field."""
    return {name: value for name, value in BOOLQ.items() if name != field}


def no_folder(folder: Path) -> None:
    """A `task_dir` that is not there."""
    write_recipe(folder, {"evaluate": {"tasks": ["boolq"], "task_dir": "nowhere", "dtype": "float32"}})


FILE = "boolq.jsonl"
CASES = (
    Case("no folder of benchmarks", no_folder, ("evaluate.task_dir: no such folder: nowhere",)),
    Case("a benchmark's file missing", task("boolq"), ("boolq reads", FILE, "does not exist", "Put the data")),
    Case(
        "an unknown benchmark",
        task("bolq", boolq_jsonl=lines(BOOLQ)),
        ("evaluate.tasks", "'bolq'", "Nearest: boolq"),
    ),
    Case("a benchmark's file empty", task("boolq", boolq_jsonl=""), (FILE, "no rows")),
    Case("a benchmark's file cut off", task("boolq", boolq_jsonl=lines(BOOLQ)[:-9]), (FILE, "JSON")),
    Case(
        "a benchmark's file of other rows",
        task("boolq", boolq_jsonl='["a"]\n'),
        (f"{FILE}, line 1", "expected an object"),
    ),
    Case(
        "a question missing",
        task("boolq", boolq_jsonl=lines(lacking("question"))),
        (f"{FILE}, line 1", "`question` is missing", "needs"),
    ),
    Case(
        "a passage missing",
        task("boolq", boolq_jsonl=lines(lacking("passage"))),
        (f"{FILE}, line 1", "`passage` is missing", "needs"),
    ),
    Case(
        "a label missing",
        task("boolq", boolq_jsonl=lines(lacking("label"))),
        (f"{FILE}, line 1", "`label` is missing"),
    ),
    Case(
        "a label missing later",
        task("boolq", boolq_jsonl=lines(BOOLQ, lacking("label"))),
        (f"{FILE}, line 2", "`label`"),
    ),
    Case(
        "a label of text",
        task("boolq", boolq_jsonl=lines(BOOLQ | {"label": "yes"})),
        (f"{FILE}, line 1", "`label`", "0 or 1"),
    ),
    Case(
        "a label out of range",
        task("boolq", boolq_jsonl=lines(BOOLQ | {"label": 7})),
        (f"{FILE}, line 1", "`label`", "the number 7"),
    ),
    Case("a task that is no YAML", task("own", own_yaml="task: [own\n"), ("own.yaml", "cannot be read as a task")),
    Case("a task that is a list", task("own", own_yaml="- a\n"), ("own.yaml", "expected a mapping")),
    Case("a task nested deep", task("own", own_yaml="task: " + "[" * 100_000), ("own.yaml", "nested")),
    Case("a task whose data are missing", task("own", own_yaml=OWN), ("own.yaml", "own.jsonl", "is not a file")),
    Case(
        "a task that asks for a field that is not there",
        task("own", own_yaml=OWN, own_jsonl=lines({"question": "a", "reply": "b"})),
        ("own", "answer"),
    ),
    Case(
        "a task of an unknown kind",
        task(
            "own", own_yaml=OWN.replace("loglikelihood", "guess"), own_jsonl=lines({"question": "a", "answer": "b"})
        ),
        ("own", "guess"),
    ),
)
