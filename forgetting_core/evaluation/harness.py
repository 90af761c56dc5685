"""Running benchmarks through lm-evaluation-harness.

They are loaded before the model, so that a wrong name or a missing file costs no time, and run one after the
other, so that the batches of a benchmark, and with them the last bits of its results, do not depend on which others
were asked for. The harness's bars and log lines are kept away; its warnings are counted and handed back.
"""

import functools
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import lm_eval
import lm_eval.evaluator
from lm_eval.api.group import Group
from lm_eval.api.task import Task
from lm_eval.evaluator_utils import get_sample_size
from lm_eval.tasks import TaskManager
from peft import PeftModel
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from forgetting_core.config import BenchmarkConfig
from forgetting_core.errors import InputError
from forgetting_core.evaluation import tydiqa
from forgetting_core.evaluation.items import check_items
from forgetting_core.evaluation.local_tasks import local_tasks, write_definitions
from forgetting_core.evaluation.protocols import Asked, set_up
from forgetting_core.evaluation.reporting_lm import ReportingLM
from forgetting_core.progress import Progress

BOOTSTRAP_ITERS = 1000
"""For the standard error of the few metrics that are no mean; the harness's default of 100 000 takes minutes."""


@dataclass(frozen=True)
class Benchmark:
    """One name of `evaluate.tasks`, loaded and ready to run."""

    name: str
    tasks: list[Task | Group]
    """Of the harness, a tag of which stands for several."""
    asked: Asked
    manager: TaskManager
    offline: bool
    """Everything is read from local files, so nothing may be sent."""

    @property
    def leaves(self) -> list[Task]:
        """The tasks, those in groups too."""
        return [leaf for item in self.tasks for leaf in _leaves(item)]

    @property
    def items(self) -> int:
        """How many will be evaluated."""
        return sum(_items(task, self.asked.limit) for task in self.leaves)


@dataclass(frozen=True)
class BenchmarkResults:
    """What the harness answered for one benchmark; keys are names of its tasks, and of groups of them."""

    metrics: dict[str, dict[str, Any]]
    """`metric,filter` -> value."""
    samples: dict[str, list[dict[str, Any]]]
    versions: dict[str, Any]
    num_fewshot: dict[str, int]
    generation: dict[str, dict[str, Any]]
    """How answers were generated, where they were."""
    asked: Asked
    warnings: Counter[str]
    """How often it said what."""


def load_benchmarks(
    config: BenchmarkConfig,
    task_dir: Path | None,
    scratch: Path,
    tokenizer: PreTrainedTokenizerBase,
    asked: Callable[[str], Asked],
) -> list[Benchmark]:
    """Resolve and load `config.tasks`, each once; local ones through YAMLs written into the empty folder `scratch`.

    Raises `InputError` for a task that is unknown or whose local data cannot be read.
    """
    local = [] if task_dir is None else local_tasks(task_dir, config.tasks)
    for path in sorted({path for task in local if task.is_known for path in task.files}):
        check_items(path)
    write_definitions(local, scratch)
    offline = task_dir is not None and all(task.reads_only_local_data for task in local)
    found = []
    with _contained(offline):
        manager = TaskManager() if task_dir is None else TaskManager(include_path=scratch, include_defaults=False)
        for name in dict.fromkeys(config.tasks):
            members = (name,) if name in manager.task_index else tydiqa.harness_tasks(name)
            tasks = [task for member in members for task in _load(manager, member, task_dir)]
            benchmark = Benchmark(name, tasks, asked(name), manager, offline)
            for leaf in benchmark.leaves:
                set_up(leaf, config, tokenizer)
            found.append(benchmark)
    return found


