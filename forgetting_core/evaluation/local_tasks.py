"""Benchmarks whose data lie in a local folder (`evaluate.task_dir`): their files, and how the harness is told.

Two kinds: tasks of lm-evaluation-harness whose data file has a fixed name (`KNOWN_TASKS`), and the user's own
task YAMLs, `NAME.yaml`, which come first. Both are handed to the harness as small YAMLs that include the original
by its absolute path, so that prompts, metrics and `!function` references stay those of the original. Light: the
planner imports this module to fingerprint the files, so neither torch nor lm_eval may be imported here.
"""

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TextIO

import yaml

from forgetting_core.errors import InputError
from forgetting_core.evaluation import tydiqa
from forgetting_core.plain_yaml import PlainLoader


@dataclass(frozen=True)
class KnownTask:
    """A task of the harness and the local files that replace its hub data set."""

    definition: str
    """Its YAML, below `lm_eval/tasks`."""
    files: Mapping[str, str]
    """Split (`train`, `validation`, `test`) -> file name in the task folder; a split not named is switched off."""


KNOWN_TASKS = {
    "asdiv": KnownTask("asdiv/default.yaml", {"validation": "asdiv.jsonl"}),
    "boolq": KnownTask("super_glue/boolq/default.yaml", {"validation": "boolq.jsonl"}),
    "logiqa": KnownTask("logiqa/logiqa.yaml", {"test": "logiqa_test.jsonl"}),
    "truthfulqa_gen": KnownTask("truthfulqa/truthfulqa_gen.yaml", {"validation": "truthfulqa_gen.jsonl"}),
    "truthfulqa_mc1": KnownTask("truthfulqa/truthfulqa_mc1.yaml", {"validation": "truthfulqa_mc.jsonl"}),
    "truthfulqa_mc2": KnownTask("truthfulqa/truthfulqa_mc2.yaml", {"validation": "truthfulqa_mc.jsonl"}),
    **{
        name: KnownTask(
            f"tydiqa/{name}.yaml",
            {"validation": "tydiqa_goldp_validation.jsonl", "train": "tydiqa_goldp_train.jsonl"},
        )
        for name in tydiqa.TASKS
    },
}


@dataclass(frozen=True)
class LocalTask:
    """A task as it is handed to the harness."""

    name: str
    """As the harness knows it; results are reported under it."""
    definition: Path
    """The YAML that is included."""
    overrides: Mapping[str, Any]
    """Keys that replace those of `definition`."""
    files: tuple[Path, ...]
    """What decides its results: data, and for an own task also its YAMLs and the Python files they name."""

    is_known: bool = False
    """Whether it is one of `KNOWN_TASKS`."""

    @property
    def reads_only_local_data(self) -> bool:
        """False for an own YAML that names a hub data set."""
        return "data_files" in self.overrides.get("dataset_kwargs", {})


def task_files(task_dir: Path, tasks: Sequence[str]) -> list[Path]:
    """The local files that `tasks` read, each once, sorted. Raises `InputError` like `local_tasks`."""
    return sorted({path for task in local_tasks(task_dir, tasks) for path in task.files})


def local_tasks(task_dir: Path, tasks: Sequence[str]) -> list[LocalTask]:
    """The definitions of `tasks`, each once, in their order; a benchmark of several tasks is all of them.

    Raises `InputError` when the folder or one of the files is missing, when a YAML cannot be read, and when a task
    is neither an own YAML nor a known one: nothing falls back to the hub.
    """
    task_dir = task_dir.expanduser().resolve()
    if not task_dir.is_dir():
        raise InputError(f"evaluate.task_dir: {task_dir} is not a folder; give the folder with the benchmark files")
    names = dict.fromkeys(name for task in tasks for name in _members(task_dir, task))
    return [_local_task(task_dir, name) for name in names]


def write_definitions(tasks: Sequence[LocalTask], folder: Path) -> None:
    """Write the YAMLs for the harness into the empty `folder`, which also becomes the cache of their data sets."""
    for task in tasks:
        overrides = dict(task.overrides)
        if task.reads_only_local_data:
            # A cache of its own: the shared one would keep serving a data file that has changed since.
            overrides["dataset_kwargs"] = {**overrides["dataset_kwargs"], "cache_dir": str(folder / "datasets")}
        definition = {"include": str(task.definition), "task": task.name, "tag": [], **overrides}
        (folder / f"{task.name}.yaml").write_text(yaml.safe_dump(definition), encoding="utf-8")


def _members(task_dir: Path, name: str) -> tuple[str, ...]:
    return (name,) if (task_dir / f"{name}.yaml").is_file() else tydiqa.harness_tasks(name)


