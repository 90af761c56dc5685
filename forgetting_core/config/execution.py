"""How and where steps are computed: nothing here changes what they compute."""

from typing import Annotated, Literal

from forgetting_core.config.fields import AbsentWhen, AbsentWhenNull, Config, Positive


class ExecutionConfig(Config):
    """How and where steps are computed. Never part of identity."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    micro_batch: Positive | Literal["auto"] = "auto"
    """Rows of one forward and backward pass; `auto`: cut by a budget of tokens."""
    processes: Positive = 1
    """Ranks of a fine-tune: one per GPU."""
    sharding: Literal["none", "fsdp"] = "none"
    """`fsdp` spreads the model over the ranks; `none` gives each a replica."""
    score_shards: Positive = 1
    """Parts of a split that are scored and committed on their own, by any number of hosts."""
    gradient_checkpointing: bool = False
    concurrent_steps: Positive = 1
    """Computing steps at the same time on this host; 2 scores base and reference side by side."""
    checkpoint_every: Positive = 100
    """Optimizer steps between training checkpoints."""
    trust_remote_code: bool = False
    """Whether code that a model brings along is run, as transformers means it: of this recipe's models alone, and
    only what lies in their folders. Read it first; it is part of the model's identity then, and so recorded."""
    work_dir: str | None = None
    """Scratch space; null: below the state directory."""

    @property
    def smaller_micro_batch(self) -> int | None:
        """What to try when memory runs out; None after a single row."""
        return 2 if isinstance(self.micro_batch, str) else self.micro_batch // 2 or None


class ExecutionIdentity(Config):
    """What of `ExecutionConfig` does change results, and so is part of identity where it does."""

    micro_batch: Annotated[Positive | None, AbsentWhenNull] = None
    """Where the published normalisation depends on it."""
    trust_remote_code: Annotated[bool, AbsentWhen(False)] = False
    """Where a model may compute by code of its own."""
