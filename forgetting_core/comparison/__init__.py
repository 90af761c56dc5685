"""Models compared over training seeds: on the same items, from the same start, with the error of what differs.

`items` reads what each model scored item by item, `paired` estimates differences, `table` makes the comparison of
it, `page` and `charts` show it.
"""

from forgetting_core.comparison.paired import Difference, paired_difference

COMPARISON_FILE = "comparison.json"
PAGE_FILE = "comparison.html"

__all__ = ["COMPARISON_FILE", "PAGE_FILE", "Difference", "paired_difference"]
