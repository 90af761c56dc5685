"""Fixtures that several tests of the command line share."""

from tests.unit.flows.artifact_commands import artifacts, chain, folder, store
from tests.unit.flows.lineage_world import lineage, original, recorded_here, world

__all__ = ["artifacts", "chain", "folder", "lineage", "original", "recorded_here", "store", "world"]
