"""Answers drawn from a model's own distribution, whatever sampling its generation config asks for."""

import math

import numpy as np
import torch
from peft import PeftModel
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from forgetting_core.batching import AUTO_TOKENS
from forgetting_core.config import DiversityConfig
from forgetting_core.errors import InputError, NumericalError
from forgetting_core.evaluation.diversity_metrics import Answer
from forgetting_core.models import causal_lm, context_length


class Sampler:
    """Draws the answers to one prompt after the other.

    Each answer is drawn with a seed of its own, and a batch is of one prompt, without padding. So an answer does
    not depend on what else is drawn, and on the micro-batch only as far as the last digits of logits do.
    """

    def __init__(
        self,
        config: DiversityConfig,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        micro_batch: int | str,
    ) -> None:
        """Raises `InputError` when the model has no room for a prompt, or nothing says where an answer ends."""
        self._samples, self._temperature, self._micro_batch = config.samples, config.temperature, micro_batch
        self._model = causal_lm(model)
        self._tokenizer = tokenizer
        limit = context_length(model)
        if limit is not None and config.max_new_tokens >= limit:
            raise InputError(
                f"evaluate.diversity.max_new_tokens: {config.max_new_tokens} leaves no room for a prompt in the "
                f"model's {limit} positions; lower it"
            )
        self.prompt_limit = None if limit is None else limit - config.max_new_tokens
        """Tokens of a prompt that are kept, its last ones; None: all."""
        self.ends = _end_tokens(self._model, tokenizer)
        """Tokens at which an answer ends: of the tokenizer, and of the model's generation config."""
        self._config = GenerationConfig(
            do_sample=False,  # of what `_Draw` makes of the logits
            max_new_tokens=config.max_new_tokens,
            eos_token_id=self.ends,
            pad_token_id=self.ends[0],
        )
        # `generate` would fill in what the one above leaves open, such as a repetition penalty
        self._model.generation_config = self._config

    @torch.inference_mode()
    def answers(self, prompt: np.ndarray, seed: int) -> list[Answer]:
        """Answers to the token ids `prompt` (T,), T at least 1.

        Raises `NumericalError` when the model's logits are not finite.
        """
        kept = prompt if self.prompt_limit is None else prompt[-self.prompt_limit :]
        seeds = np.random.SeedSequence(seed).generate_state(self._samples, np.uint64).tolist()
        size = self._batch_size(len(kept))
        return [
            answer
            for first in range(0, len(seeds), size)
            for answer in self._batch(kept, seeds[first : first + size])
        ]

    def _batch_size(self, prompt: int) -> int:
        """Answers that are drawn at once to a prompt of so many tokens."""
        if not isinstance(self._micro_batch, str):
            return self._micro_batch
        return max(1, AUTO_TOKENS // (prompt + int(self._config.max_new_tokens)))

    def _batch(self, prompt: np.ndarray, seeds: list[int]) -> list[Answer]:
        device = self._model.device
        input_ids = torch.from_numpy(prompt.astype(np.int64)).to(device).expand(len(seeds), -1)
        generated = self._model.generate(
            input_ids,
            attention_mask=torch.ones_like(input_ids),
            generation_config=self._config,
            logits_processor=LogitsProcessorList([_Draw(seeds, self._temperature, device)]),
        )
        return [self._answer(tokens) for tokens in generated[:, len(prompt) :].tolist()]

    def _answer(self, tokens: list[int]) -> Answer:
        end = next((place for place, token in enumerate(tokens) if token in self.ends), len(tokens))
        text = self._tokenizer.decode(tokens[:end], skip_special_tokens=True)
        return Answer(str(text), tuple(tokens[:end]))


class _Draw(LogitsProcessor):  # type: ignore[misc]
    """Draws from softmax(logits / temperature), each row of a batch by a generator of its own.

    By the Gumbel-max trick: the highest of logits / temperature + Gumbel noise is such a draw, and a Gumbel variate
    is −log of an exponential one.
    """

    def __init__(self, seeds: list[int], temperature: float, device: torch.device) -> None:
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self._temperature = temperature

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """(B, V), highest at the tokens drawn, from the logits `scores` (B, V).

        Raises `NumericalError` for logits that nothing can be drawn from.
        """
        if not bool((scores < math.inf).all()):
            raise NumericalError(
                "evaluate.diversity: the model's logits are not finite, so nothing can be drawn from them; the "
                "fine-tune may have diverged: look at its losses, lower its learning rate or forget.lambda.t_max"
            )
        noise = torch.empty_like(scores)
        for row, generator in zip(noise, self._generators, strict=True):
            row.exponential_(generator=generator)
        return scores / self._temperature - noise.log()


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    own = model.generation_config.eos_token_id
    found = [tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])]
    ends = list(dict.fromkeys(token for token in found if token is not None))
    if not ends:
        raise InputError(
            "evaluate.diversity: neither the tokenizer nor the model's generation_config.json has an eos token, so "
            "nothing says where an answer ends; name one of the tokens as eos_token in tokenizer_config.json"
        )
    return ends
