"""The synthetic base model: a byte-level BPE tokenizer and a small Llama, pretrained for a short while.

It stops early on purpose: a base with partial skill is what fine-tuning starts from. The tokenizer has an end
token only, no padding and no beginning token, as some published models.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from forgetting_core.config import SyntheticConfig
from forgetting_core.progress import Progress, now
from forgetting_core.tables import IGNORE_INDEX

Example = tuple[torch.Tensor, torch.Tensor]

END_TOKEN = "<|end|>"
MAX_LENGTH = 128
"""Positions of the model, in tokens; the longest rows have about 40."""
WARMUP_RATIO = 0.05
LOG_EVERY = 20


def train_tokenizer(texts: list[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE of `vocab_size` tokens; every digit is one, so that numbers are spelled alike everywhere."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def pretrain(
    rows: list[tuple[str, str]], tokenizer: Tokenizer, config: SyntheticConfig, progress: Progress
) -> tuple[LlamaForCausalLM, list[float]]:
    """A small Llama trained on the answers of `rows` (prompt, completion), and its loss curve (nats per token).

    The prompts are random words that nothing could predict: training on them too takes the same skill more steps.
    AdamW without weight decay, linear warm-up and decay to 0, rows shuffled anew whenever all were seen. One
    thread, so that the number of cores does not enter the weights; torch's global state is left as it was.
    """
    settings = config.pretrain
    examples = [_example(prompt, completion, tokenizer) for prompt, completion in rows]
    with _one_seeded_thread(config.seed):
        model = LlamaForCausalLM(_model_config(tokenizer, config)).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_rate, total=settings.steps))
        batches = _endless_batches(examples, settings.rows_per_step)
        losses = []
        for step in range(1, settings.steps + 1):
            loss = _answer_loss(model, next(batches))
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            progress.advance(step, settings.steps, "steps")
            if step % LOG_EVERY == 0:
                progress.log(step, {"pretrain/loss": losses[-1]}, now())
    return model.eval(), losses


def save_base(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the Hugging Face directory `folder`, without the library's version in its configs."""
    transformers_logging.disable_progress_bar()
    model.save_pretrained(folder)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END_TOKEN, model_max_length=MAX_LENGTH)
    fast.save_pretrained(folder)
    for path in (folder / "config.json", folder / "generation_config.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        content.pop("transformers_version", None)
        path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _model_config(tokenizer: Tokenizer, config: SyntheticConfig) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=config.hidden_size,
        intermediate_size=4 * config.hidden_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.token_to_id(END_TOKEN),
        initializer_range=0.05,
    )


@contextmanager
def _one_seeded_thread(seed: int) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def _rate(step: int, total: int) -> float:
    warmup = int(total * WARMUP_RATIO)
    return (step + 1) / (warmup + 1) if step < warmup else (total - step) / (total - warmup)


def _example(prompt: str, completion: str, tokenizer: Tokenizer) -> Example:
    """(input_ids (L,), labels (L,)) of a row; the seam is white space, so both halves tokenise on their own."""
    prompt_ids = tokenizer.encode(prompt).ids
    answer_ids = [*tokenizer.encode(completion).ids, tokenizer.token_to_id(END_TOKEN)]
    labels = [IGNORE_INDEX] * len(prompt_ids) + answer_ids
    return torch.tensor(prompt_ids + answer_ids), torch.tensor(labels)


def _endless_batches(examples: list[Example], size: int) -> Iterator[list[Example]]:
    while True:
        order = torch.randperm(len(examples)).tolist()
        for start in range(0, len(examples), size):
            yield [examples[place] for place in order[start : start + size]]


def _answer_loss(model: LlamaForCausalLM, examples: list[Example]) -> torch.Tensor:
    """Mean loss of the answer tokens. Causal attention: padding on the right needs no mask."""
    input_ids_BL = pad_sequence([input_ids for input_ids, _ in examples], batch_first=True)
    labels_BL = pad_sequence([labels for _, labels in examples], batch_first=True, padding_value=IGNORE_INDEX)
    hidden_BLD = model.model(input_ids=input_ids_BL[:, :-1]).last_hidden_state
    targets_BL = labels_BL[:, 1:]
    answered = targets_BL != IGNORE_INDEX
    return F.cross_entropy(model.lm_head(hidden_BLD[answered]), targets_BL[answered])
