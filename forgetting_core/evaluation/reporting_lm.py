"""The harness's Hugging Face model, made to report finished items and to stay quiet about everything else."""

import math
from collections.abc import Sequence
from typing import Any

from lm_eval.api.model import CacheHook
from lm_eval.models.huggingface import HFLM
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from forgetting_core.errors import InputError, NumericalError
from forgetting_core.progress import Progress

SHOWN = 60
"""Characters of an item in a message."""


class ReportingLM(HFLM):  # type: ignore[misc]
    """`HFLM` around a loaded model; its numbers are untouched.

    The harness tells its cache hook about each finished request. Here the hook tells `progress` instead, which is
    also where an interruption is heard.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        items: int,
        progress: Progress,
    ) -> None:
        """`items`: how many will be evaluated in all. Raises `InputError` for a tokenizer without bos and eos."""
        if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
            raise InputError(
                "evaluate: the tokenizer has neither a bos nor an eos token, and lm-evaluation-harness needs one; "
                "name one of its tokens as eos_token in tokenizer_config.json"
            )
        super().__init__(pretrained=model, tokenizer=tokenizer)
        self.set_cache_hook(_Finished(items, progress))

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """As `HFLM`."""
        self.cache_hook.expect(requests)
        return super().loglikelihood(requests, disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """As `HFLM`."""
        self.cache_hook.expect(requests)
        return super().loglikelihood_rolling(requests, disable_tqdm)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """As `HFLM`."""
        self.cache_hook.expect(requests)
        return super().generate_until(requests, disable_tqdm)

    def get_model_info(self) -> dict[str, Any]:
        """Nothing: `HFLM` would ask the hub about the model, and the artifact knows its digest already."""
        return {}


class _Finished(CacheHook):  # type: ignore[misc]
    """Counts finished requests in items: an item of a multiple choice is one request per choice."""

    def __init__(self, items: int, progress: Progress) -> None:
        super().__init__(None)
        self.progress = progress
        self.items = items
        self.seen: set[tuple[str, int]] = set()
        self.done_before = self.new_items = self.requests = self.finished = 0

    def expect(self, requests: Sequence[Any]) -> None:
        """A call with `requests` begins."""
        self.done_before = len(self.seen)
        self.seen |= {(request.task_name, request.doc_id) for request in requests}
        self.new_items = len(self.seen) - self.done_before
        self.requests, self.finished = len(requests), 0

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        """One request is finished. Raises `NumericalError` for a log-likelihood that is NaN: no choice is best."""
        likelihood = res[0] if attr == "loglikelihood" else res
        if attr != "generate_until" and math.isnan(likelihood):
            raise NumericalError(
                f"evaluate: the log-likelihood of an item of {len(self.seen)} is not finite (it begins "
                f"{str(req[0])[:SHOWN]!r}); try evaluate.dtype float32, and look at the losses of the fine-tune"
            )
        self.finished += 1
        done = self.done_before + self.new_items * self.finished / self.requests
        self.progress.advance(done, self.items, "items")
