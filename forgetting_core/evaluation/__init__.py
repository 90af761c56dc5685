"""Evaluation: benchmarks through lm-evaluation-harness, and the loss on held-out rows.

`evaluate` is the step, `local_tasks` says which files it will read. This file imports nothing, so that the planner
can ask the latter without waiting for torch and the harness.
"""
