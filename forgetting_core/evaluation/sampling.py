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

from forgetting_core.config import DiversityConfig
from forgetting_core.errors import InputError, NumericalError
from forgetting_core.evaluation.diversity_metrics import Answer
from forgetting_core.models import causal_lm, context_length


class Sampler:
    """Draws the answers to one prompt after the other.

    All answers to a prompt are one batch, with a seed of its own and without padding: they do not depend on what
    else is drawn, nor on a micro-batch.
    """

    def __init__(
        self, config: DiversityConfig, model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        """Raises `InputError` when the model has no room for a prompt, or nothing says where an answer ends."""
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
            do_sample=True,
            temperature=config.temperature,
            top_k=0,
            top_p=1.0,
            num_return_sequences=config.samples,
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
        input_ids = torch.from_numpy(kept.astype(np.int64))[None].to(self._model.device)
        gpus = [self._model.device] if self._model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=gpus):
            torch.manual_seed(seed)
            generated = self._model.generate(
                input_ids,
                attention_mask=torch.ones_like(input_ids),
                generation_config=self._config,
                logits_processor=LogitsProcessorList([_Finite()]),
            )
        return [self._answer(tokens) for tokens in generated[:, len(kept) :].tolist()]

    def _answer(self, tokens: list[int]) -> Answer:
        end = next((place for place, token in enumerate(tokens) if token in self.ends), len(tokens))
        text = self._tokenizer.decode(tokens[:end], skip_special_tokens=True)
        return Answer(str(text), tuple(tokens[:end]))


class _Finite(LogitsProcessor):  # type: ignore[misc]
    """Refuses logits that torch would fail to draw from, on a GPU without saying why."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores` (B, V) as they are."""
        if not bool((scores < math.inf).all()):
            raise NumericalError(
                "evaluate.diversity: the model's logits are not finite, so nothing can be drawn from them; the "
                "fine-tune may have diverged: look at its losses, lower its learning rate or forget.lambda.t_max"
            )
        return scores


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
