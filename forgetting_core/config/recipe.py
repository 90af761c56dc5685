"""The recipe itself: its sections, and what must agree between them."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from forgetting_core.config.data import DataConfig, ModelSource, SplitConfig
from forgetting_core.config.evaluate import EvaluateConfig
from forgetting_core.config.execution import ExecutionConfig
from forgetting_core.config.fields import Config, Execution
from forgetting_core.config.partition import PartitionConfig, ScoreConfig
from forgetting_core.config.synthetic import SyntheticConfig
from forgetting_core.config.training import Baseline, ForgetConfig, Objective, ReferenceConfig


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
    baselines: list[Baseline] = Field(default_factory=list)
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

    @model_validator(mode="after")
    def _validation_rows_where_they_are_needed(self) -> "Recipe":
        if self.split.validation_rows:
            return self
        if self.evaluate.diversity is not None:
            raise ValueError(
                "evaluate.diversity needs the prompts of validation rows, and split.validation_rows is 0; set that "
                f"to {self.evaluate.diversity.prompts} or more, or evaluate.diversity to null"
            )
        for name, training in (("reference", self.reference), ("forget", self.forget)):
            if training.eval_steps is not None:
                raise ValueError(
                    f"{name}.eval_steps: {training.eval_steps} has no rows to measure the loss of; set "
                    "split.validation_rows, such as 100, or leave eval_steps out"
                )
        return self
