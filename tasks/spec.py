"""A step as frozen data: what it is called, what it sees, what it computes.

No Prefect and no torch here: the planner reads it.
`StepSpec` is the kind of step ("score"), `StepCall` one use of it in the DAG ("score[base]").
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forgetting_core.config import Config, ExecutionConfig, identity
from forgetting_core.progress import Progress
from infra.fingerprint import CODE_KEY
from infra.plan import Reason
from infra.sources import Kind, Ref
from tasks.child import Job, Summary


@dataclass(frozen=True)
class StepSpec:
    """One kind of step."""

    name: str
    """In the fingerprint and in the store."""
    version: int
    """In the fingerprint; raised by hand when the step's results would change."""
    compute: Callable[[Job, Progress], Summary]
    """Runs in a process of its own; a module-level function."""
    kind: Kind = "data"
    """What the artifact is, for the lineage."""
    parts: tuple[str, ...] = ()
    """Sub-folders that are outputs of their own; a step may leave one out."""
    part_kinds: dict[str, Kind] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    """Inputs that the step can do without."""
    shards: "Callable[[StepCall, Path, ExecutionConfig], list[StepCall]] | None" = None
    """Cuts a call whose input `data` is in a folder; see `tasks.shards`."""
    trains: bool = False
    """Whether it is a fine-tune: `execution.processes` ranks compute it, and its checkpoints are kept meanwhile."""
    about_run: bool = False
    """Whether the computation is told about the run that it is in: `Job.facts`."""
    on_device: bool = False
    """Whether it computes on `execution.device`, a GPU where there is one."""


@dataclass(frozen=True)
class StepCall:
    """One step of the DAG: its label, and its own sub-configs only, keyed by their place in the recipe."""

    label: str
    spec: StepSpec
    config: Mapping[str, Config] = field(default_factory=dict)
    delivered: bool = False
    """Whether a run leaves the artifact in the store even when no other step needs it."""
    code: str | None = None
    """Digest of the step's source, where that is part of identity beside the version."""

    @property
    def identity(self) -> dict[str, Any]:
        """What the configs, and the code if it is asked for, contribute to the fingerprint."""
        configs = {name: identity(value) for name, value in self.config.items()}
        return configs if self.code is None else {**configs, CODE_KEY: self.code}


@dataclass(frozen=True)
class StepResult:
    """A finished step: what the flow hands from task to task."""

    label: str
    step: str
    """Name of the step's kind, which its commit is filed under."""
    state: str
    """`cached`, `ran`, or `evicted`: cached, but its artifact is gone and nothing has needed it yet."""
    fingerprint: str
    ref: Ref
    parts: dict[str, Ref]
    summary: Summary
    seconds: float
    """What computing took, in this run or in the one that did it."""
    code_changes: list[Reason] = field(default_factory=list)
    """What of the code has changed since a cached step was computed."""

    def output(self, part: str | None) -> Ref | None:
        """The whole artifact, or one of its parts; None for a part that the step left out."""
        return self.ref if part is None else self.parts.get(part)
