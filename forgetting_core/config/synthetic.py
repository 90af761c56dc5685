"""The synthetic corpus and its base model, for recipes that need no download."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from forgetting_core.config.fields import Config, Positive, Ratio, Seed


class PretrainConfig(Config):
    """Training of the synthetic base model, on answers as careless as the training split's."""

    noise: Ratio = 0.3
    """Share of its answers' tokens that are planted noise: the base has the skills and the bad habits."""
    rows: Positive = 10000
    steps: Positive = 1000
    rows_per_step: Positive = 32
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3


class SyntheticConfig(Config):
    """A seeded corpus of small skills with planted noise, and a small Llama pretrained on other rows of it.

    Stands in for `model`, `data.train`, `data.reference` and `evaluate.task_dir`: no download.
    """

    noise: Ratio = 0.3
    """Share of the training split's response tokens that are planted noise."""
    reference_noise: Ratio = 0.0
    """The same for the reference data; 0: a small trusted set."""
    train_rows: Positive = 2400
    reference_rows: Positive = 600
    test_rows: Positive = 240
    """Held-out questions of the benchmark `skills`."""
    vocab_size: Annotated[int, Field(ge=257)] = 512
    """Tokens: 256 bytes, the end token, and merges."""
    hidden_size: Positive = 64
    layers: Positive = 2
    heads: Positive = 4
    """Attention heads; `hidden_size` is a multiple of twice their number."""
    pretrain: PretrainConfig = PretrainConfig()
    seed: Seed = 42

    @model_validator(mode="after")
    def _heads_divide_the_hidden_size(self) -> Self:
        if self.hidden_size % (2 * self.heads):
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of 2 · heads = {2 * self.heads}")
        return self
