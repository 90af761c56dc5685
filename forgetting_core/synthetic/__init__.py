"""The self-contained demo: a seeded corpus of small skills with planted noise, and a small base model.

Because the noise is planted, this is the one place where it can be measured whether the negative tokens are the
noisy ones. Everything is made from the seed; nothing is downloaded.
"""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from forgetting_core.config import SyntheticConfig
from forgetting_core.progress import Progress
from forgetting_core.synthetic.corpus import Rows, answer, draw_prompts
from forgetting_core.synthetic.noise import BOILERPLATE, Span
from forgetting_core.synthetic.skills import clean_answer

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def prepare(config: SyntheticConfig, *, out: Path, progress: Progress) -> dict[str, Any]:
    """Write the base model, the data and the benchmark into the empty folder `out`.

    `base/` (a Hugging Face directory), `train/train.jsonl`, `reference/reference.jsonl` (rows as in
    `corpus.Rows`), `tasks/` (see `benchmark`) and `aux/synthetic.json` (what was measured). Returns counts of rows
    and tokens, the measured shares of noise and the last loss of pretraining (nats).
    """
    # torch and transformers only when a base model is made: the command line imports this package's configs
    from forgetting_core.synthetic.base_model import pretrain, save_base, train_tokenizer
    from forgetting_core.synthetic.benchmark import write_benchmark

    prompts = draw_prompts(config)
    tokenizer = train_tokenizer(
        [*(prompt + clean_answer(prompt) for prompt in prompts.pretraining), *BOILERPLATE], config.vocab_size
    )

    def answered(part: str, part_prompts: list[str], share: float) -> Rows:
        random = Random(f"{part} noise {config.seed}")
        return answer(part_prompts, share, part=part, token_spans=partial(_token_spans, tokenizer), random=random)

    parts = {
        "train": answered("train", prompts.train, config.noise),
        "reference": answered("reference", prompts.reference, config.reference_noise),
        "pretraining": answered("pretraining", prompts.pretraining, config.pretrain.noise),
    }
    for name in ("train", "reference"):
        _write_rows(parts[name], out / name / f"{name}.jsonl")
    examples = [(row.prompt, row.completion) for row in parts["pretraining"].rows]
    write_benchmark(prompts.test, out / "tasks")
    model, losses = pretrain(examples, tokenizer, config, progress)
    save_base(model, tokenizer, out / "base")

    summary = {
        "parameters": model.num_parameters(),
        "pretrain_loss": losses[-1],
        "test_rows": len(prompts.test),
        **{f"{name}_{key}": value for name, part in parts.items() for key, value in _measures(part).items()},
    }
    (out / "aux").mkdir()
    measured = json.dumps({**summary, "pretrain_losses": losses}, indent=2, sort_keys=True)
    (out / "aux" / "synthetic.json").write_text(measured + "\n", encoding="utf-8")
    return summary


def _measures(part: Rows) -> dict[str, Any]:
    return {
        "rows": len(part.rows),
        "response_tokens": part.response_tokens,
        "noise_tokens": part.noise_tokens,
        "noise_share": part.noise_share,
        "noisy_rows": dict(sorted(part.noisy_rows.items())),
    }


def _write_rows(part: Rows, path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(asdict(row), sort_keys=True) + "\n" for row in part.rows), encoding="utf-8")


def _token_spans(tokenizer: "Tokenizer", text: str) -> list[Span]:
    return list(tokenizer.encode(text).offsets)
