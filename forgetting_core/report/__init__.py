"""The step `report`: one self-contained HTML page about a run, and the numbers behind it.

`scored_split` reads the artifacts, `statistics` and `benchmarks` count, `warnings` judges, `advice` says what to
change, `token_text` makes tokens readable, `charts` draws, `page` puts it together.
"""

from forgetting_core.report.page import write_report

__all__ = ["write_report"]
