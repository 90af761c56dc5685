"""The recipe: one experiment, everything pinned.

Every field is part of the identity of the steps that see it, unless it carries the marker `Execution`
(how and where a step is computed, or a path whose *content* enters the identity instead). A forgotten marker
costs a re-run, never a stale result.
"""

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from forgetting_core.evaluation import RESERVED


class Execution:
    """Marks a field that does not change what a step computes: `Annotated[T, Execution]`."""


class Config(BaseModel):
    """Base of all configs: immutable, unknown keys refused.

    Defaults are validated like any value, so that `alpha: 16`, left out or written down, is the same 16.0.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False, validate_default=True
    )


def identity(value: Any) -> Any:
    """Plain JSON data of `value` without its `Execution` fields: what enters a fingerprint."""
    if isinstance(value, BaseModel):
        return {
            info.alias or name: identity(getattr(value, name))
            for name, info in type(value).model_fields.items()
            if Execution not in info.metadata
        }
    if isinstance(value, list | tuple):
        return [identity(item) for item in value]
    if isinstance(value, dict):
        return {key: identity(item) for key, item in value.items()}
    return value


def canonical_share(value: object) -> str:
    """`0.70`, `"0.7"` and `7e-1` all become `"0.7"`; anything outside [0, 1] is refused."""
    return _canonical(value, range(2), "expected a number from 0 to 1, such as 0.7")


def canonical_nats(value: object) -> str:
    """`0`, `0.0` and `-0` all become `"0"`; what cannot be a difference of two losses is refused."""
    return _canonical(value, range(-1000, 1001), "expected a number of nats from -1000 to 1000, such as 0 or -0.25")


def _canonical(value: object, bounds: range, expected: str) -> str:
    try:
        if isinstance(value, bool):
            raise InvalidOperation
        number = Decimal(str(value).strip())
    except InvalidOperation:
        raise ValueError(expected) from None
    if not number.is_finite() or not bounds[0] <= number <= bounds[-1]:
        raise ValueError(expected)
    return format(number.normalize() if number else Decimal(0), "f")


def _or_null(canonical: Callable[[object], str]) -> BeforeValidator:
    return BeforeValidator(lambda value: None if value is None else canonical(value))


Share = Annotated[str | None, _or_null(canonical_share)]
"""A decimal in [0, 1], kept as its shortest decimal string: exact, and `0.7` and `0.70` agree."""
Nats = Annotated[str | None, _or_null(canonical_nats)]
"""A decimal likewise."""
Dtype = Literal["float32", "bfloat16", "float64"]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Ratio = Annotated[float, Field(ge=0, le=1)]


class ModelSource(Config):
    """A Hugging Face model: a local folder, an `s3://` folder, or a hub id at a revision."""

    path: Annotated[str, Execution]
    """Where it is. The digest of its weight, config and tokenizer files is its identity."""
    revision: Annotated[str | None, Execution] = None
    """Commit, tag or branch of a hub id; the commit it resolves to is recorded."""


class HubData(Config):
    """A data set of the hub at a pinned revision."""

    hub: Annotated[str, Execution]
    revision: Annotated[str, Execution]
    split: Annotated[str, Execution] = "train"
    name: Annotated[str | None, Execution] = None


DataSources = Annotated[list[str | HubData], Field(min_length=1)]


class DataConfig(Config):
    """Raw instruction data and how a row becomes tokens."""

    train: Annotated[DataSources | None, Execution] = None
    """JSONL, JSON or Parquet files (`.gz` too), `s3://` URLs or hub data sets; their content is the identity."""
    reference: Annotated[DataSources | None, Execution] = None
    """Data for the reference model; null: carved out of `train`, disjoint."""
    template: Literal["tokenizer", "tulu", "plain"] = "tokenizer"
    """`tokenizer`: its own chat template."""
    max_length: Positive = 2048
    """Rows are cut to this many tokens."""


class SplitConfig(Config):
    """How many rows go where. Rows are chosen by seed and stored in source order; null: all that is left."""

    train_rows: Positive | None = None
    reference_rows: Count | None = None
    validation_rows: Count = 0
    seed: int = 42


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
    seed: int = 42
    dtype: Dtype = "bfloat16"
    """Of the computation. LoRA keeps adapters, full fine-tuning keeps all weights in float32 meanwhile."""


class ReferenceConfig(TrainingConfig):
    """The reference model: trained on the reference split, or named when it exists already."""

    model: ModelSource | None = None


class ScoreConfig(Config):
    """How token losses are computed."""

    dtype: Dtype = "bfloat16"
    block_rows: Positive = 512
    """Rows are batched only within blocks of this size, so that any number of workers gives the same bytes."""


class PartitionConfig(Config):
    """Which tokens are positive: a share `rho` (0.7 when nothing is said), or those from a `threshold` up."""

    rho: Share = "0.7"
    """Share of response tokens called positive: the k = ⌊ρ·N⌋ of highest influence. Null with a threshold."""
    threshold: Nats = None
    """Instead of `rho`: the k tokens whose influence is at least this many nats are positive."""
    scope: Literal["corpus", "row"] = "corpus"
    """Rank over the whole corpus, or within each row."""
    labelling: Literal["influence", "random", "loss_only", "oracle_noise"] = "influence"
    """`influence` is the method, the others are controls. `random`: as many positives, drawn by seed. `loss_only`:
    as many, those of highest base loss; the reference is left out. `oracle_noise`: planted noise is negative, the
    rest positive, whatever `rho`; only for data that say what is noise."""
    seed: int = 42
    """Of the `random` labelling."""

    @model_validator(mode="before")
    @classmethod
    def _threshold_instead_of_default_rho(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("threshold") is not None and "rho" not in data:
            return {**data, "rho": None}
        return data

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if (self.rho is None) == (self.threshold is None):
            given = "neither" if self.rho is None else f"both rho {self.rho} and threshold {self.threshold}"
            raise ValueError(f"has {given}; give exactly one of rho (a share) and threshold (nats), null the other")
        return self

    @property
    def rule(self) -> str:
        """How positives are chosen, for people: `ρ=0.7`, `threshold=0`, `ρ=0.7 random`, `oracle_noise`."""
        if self.labelling == "oracle_noise":
            return self.labelling
        chosen = f"ρ={self.rho}" if self.rho is not None else f"threshold={self.threshold}"
        return chosen if self.labelling == "influence" else f"{chosen} {self.labelling}"

    @property
    def has_common_threshold(self) -> bool:
        """Whether one value of influence separates all positive tokens from all negative ones, ties apart."""
        return self.labelling == "influence" and (self.scope == "corpus" or self.threshold is not None)


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


class IgnoreConfig(_Selective):
    """Train on the positive tokens only."""

    objective: Literal["ignore"]


class SftConfig(_Selective):
    """Train on every response token; reads no labels."""

    objective: Literal["sft"]


Objective = Annotated[ForgetConfig | IgnoreConfig | SftConfig, Field(discriminator="objective")]
Baseline = Literal["base", "sft", "ignore", "reference", "npo", "random"]
"""`npo` forgets with `negative: npo`; `random` trains by the recipe's own objective, on labels drawn at random."""


