"""How benchmarks are asked: the harness's own defaults, or as the paper did (arXiv 2508.04329, appendix).

Where the paper is silent, `published` stays with the harness: its prompts in the language of the question, its stop
at the end of the line, and for the one example the row of TyDi QA's training split that its sampler draws.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lm_eval.api.task import Task
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED
from lm_eval.utils import apply_template
from transformers import PreTrainedTokenizerBase

from forgetting_core.config import BenchmarkConfig
from forgetting_core.evaluation import squad, tydiqa

CONTEXT_TOKENS = 512
"""Published: what of a passage is read, of the example's as of the question's."""
SAMPLED = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_gen_toks": 50}
"""Published: answers are drawn from the model's own distribution, whatever its generation config says."""


@dataclass(frozen=True)
class Seeds:
    """Of the generators of Python, numpy and torch, and of the draw of few-shot examples."""

    python: int
    numpy: int
    torch: int
    fewshot: int


@dataclass(frozen=True)
class Asked:
    """How one benchmark is asked."""

    limit: float | None
    """Items of each task when at least 1, else a share of them; null: all."""
    seeds: Seeds
    batch_size: int
    """Requests of one forward pass."""


def asked(config: BenchmarkConfig, task: str, *, micro_batch: int | str, device: str) -> Asked:
    """What `config.protocol` says about `task` where `config` itself says nothing.

    The harness's own batch is one request. That is no slower without a GPU, as nothing is padded; on one it is, so
    there it is 16. A number in `micro_batch` replaces the one and bounds the published batch.
    """
    if config.protocol == "published":
        limit = 100 if tydiqa.harness_tasks(task)[0] in tydiqa.TASKS else 0.99
        batch = 20 if task == "asdiv" else 24
        batch_size = batch if isinstance(micro_batch, str) else min(batch, micro_batch)
        seeds = Seeds(42, 42, 42, 42)
    else:
        limit = None
        batch_size = micro_batch if isinstance(micro_batch, int) else 1 if device == "cpu" else 16
        seeds = Seeds(DEFAULT_RANDOM_SEED, DEFAULT_OTHER_SEED, DEFAULT_OTHER_SEED, DEFAULT_OTHER_SEED)
    if config.seed is not None:
        seeds = Seeds(config.seed, config.seed, config.seed, config.seed)
    return Asked(limit if config.limit is None else config.limit, seeds, batch_size)


def set_up(task: Task, config: BenchmarkConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make a loaded task ask as `config.protocol` wants it."""
    if config.protocol != "published":
        return
    if task.config.task not in tydiqa.TASKS:
        task.set_config("num_fewshot", 0)
        return
    task.set_config("num_fewshot", 1)
    task.set_config("generation_kwargs", SAMPLED, update=True)
    task.set_config("process_results", squad.process_results)
    short = _with_short_context(task.config.doc_to_text, tokenizer)
    task.set_config("doc_to_text", short)
    task.fewshot_cfg.doc_to_text = short


def _with_short_context(template: str, tokenizer: PreTrainedTokenizerBase) -> Callable[[dict[str, Any]], str]:
    def doc_to_text(doc: dict[str, Any]) -> str:
        return str(apply_template(template, {**doc, "context": _cut(doc["context"], tokenizer)}))

    return doc_to_text


def _cut(context: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of the first tokens: by their places in it, so that no character is half there."""
    places = tokenizer(context, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return context if len(places) <= CONTEXT_TOKENS else context[: places[CONTEXT_TOKENS - 1][1]]
