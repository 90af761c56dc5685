"""The outside world: object store, lineage, launching, settings. Knows nothing of the method."""
