"""How and where steps are computed: nothing here changes what they compute."""

from typing import Literal

from forgetting_core.config.fields import Config, Positive


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
    work_dir: str | None = None
    """Scratch space; null: below the state directory."""

    @property
    def smaller_micro_batch(self) -> int | None:
        """What to try when memory runs out; None after a single row."""
        return 2 if isinstance(self.micro_batch, str) else self.micro_batch // 2 or None
