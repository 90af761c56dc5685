"""Fixtures that several tests of the command line share."""

from tests.unit.flows.lineage_world import lineage, original, recorded_here, world

__all__ = ["lineage", "original", "recorded_here", "world"]
