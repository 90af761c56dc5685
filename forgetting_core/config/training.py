"""The fine-tunes: of the reference model, and the objectives that the labels serve."""

from typing import Annotated, Literal

from pydantic import Field

from forgetting_core.config.data import ModelSource
from forgetting_core.config.fields import AbsentWhen, AbsentWhenNull, Config, Dtype, Positive, Ratio, Seed


class LoraConfig(Config):
    """LoRA on all linear layers of attention and MLP."""

    r: Positive = 64
    alpha: Annotated[float, Field(gt=0)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


class TrainingConfig(Config):
    """One fine-tune. Defaults are the published settings (arXiv 2508.04329, appendix)."""

    mode: Literal["lora", "full"] = "lora"
    lora: LoraConfig = LoraConfig()
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """After warm-up: linear or cosine to 0, or constant."""
    warmup_ratio: Ratio = 0.03
    """Warm-up takes int(total steps · ratio) optimizer steps."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] | None = None
    """Null: gradients are not clipped."""
    epochs: Positive = 1
    rows_per_step: Positive = 24
    """Rows of one optimizer step, over all micro-batches and processes."""
    order: Literal["shuffled", "file"] = "shuffled"
    seed: Seed = 42
    dtype: Dtype = "bfloat16"
    """Of the computation. LoRA keeps adapters, full fine-tuning keeps all weights in float32 meanwhile."""
    eval_steps: Annotated[Positive | None, AbsentWhenNull] = None
    """Optimizer steps between two measurements of the validation rows' loss, which also begin and end the training;
    null: none. They change no weight, but cost a forward pass over these rows each."""


class ReferenceConfig(TrainingConfig):
    """The reference model: trained on the reference split, or named when it exists already."""

    model: ModelSource | None = None


class LambdaConfig(Config):
    """λ, the weight of forgetting, over training (design: linear from t_min to t_max)."""

    schedule: Literal["linear", "published", "constant", "cosine"] = "linear"
    t_min: Annotated[float, Field(ge=0)] = 1e-5
    t_max: Annotated[float, Field(ge=0)] = 0.25


class _Selective(TrainingConfig):
    normalization: Literal["step", "microbatch"] = "step"
    """`step`: means over the optimizer step. `microbatch`: the published code's means per micro-batch."""


class ForgetConfig(_Selective):
    """Raise the likelihood of positive tokens, lower that of negative ones."""

    objective: Literal["forget"] = "forget"
    lambda_: LambdaConfig = Field(LambdaConfig(), alias="lambda")
    negative: Literal["ascent", "npo", "unlikelihood"] = "ascent"
    """`ascent`: gradient ascent, unbounded. Bounded: `npo`, token-level negative preference optimisation, and
    `unlikelihood`, −log(1−p) instead of log p."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """β of `npo`; without effect on the others."""
    stop_when_diverging: Annotated[bool, AbsentWhen(False)] = False
    """Whether `ascent` that runs away, by the rule of the report's warning, ends the training with an error, not
    with a warning alone. A training that completes has the same weights with and without."""


class IgnoreConfig(_Selective):
    """Train on the positive tokens only."""

    objective: Literal["ignore"]


class SftConfig(_Selective):
    """Train on every response token; reads no labels."""

    objective: Literal["sft"]


Objective = Annotated[ForgetConfig | IgnoreConfig | SftConfig, Field(discriminator="objective")]
Baseline = Literal["base", "sft", "ignore", "reference", "npo", "random"]
"""`npo` forgets with `negative: npo`; `random` trains by the recipe's own objective, on labels drawn at random."""
