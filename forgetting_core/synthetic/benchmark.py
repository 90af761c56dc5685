"""The held-out questions as a task of lm-evaluation-harness: greedy answers, exact match.

The context is the prompt of the rows, newline included, so the harness tokenises it as `template: plain` does; what
is generated starts right at the answer and ends with its end token.
"""

import json
from pathlib import Path

from forgetting_core.synthetic.skills import clean_answer, read_prompt

TASK_NAME = "skills"
_TEST_FILE = "skills_test.jsonl"
_TASK = rf"""task: {TASK_NAME}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {_TEST_FILE}  # beside this file
output_type: generate_until
test_split: test
doc_to_text: prompt
doc_to_target: answer
target_delimiter: ""
generation_kwargs:
  until: ["\n"]
  do_sample: false
  max_gen_toks: 24
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
    regexes_to_ignore: ['^\s+', '\s+$']
metadata:
  version: 1.0
"""


def write_benchmark(prompts: list[str], folder: Path) -> None:
    """Write the task's YAML and its questions: `prompt`, `answer`, `source` (the skill)."""
    folder.mkdir(parents=True)
    (folder / f"{TASK_NAME}.yaml").write_text(_TASK, encoding="utf-8")
    rows = ({"prompt": p, "answer": clean_answer(p), "source": read_prompt(p)[0].name} for p in prompts)
    lines = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
    (folder / _TEST_FILE).write_text(lines, encoding="utf-8")
