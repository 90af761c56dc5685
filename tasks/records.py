"""How a finished step looks to others: the result that the flow hands on, and what the lineage writes down."""

from typing import Any

from forgetting_core.metrics_file import METRICS_FILE
from infra.commits import Commit
from infra.lineage import Produced
from infra.lineage_runs import PROVENANCE_TAGS
from infra.plan import flatten
from infra.sources import Ref
from tasks.spec import StepCall, StepResult

CURVES_FILE = f"aux/{METRICS_FILE}"
"""In a checkpoint's artifact."""
MODEL_INPUTS = {"base", "checkpoint", "tokenizer"}
"""Names of the steps' inputs that are models; a commit does not tell."""


def result_of(call: StepCall, commit: Commit, state: str) -> StepResult:
    """What the flow hands on."""
    spec = call.spec
    parts = {
        name: Ref(commit.output_uri(name), output.digest, spec.part_kinds.get(name, "data"))
        for name, output in commit.outputs.items()
    }
    ref = Ref(commit.uri, commit.digest, spec.kind)
    seconds = float(commit.provenance["seconds"])
    return StepResult(call.label, spec.name, state, commit.fingerprint, ref, parts, commit.summary, seconds)


def produced_of(inputs: dict[str, Ref]) -> list[Produced]:
    """A step's inputs for the lineage."""
    return [Produced(name, ref.kind, ref.uri, ref.digest, ref.files) for name, ref in inputs.items()]


def inputs_of(commit: Commit) -> list[Produced]:
    """The same of a step that has run, from its commit."""
    return [
        Produced(
            name,
            "model" if name in MODEL_INPUTS else "data",
            item.uri or "",
            item.digest,
            tuple(item.files.items()),
        )
        for name, item in commit.inputs.items()
    ]


def outputs_of(result: StepResult) -> list[Produced]:
    """A step's outputs for the lineage: its parts, or else the whole."""
    named = result.parts or {"checkpoint" if result.ref.kind == "model" else result.label: result.ref}
    return [Produced(name, ref.kind, ref.uri, ref.digest) for name, ref in named.items()]


def tags_of(commit: Commit) -> dict[str, Any]:
    """What of a commit is no input and no output: the artifact as a whole, and how it came about."""
    told = {name: commit.provenance.get(name) for name in PROVENANCE_TAGS}
    return {"artifact.uri": commit.uri, "artifact.digest": commit.digest, **told}


def params_of(call: StepCall) -> dict[str, Any]:
    """The step's identity config as flat MLflow params, such as `partition.rho`."""
    return flatten(call.identity)


def mirror_of(call: StepCall) -> str:
    """What is put before the names of the step's curves on the pipeline run, so that two trainings do not mix.

    The main fine-tune's keep their plain names, so that a sweep overlays them.
    """
    return "" if call.label == "forget" else f"{call.label}/"


def numbers(summary: Any, prefix: str = "") -> dict[str, float]:
    """The numbers of a summary as flat MLflow metrics, such as `rows/train`."""
    if isinstance(summary, dict):
        return {
            key: value
            for name, item in summary.items()
            for key, value in numbers(item, f"{prefix}/{name}" if prefix else name).items()
        }
    if isinstance(summary, int | float) and not isinstance(summary, bool):
        return {prefix: float(summary)}
    return {}
