"""What the models are measured by."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from forgetting_core.config.fields import Config, Dtype, Execution, Positive, Seed
from forgetting_core.evaluation import RESERVED


class BenchmarkConfig(Config):
    """Benchmarks, through lm-evaluation-harness."""

    tasks: list[str] = Field(default_factory=list)
    protocol: Literal["harness", "published"] = "harness"
    """`harness`: its defaults, greedy. `published`: as in the paper; `forgetting_core.evaluation.protocols`."""
    limit: Annotated[float, Field(gt=0)] | None = None
    """Items per task when at least 1, else a share of them; null: all, or what `published` took."""
    task_dir: Annotated[str | None, Execution] = None
    """Folder with local benchmark files or task YAMLs; null: the harness fetches from the hub."""
    dtype: Dtype = "bfloat16"
    seed: Seed | None = None
    """Of every draw, such as few-shot examples and sampled answers; null: the protocol's own."""

    @field_validator("tasks")
    @classmethod
    def _not_reserved(cls, tasks: list[str]) -> list[str]:
        for name in RESERVED:
            if name in tasks:
                raise ValueError(f"{name!r} is an entry of its own beside the benchmarks; rename the task")
        return tasks


class DiversityConfig(Config):
    """Answers drawn from the model's own distribution, to the prompts of validation rows."""

    prompts: Positive = 64
    """Validation rows, drawn by seed; all of them where there are fewer."""
    samples: Positive = 4
    """Answers to each prompt; measures that compare them need two."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    max_new_tokens: Positive = 64
    seed: Seed = 42


class EvaluateConfig(BenchmarkConfig):
    """The benchmarks and, where it is set, diversity. Held-out loss is measured when there are validation rows."""

    diversity: DiversityConfig | None = None