def run_benchmarks(
    benchmarks: Sequence[Benchmark],
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    progress: Progress,
) -> Iterator[BenchmarkResults]:
    """Evaluate `model`, without its chat template; one result for each of `benchmarks`, in their order.

    Seeds Python's, numpy's and torch's global generators before each.
    """
    # A bootstrap of this size is quicker than starting a process per core.
    os.environ.setdefault("DISABLE_MULTIPROC", "1")
    items = sum(benchmark.items for benchmark in benchmarks)
    with _contained(all(benchmark.offline for benchmark in benchmarks)) as warnings:
        lm = ReportingLM(model, tokenizer, items=items, progress=progress)
        for benchmark in benchmarks:
            warnings.clear()
            asked = benchmark.asked
            lm.batch_size_per_gpu = asked.batch_size
            answer = lm_eval.simple_evaluate(
                model=lm,
                tasks=benchmark.tasks,
                task_manager=benchmark.manager,
                limit=asked.limit,
                bootstrap_iters=BOOTSTRAP_ITERS,
                log_samples=True,
                random_seed=asked.seeds.python,
                numpy_random_seed=asked.seeds.numpy,
                torch_random_seed=asked.seeds.torch,
                fewshot_random_seed=asked.seeds.fewshot,
            )
            yield BenchmarkResults(
                metrics=answer["results"],
                samples=answer["samples"],
                versions=answer["versions"],
                num_fewshot=answer["n-shot"],
                generation={
                    task.config.task: task.config.generation_kwargs
                    for task in benchmark.leaves
                    if task.config.generation_kwargs
                },
                asked=asked,
                warnings=Counter(warnings),
            )


def _load(manager: TaskManager, name: str, task_dir: Path | None) -> list[Task | Group]:
    if name not in manager.task_index:
        nearest = get_close_matches(name, manager.all_tasks, n=5) or ["`lm_eval ls tasks` lists them"]
        raise InputError(
            f"evaluate.tasks: lm-evaluation-harness knows no task {name!r}. Nearest: {', '.join(nearest)}. Correct "
            "the name, or put an own task YAML into a folder and name that in evaluate.task_dir"
        )
    try:
        loaded = manager.load([name])
    except Exception as error:
        if task_dir is None:
            raise
        # The harness tries a local task's templates and functions on its data here: whatever fails is in them.
        reason = error.__cause__ or error
        raise InputError(f"evaluate.tasks: {name} in {task_dir} cannot be loaded: {reason!r}") from error
    groups = loaded.get("groups", {})
    return [groups[name]] if name in groups else list(loaded["tasks"].values())


def _leaves(item: Task | Group) -> Sequence[Task]:
    return item.get_all_tasks() if isinstance(item, Group) else [item]


def _items(task: Task, limit: float | None) -> int:
    available = len(task.eval_docs)
    return available if limit is None else min(available, get_sample_size(task, limit))


@contextmanager
def _contained(offline: bool) -> Iterator[Counter[str]]:
    """The harness without progress bars, log lines and subprocesses; yields a counter of its warnings.

    Its dump of the environment (`pip list` and git, seconds per call) is skipped. With `offline` the Hugging Face
    libraries send nothing: `datasets` would otherwise report the use of its JSON reader.
    """
    warnings: Counter[str] = Counter()
    handler = _Counting(warnings)
    logger = logging.getLogger("lm_eval")
    show_bar = tqdm.__init__

    @functools.wraps(show_bar)
    def hide_bar(self: tqdm, *args: Any, **kwargs: Any) -> None:
        show_bar(self, *args, **{**kwargs, "disable": True})

    replacements: list[tuple[Any, str, Any]] = [
        (tqdm, "__init__", hide_bar),
        (logger, "propagate", False),
        (lm_eval.evaluator, "add_env_info", lambda results: None),
        (lm_eval.evaluator, "get_git_commit_hash", lambda: None),
    ]
    if offline:
        replacements += [(huggingface_hub.constants, "HF_HUB_OFFLINE", True)]
        replacements += [(datasets.config, "HF_HUB_OFFLINE", True)]
    with ExitStack() as stack:
        logger.addHandler(handler)
        stack.callback(logger.removeHandler, handler)
        for owner, name, value in replacements:
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        yield warnings


class _Counting(logging.Handler):
    def __init__(self, counts: Counter[str]) -> None:
        super().__init__(logging.WARNING)
        self.counts = counts

    def emit(self, record: logging.LogRecord) -> None:
        self.counts[record.getMessage()] += 1
