"""What a report tells about the run around it: states, times, curves, sibling runs.

None of it is content: the same artifacts come out of runs that computed, cached or swept differently. So it reaches
the report beside its inputs, and moves no fingerprint and no digest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

Metrics = Mapping[str, Mapping[str, float]]
"""{task: {metric: value}} of one model"""


@dataclass(frozen=True)
class StepFacts:
    """One step of the run, or something that the run was given."""

    label: str
    state: str
    """`ran`, `cached`, `evicted` or `given`."""
    digest: str
    """Of the content."""
    fingerprint: str | None = None
    """None for what was given."""
    seconds: float | None = None
    """What computing took, in this run or in the one that did it; None for what was given."""
    reads: tuple[str, ...] = ()
    """Labels of what it reads."""


@dataclass(frozen=True)
class SweepPoint:
    """A run that differs from others in ρ only."""

    rho: str
    metrics: Mapping[str, Metrics]
    """By model."""


@dataclass(frozen=True)
class RunFacts:
    """The run that a report is written in, as far as it has come by then."""

    flow_run_id: str = ""
    steps: tuple[StepFacts, ...] = ()
    """In an order in which inputs come first."""
    curves: Mapping[str, str | None] = field(default_factory=dict)
    """JSON lines of every fine-tune by its label; None where they are no longer in the store."""
    bad_rows: Mapping[str, int] = field(default_factory=dict)
    """How many rows of `data.train` and `data.reference` were skipped, by `train` and `reference`."""
    sweep: tuple[SweepPoint, ...] = ()
    """By ρ, this run's own point among them; fewer than two are no sweep."""
    runs_searched: int = 0
    """How many of the store's newest runs were searched for the sweep, at most."""
