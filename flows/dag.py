"""The DAG, once: what every step reads, for whoever walks it.

`forgetting run` walks it by submitting Prefect tasks, `forgetting plan` by looking fingerprints up. Each step is
handed its own sub-configs only, so scoring cannot see ρ.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol

from forgetting_core.config import (
    BenchmarkConfig,
    Config,
    ExecutionIdentity,
    ForgetConfig,
    IgnoreConfig,
    ModelSource,
    PartitionConfig,
    Recipe,
    SftConfig,
    TrainingConfig,
    identity,
)
from forgetting_core.evaluation import DIVERSITY, HELD_OUT
from infra.sources import Ref, Unresolved
from tasks.compare import COMPARE
from tasks.evaluate import EVALUATE, HeldOutConfig, SampledConfig, label_of
from tasks.forget import FORGET
from tasks.partition import PARTITION
from tasks.prepare import PREPARE
from tasks.reference import REFERENCE
from tasks.report import METRICS_PREFIX, REPORT
from tasks.score import SCORE
from tasks.spec import StepCall
from tasks.split import SPLIT

SPECS = {
    spec.name: spec for spec in (PREPARE, SPLIT, REFERENCE, SCORE, PARTITION, FORGET, EVALUATE, REPORT, COMPARE)
}
"""Every kind of step by its name."""
AnyObjective = ForgetConfig | IgnoreConfig | SftConfig


class Harness(Config):
    """Part of identity where there are benchmarks: a new harness may ask differently."""

    version: str


@dataclass(frozen=True)
class Node:
    """A step of the DAG as its walker knows it (a Prefect future, a plan); `node[part]` is one of its outputs."""

    handle: Any
    part: str | None = None

    def __getitem__(self, part: str) -> "Node":
        """One part of the step's artifact."""
        return Node(self.handle, part)


Input = Node | Ref | Unresolved | None


class Walker(Protocol):
    """What the DAG needs of whoever walks it."""

    def step(self, call: StepCall, inputs: Mapping[str, Input]) -> Node:
        """One step with its inputs."""

    def model(self, source: ModelSource, field: str, *, code: bool) -> Ref | Unresolved:
        """A model that the recipe names: weights, config, tokenizer, and its own code where that is trusted."""

    def tokenizer(self, source: ModelSource, field: str) -> Ref | Unresolved:
        """The tokenizer files of such a model."""

    def data(self, recipe: Recipe, field: str) -> Ref | Unresolved | None:
        """The raw data files under `data.train` or `data.reference`."""

    def tasks(self, recipe: Recipe, task: str) -> Ref | Unresolved | None:
        """The local files that one of `evaluate.tasks` reads."""


def walk(recipe: Recipe, to: Walker, *, upstream_only: bool = False) -> None:
    """Visit every step in an order in which inputs come first; on request only as far as the scores."""
    base, tokenizer, raw, trusted, benchmarks = _sources(recipe, to)
    named = recipe.reference.model
    code = recipe.execution.trust_remote_code
    reference: Input = to.model(named, "reference.model", code=code) if named else None
    shared = _execution_identity(recipe)

    split = to.step(
        StepCall("split", SPLIT, {"data": recipe.data, "split": recipe.split, **shared}),
        {"train": raw, "reference": trusted, "tokenizer": tokenizer},
    )
    train = split["train"]

    if reference is None:
        reference = to.step(
            StepCall("reference", REFERENCE, {"reference": recipe.reference, **shared}),
            {
                "base": base,
                "data": split["reference"],
                "validation": split["validation"] if recipe.reference.eval_steps else None,
            },
        )

    score = {"score": recipe.score, **shared}
    loss_base = to.step(StepCall("score[base]", SCORE, score), {"base": base, "data": train})
    loss_reference = to.step(
        StepCall("score[reference]", SCORE, score), {"base": base, "checkpoint": reference, "data": train}
    )
    if upstream_only:
        return

    token_labels = {
        name: to.step(
            StepCall(_label("partition", name), PARTITION, {"partition": config}),
            {
                "loss_base": loss_base,
                "loss_reference": loss_reference,
                "data": train if config.labelling == "oracle_noise" else None,
            },
        )
        for name, config in _partitions(recipe).items()
    }

    checkpoints: dict[str, Input] = {"reference": reference, "base": None}
    for name, objective in _fine_tunes(recipe).items():
        labelled = not isinstance(objective, SftConfig)
        bounded = isinstance(objective, ForgetConfig) and objective.negative == "npo"
        checkpoints[name] = to.step(
            StepCall(
                _label("forget", name), FORGET, _training_config(recipe, objective), delivered=name == "forget"
            ),
            {
                "base": base,
                "data": train,
                "token_labels": token_labels.get(name, token_labels["partition"]) if labelled else None,
                "loss_base": loss_base if bounded else None,
                "validation": split["validation"] if objective.eval_steps else None,
            },
        )

    evaluations = _evaluations(recipe, to, benchmarks, split["validation"])
    metrics = {
        f"{name},{task}": to.step(
            StepCall(label_of(name, task), EVALUATE, {**config, **shared}, delivered=True),
            {"base": base, "checkpoint": checkpoints[name], **inputs},
        )
        for name in models_of(recipe)
        for task, (config, inputs) in evaluations.items()
    }
    to.step(
        StepCall("report", REPORT, {"recipe": recipe}, delivered=True),
        {
            "data": train,
            "tokenizer": tokenizer,
            "loss_base": loss_base,
            "loss_reference": loss_reference,
            "token_labels": token_labels["partition"],
            **{f"{METRICS_PREFIX}{name}": node for name, node in metrics.items()},
        },
    )


