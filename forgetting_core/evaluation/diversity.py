"""The step `evaluate` of diversity: several sampled answers to each prompt, and how alike they are.

The prompts are those of validation rows, which no model was trained on.
"""

import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np

from forgetting_core.config import DiversityConfig, Dtype, ExecutionConfig, identity
from forgetting_core.evaluation import DIVERSITY, INTERVALS_FILE, METRICS_FILE, PROTOCOL, SAMPLES
from forgetting_core.evaluation.diversity_metrics import Answer, Mean, means, measure
from forgetting_core.evaluation.held_out import answered_rows
from forgetting_core.evaluation.sampling import Sampler
from forgetting_core.json_files import write_json, write_json_lines
from forgetting_core.models import load_checkpoint, load_tokenizer, resolve_device
from forgetting_core.progress import Progress
from forgetting_core.tables import TokenRows


def evaluate_diversity(
    config: DiversityConfig,
    *,
    base: Path,
    checkpoint: Path | None,
    validation: Path,
    dtype: Dtype,
    out: Path,
    execution: ExecutionConfig,
    progress: Progress,
) -> dict[str, Any]:
    """Answer `config.prompts` prompts; write `metrics.json`, `intervals.json` and `samples/diversity.jsonl`.

    The metrics are those of `diversity_metrics.measure`, means over prompts with their standard errors. A line
    of the samples is a prompt: its row of the split as `doc_id`, its text as `doc`, `answers` as texts and, without
    the token that ended them, as `answer_ids`, `seed`, and the `metrics`. A GPU draws other answers than a CPU.

    Returns `{"metrics", "answers", "tokens"}`, the tokens of all answers. Raises `InputError` when no validation
    row has a response token.
    """
    rows = TokenRows.read(validation)
    chosen = choose_prompts(rows, config, progress)
    tokenizer = load_tokenizer(base)
    device = resolve_device(execution.device)
    model = load_checkpoint(
        base, checkpoint, dtype=dtype, device=device, trust_remote_code=execution.trust_remote_code
    )
    sampler = Sampler(config, model, tokenizer, execution.micro_batch)
    samples: list[dict[str, Any]] = []
    measured: list[dict[str, float]] = []
    cut = tokens = 0
    for row, prompt in chosen.items():
        seed = int(np.random.SeedSequence([config.seed, row]).generate_state(1)[0])
        answers = sampler.answers(prompt, seed)
        measured.append(measure(answers))
        samples.append(_sample(row, str(tokenizer.decode(prompt)), answers, seed, measured[-1]))
        cut += sampler.prompt_limit is not None and len(prompt) > sampler.prompt_limit
        tokens += sum(len(answer.tokens) for answer in answers)
        progress.advance(len(samples), len(chosen), "prompts")
    if cut:
        progress.note(
            f"evaluate: diversity: {cut} of {len(chosen)} prompts are cut on the left to {sampler.prompt_limit} "
            "tokens: with max_new_tokens they are longer than the model's positions"
        )
    found = means(measured, config.seed)
    metrics = {DIVERSITY: _metrics(found, len(chosen))}
    write_json(out / METRICS_FILE, {**metrics, PROTOCOL: _protocol(config, dtype, sampler)})
    write_json(out / INTERVALS_FILE, _intervals(found))
    write_json_lines(out / SAMPLES / f"{DIVERSITY}.jsonl", samples)
    return {"metrics": metrics, "answers": len(chosen) * config.samples, "tokens": tokens}


def choose_prompts(rows: TokenRows, config: DiversityConfig, progress: Progress) -> dict[int, np.ndarray]:
    """{row: the token ids before its first response token}, drawn by `config.seed`, in the order of the split.

    Rows without a response token are left out, and noted like prompts that are missing.
    """
    response = rows.response_mask()
    able = answered_rows(rows)
    if len(able) < config.prompts:
        progress.note(
            f"evaluate: diversity: {len(able)} of the {config.prompts} prompts asked for: {len(rows)} validation "
            f"rows, {len(rows) - len(able)} of them without a response token; raise split.validation_rows for more"
        )
    drawn = np.random.Generator(np.random.PCG64(config.seed)).permutation(able)[: config.prompts]
    starts = {int(row): int(rows.offsets[row]) for row in np.sort(drawn)}
    return {row: rows.input_ids[start : start + int(response[start:].argmax())] for row, start in starts.items()}


def _metrics(found: dict[str, Mean], prompts: int) -> dict[str, float]:
    metrics: dict[str, float] = {name: mean.value for name, mean in found.items()}
    errors = {f"{name}_stderr": mean.stderr for name, mean in found.items() if mean.stderr is not None}
    return {**metrics, **errors, "prompts": prompts}


def _intervals(found: dict[str, Mean]) -> dict[str, Any]:
    """Bootstrap 95 % intervals, and how many prompts each measure is defined for."""
    return {name: {"low": mean.low, "high": mean.high, "prompts": mean.prompts} for name, mean in found.items()}


def _protocol(config: DiversityConfig, dtype: Dtype, sampler: Sampler) -> dict[str, Any]:
    return {
        **identity(config),
        "name": "sampled",
        "top_k": 0,
        "top_p": 1.0,
        "end_tokens": sampler.ends,
        "dtype": dtype,
        "sacrebleu": importlib.metadata.version("sacrebleu"),
    }


def _sample(row: int, prompt: str, answers: list[Answer], seed: int, measured: dict[str, float]) -> dict[str, Any]:
    return {
        "doc_id": row,
        "doc": prompt,
        "metrics": measured,
        "answers": [answer.text for answer in answers],
        "answer_ids": [answer.tokens for answer in answers],
        "seed": seed,
    }