class EvaluateConfig(Config):
    """Benchmarks, through lm-evaluation-harness. Held-out loss is measured when there are validation rows."""

    tasks: list[str] = []
    protocol: Literal["harness", "published"] = "harness"
    """`harness`: its defaults, greedy. `published`: as in the paper; `forgetting_core.evaluation.protocols`."""
    limit: Annotated[float, Field(gt=0)] | None = None
    """Items per task when at least 1, else a share of them; null: all, or what `published` took."""
    task_dir: Annotated[str | None, Execution] = None
    """Folder with local benchmark files or task YAMLs; null: the harness fetches from the hub."""
    dtype: Dtype = "bfloat16"
    seed: int | None = None
    """Of every draw, such as few-shot examples and sampled answers; null: the protocol's own."""

    @field_validator("tasks")
    @classmethod
    def _not_reserved(cls, tasks: list[str]) -> list[str]:
        for name in RESERVED:
            if name in tasks:
                raise ValueError(f"{name!r} is an entry of its own beside the benchmarks; rename the task")
        return tasks


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
    seed: int = 42

    @model_validator(mode="after")
    def _heads_divide_the_hidden_size(self) -> Self:
        if self.hidden_size % (2 * self.heads):
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of 2 · heads = {2 * self.heads}")
        return self


class Recipe(Config):
    """One experiment: what `forgetting run` takes."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=100)]
    """Of the experiment; groups runs in MLflow. Letters, digits, `-` and `_`. Only the report shows it."""
    synthetic: SyntheticConfig | None = None
    model: ModelSource | None = None
    data: DataConfig = DataConfig()
    split: SplitConfig = SplitConfig()
    reference: ReferenceConfig = ReferenceConfig()
    score: ScoreConfig = ScoreConfig()
    partition: PartitionConfig = PartitionConfig()
    baselines: list[Baseline] = []
    forget: Objective = ForgetConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    execution: Annotated[ExecutionConfig, Execution] = ExecutionConfig()

    @model_validator(mode="before")
    @classmethod
    def _default_objective(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("forget"), dict) and "objective" not in data["forget"]:
            return {**data, "forget": {"objective": "forget", **data["forget"]}}
        return data

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if self.synthetic is None:
            if self.model is None:
                raise ValueError("`model` is missing; name a folder, an s3:// folder or a hub id with a revision")
            if self.data.train is None:
                raise ValueError("`data.train` is missing; list instruction data files")
        elif self.model or self.data.train or self.data.reference or self.evaluate.task_dir:
            raise ValueError(
                "`synthetic` stands in for model, data.train, data.reference and evaluate.task_dir; remove those"
            )
        if len(set(self.baselines)) < len(self.baselines):
            raise ValueError(f"baselines: {', '.join(self.baselines)}; name each one once")
        if "random" in self.baselines and self.forget.objective == "sft":
            raise ValueError("baselines: `random` needs an objective that reads labels; `sft` reads none")
        if self.split.reference_rows == 0 and self.reference.model is None:
            raise ValueError("split.reference_rows: 0 leaves nothing to train a reference on; name reference.model")
        if self.forget.normalization == "microbatch":
            size = self.execution.micro_batch
            if isinstance(size, str) or self.forget.rows_per_step % size:
                raise ValueError(
                    f"forget.normalization `microbatch` needs execution.micro_batch to be a divisor of "
                    f"forget.rows_per_step = {self.forget.rows_per_step}, not {size!r}"
                )
        return self