def models_of(recipe: Recipe) -> tuple[str, ...]:
    """The models that are evaluated, the recipe's own last."""
    return (*recipe.baselines, "forget")


def _sources(recipe: Recipe, to: Walker) -> tuple[Input, Input, Input, Input, Input]:
    """(base model, its tokenizer, raw train data, raw reference data, the synthetic benchmark's files)."""
    if recipe.synthetic is not None:
        made = to.step(StepCall("prepare", PREPARE, {"synthetic": recipe.synthetic}), {})
        return made["base"], made["base"], made["train"], made["reference"], made["tasks"]
    assert recipe.model is not None  # validated
    return (
        to.model(recipe.model, "model", code=recipe.execution.trust_remote_code),
        to.tokenizer(recipe.model, "model"),
        to.data(recipe, "train"),
        to.data(recipe, "reference"),
        None,
    )


def _partitions(recipe: Recipe) -> dict[str, PartitionConfig]:
    """The labels by name: the recipe's own, `partition`, and those that only the fine-tune of their name reads."""
    labels = {"partition": recipe.partition}
    if "random" in recipe.baselines:
        labels["random"] = recipe.partition.model_copy(update={"labelling": "random"})
    return labels


def _fine_tunes(recipe: Recipe) -> dict[str, AnyObjective]:
    """The fine-tunes by name: the baselines share every training setting with the recipe's own objective."""
    own = recipe.forget
    shared: dict[str, Any] = {name: getattr(own, name) for name in TrainingConfig.model_fields}
    shared["normalization"] = own.normalization
    forget = own if isinstance(own, ForgetConfig) else ForgetConfig(**shared)
    baselines: dict[str, AnyObjective] = {
        "sft": SftConfig(objective="sft", **shared),
        "ignore": IgnoreConfig(objective="ignore", **shared),
        "npo": forget.model_copy(update={"negative": "npo"}),
        "random": own,
    }
    return {**{name: baselines[name] for name in recipe.baselines if name in baselines}, "forget": own}


def _training_config(recipe: Recipe, objective: AnyObjective) -> dict[str, Config]:
    micro_batch = None
    if objective.normalization == "microbatch":
        assert isinstance(recipe.execution.micro_batch, int)  # validated
        micro_batch = recipe.execution.micro_batch
    return {"forget": objective, **_execution_identity(recipe, micro_batch)}


def _execution_identity(recipe: Recipe, micro_batch: int | None = None) -> dict[str, Config]:
    """What the steps that load a model are handed of `execution`; nothing where none of it changes results."""
    shared = ExecutionIdentity(micro_batch=micro_batch, trust_remote_code=recipe.execution.trust_remote_code)
    return {"execution": shared} if identity(shared) else {}


def _evaluations(
    recipe: Recipe, to: Walker, benchmarks: Input, validation: Node
) -> dict[str, tuple[dict[str, Config], dict[str, Input]]]:
    """{what a model is evaluated on: (the step's config, what it reads beside the model)}."""
    config = recipe.evaluate
    benchmark = BenchmarkConfig(**{name: getattr(config, name) for name in BenchmarkConfig.model_fields})
    found: dict[str, tuple[dict[str, Config], dict[str, Input]]] = {
        task: (
            {
                "evaluate": benchmark.model_copy(update={"tasks": [task]}),
                "harness": Harness(version=version("lm_eval")),
            },
            {"tasks": benchmarks or to.tasks(recipe, task)},
        )
        for task in config.tasks
    }
    if recipe.split.validation_rows:
        found[HELD_OUT] = ({"evaluate": HeldOutConfig(dtype=config.dtype)}, {"validation": validation})
    if config.diversity is not None:
        sampled = SampledConfig(dtype=config.dtype, diversity=config.diversity)
        found[DIVERSITY] = ({"evaluate": sampled}, {"validation": validation})
    return found


def _label(step: str, model: str) -> str:
    return step if step == model else f"{step}[{model}]"
