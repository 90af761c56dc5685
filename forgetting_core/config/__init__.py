"""The recipe: one experiment, everything pinned.

Every field is part of the identity of the steps that see it, unless it carries the marker `Execution`
(how and where a step is computed, or a path whose *content* enters the identity instead) or has the value that its
marker `AbsentWhen` names. A forgotten marker costs a re-run, never a stale result.
"""

from forgetting_core.config.data import DataConfig, DataSources, HubData, ModelSource, SplitConfig
from forgetting_core.config.evaluate import BenchmarkConfig, DiversityConfig, EvaluateConfig
from forgetting_core.config.execution import ExecutionConfig, ExecutionIdentity
from forgetting_core.config.fields import (
    AbsentWhen,
    AbsentWhenNull,
    Config,
    Count,
    Dtype,
    Execution,
    Nats,
    Positive,
    Ratio,
    Seed,
    Share,
    canonical_nats,
    canonical_share,
    identity,
)
from forgetting_core.config.partition import PartitionConfig, ScoreConfig
from forgetting_core.config.recipe import Recipe
from forgetting_core.config.synthetic import PretrainConfig, SyntheticConfig
from forgetting_core.config.training import (
    Baseline,
    ForgetConfig,
    IgnoreConfig,
    LambdaConfig,
    LoraConfig,
    Objective,
    ReferenceConfig,
    SftConfig,
    TrainingConfig,
)

__all__ = [
    "AbsentWhen",
    "AbsentWhenNull",
    "Baseline",
    "BenchmarkConfig",
    "Config",
    "Count",
    "DataConfig",
    "DataSources",
    "DiversityConfig",
    "Dtype",
    "EvaluateConfig",
    "Execution",
    "ExecutionConfig",
    "ExecutionIdentity",
    "ForgetConfig",
    "HubData",
    "IgnoreConfig",
    "LambdaConfig",
    "LoraConfig",
    "ModelSource",
    "Nats",
    "Objective",
    "PartitionConfig",
    "Positive",
    "PretrainConfig",
    "Ratio",
    "Recipe",
    "ReferenceConfig",
    "ScoreConfig",
    "Seed",
    "SftConfig",
    "Share",
    "SplitConfig",
    "SyntheticConfig",
    "TrainingConfig",
    "canonical_nats",
    "canonical_share",
    "identity",
]