def _local_task(task_dir: Path, name: str) -> LocalTask:
    definition = task_dir / f"{name}.yaml"
    if definition.is_file():
        return _own_task(name, definition)
    if name in KNOWN_TASKS:
        return _known_task(task_dir, name, KNOWN_TASKS[name])
    available = sorted({tydiqa.TYDIQA, *KNOWN_TASKS, *(path.stem for path in task_dir.glob("*.yaml"))})
    nearest = get_close_matches(name, available) or available
    raise InputError(
        f"evaluate.tasks: no local files are known for {name!r}, and {definition} does not exist. Nearest: "
        f"{', '.join(nearest)}. Correct the name, add the YAML, or remove evaluate.task_dir so that "
        "lm-evaluation-harness fetches its data from the hub"
    )


def _known_task(task_dir: Path, name: str, task: KnownTask) -> LocalTask:
    files = {split: task_dir / file for split, file in task.files.items()}
    for path in files.values():
        if not path.is_file():
            raise InputError(
                f"evaluate.task_dir: {name} reads {path}, which does not exist. Put the data of the task there "
                "(JSON lines with the fields of its hub data set), or remove evaluate.task_dir"
            )
    overrides: dict[str, Any] = {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: str(path) for split, path in files.items()}},
        "training_split": "train" if "train" in files else None,
        "validation_split": "validation" if "validation" in files else None,
        "test_split": "test" if "test" in files else None,
    }
    if "train" not in files:
        overrides["fewshot_split"] = None
    return LocalTask(name, _harness_tasks() / task.definition, overrides, tuple(files.values()), is_known=True)


def _harness_tasks() -> Path:
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or spec.origin is None:
        raise InputError("evaluate: lm-evaluation-harness is not installed; install the package `lm-eval`")
    return Path(spec.origin).parent / "tasks"


def _own_task(name: str, definition: Path) -> LocalTask:
    sources = _Sources()
    config = sources.read(definition)
    if "group" in config or isinstance(config.get("task"), list):
        raise InputError(f"{definition}: is a group of tasks; name its tasks in evaluate.tasks instead")
    settings = config.get("dataset_kwargs") or {}
    if not isinstance(settings, dict):
        raise InputError(f"{definition}: dataset_kwargs: expected a mapping, found {settings!r}")
    data: list[Path] = []
    overrides = {}
    if "data_files" in settings:
        resolved = _absolute(settings["data_files"], definition, data)
        overrides["dataset_kwargs"] = {**settings, "data_files": resolved}
    # The harness's own files are pinned by its version.
    files = [path for path in (*sources.files, *data) if not path.is_relative_to(_harness_tasks())]
    for path in files:
        if not path.is_relative_to(definition.parent):
            raise InputError(f"{definition}: reads {path}, which is outside of evaluate.task_dir; put it inside")
    return LocalTask(name, definition, overrides, tuple(files))


def _joined(folder: Path, relative: str) -> Path:
    """Without `..`, but with links kept: a linked file still belongs to the folder of its link."""
    return Path(os.path.normpath(folder / relative))


def _absolute(data_files: Any, definition: Path, found: list[Path]) -> Any:
    """`data_files` (a name, a list, or either by split) with absolute paths, which are added to `found`."""
    if isinstance(data_files, dict):
        return {split: _absolute(item, definition, found) for split, item in data_files.items()}
    if isinstance(data_files, list):
        return [_absolute(item, definition, found) for item in data_files]
    path = _joined(definition.parent, str(data_files))
    if not path.is_file():
        raise InputError(
            f"{definition}: dataset_kwargs.data_files names {data_files!r}, but {path} is not a file; expected the "
            "name of a local file, relative to the folder of the YAML"
        )
    found.append(path)
    return str(found[-1])


@dataclass
class _Sources:
    """Reads a task YAML with all that it includes, as the harness does, and notes the files it met."""

    files: list[Path] = field(default_factory=list)

    def read(self, path: Path) -> dict[str, Any]:
        if path in self.files:
            raise InputError(f"{path}: is included more than once")
        self.files.append(path)
        try:
            with path.open(encoding="utf-8") as stream:
                loader = _TaskLoader(stream)
                config = loader.get_single_data()
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"{path}: cannot be read as a task YAML: {error}") from error
        if not isinstance(config, dict):
            raise InputError(f"{path}: expected a mapping with the keys of an lm-evaluation-harness task")
        for function in loader.functions:
            module = path.parent / (function.rpartition(".")[0].replace(".", "/") + ".py")
            if module.is_file() and module not in self.files:
                self.files.append(module)
        includes = config.pop("include", [])
        merged: dict[str, Any] = {}
        for include in includes if isinstance(includes, list) else [includes]:
            merged.update(self.read(_joined(path.parent, str(include))))
        return merged | config


class _TaskLoader(PlainLoader):
    """Safe YAML plus the harness's `!function module.name`, noted and not imported."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.functions: list[str] = []

    def function(self, node: yaml.ScalarNode) -> str:
        name = str(self.construct_scalar(node))
        self.functions.append(name)
        return name


_TaskLoader.add_constructor("!function", _TaskLoader.function)
