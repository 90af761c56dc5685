"""Rows that are sound JSON and no instruction: missing, wrong and contradicting fields, roles and texts."""

from pathlib import Path
from typing import Any

from benchmarks.input_faults.case import ROWS, Case, Make, with_rows, write_recipe

LINE = "data.jsonl, line 1"


def chat(*messages: Any) -> Make:
    """A first row of these messages, under a template for conversations."""
    return with_rows({"messages": list(messages)}, data__template="tulu")


def turn(role: Any = "user", content: Any = "hello") -> dict[str, Any]:
    """A message."""
    return {"role": role, "content": content}


def tokens(input_ids: Any, labels: Any, **more: Any) -> Make:
    """A first row that brings its tokens."""
    return with_rows({"input_ids": input_ids, "labels": labels, **more})


def chat_template(template: str) -> Make:
    """A model with this chat template."""

    def make(folder: Path) -> None:
        write_recipe(folder, {"data.template": "tokenizer"})
        (folder / "model" / "chat_template.jinja").write_text(template, encoding="utf-8")

    return make


def bad_reference(folder: Path) -> None:
    """Reference data of one bad row."""
    write_recipe(folder, {"data.reference": ["r.jsonl"]})
    (folder / "r.jsonl").write_text('{"prompt": "a"}\n')


def damaged_with_skip(folder: Path) -> None:
    """A file that breaks off, and bad rows to be skipped."""
    write_recipe(folder, {"data.on_bad_row": "skip", "data.train": ["d.jsonl.gz"]})
    (folder / "d.jsonl.gz").write_bytes(b"\x1f\x8b\x08")


CASES = (
    Case("unknown columns", with_rows({"text": "a", "id": 1}), (LINE, "no format", "`text`, `id`", "`messages`")),
    Case("no column", with_rows({}), (LINE, "no format recognised", "no field at all", "`prompt` + `completion`")),
    Case("an answer missing", with_rows({"prompt": "a"}), (LINE, "`completion` is missing", "found only")),
    Case("an answer that is null", with_rows({"prompt": "a", "completion": None}), (LINE, "`completion`", "null")),
    Case("a number for an answer", with_rows({"prompt": "a", "completion": 3}), (LINE, "a string", "the number 3")),
    Case("a list for a prompt", with_rows({"prompt": ["a"], "completion": "b"}), (LINE, "`prompt`", "a list of 1")),
    Case("a lone surrogate", with_rows({"prompt": "a\ud800", "completion": ""}), (LINE, "\\ud800", "character 1")),
    Case(
        "a lone surrogate in a field's name",
        with_rows({"\ud800": "a"}),
        (LINE, "no format recognised", "\\ud800", "accepted are"),
    ),
    Case(
        "a lone surrogate in `source`",
        with_rows({"prompt": "a", "completion": "b", "source": "\udfff"}),
        (LINE, "`source`", "surrogates"),
    ),
    Case("a noncharacter", with_rows({"prompt": "a\ufdd0", "completion": "b"}), (LINE, "U+FDD0", "remove it")),
    Case("ten thousand columns", with_rows({f"c{i}": i for i in range(10_000)}), (LINE, "no format", "`c0`")),
    Case("no messages", chat(), (LINE, "`messages`", "at least one message", "a list of 0")),
    Case("text for messages", with_rows({"messages": "hi"}), (LINE, "`messages`", "the string 'hi'")),
    Case("a message of text", chat("hi"), (LINE, "messages[0]", "`role` and `content`", "the string 'hi'")),
    Case("a message without role", chat({"content": "a"}), (LINE, "messages[0].role", "missing")),
    Case("a message without content", chat({"role": "user"}), (LINE, "messages[0].content", "missing")),
    Case(
        "an unknown role", chat(turn("tool")), (LINE, "messages[0].role", "'system', 'user', 'assistant'", "'tool'")
    ),
    Case("a list for a role", chat(turn(["user"])), (LINE, "messages[0].role", "a list of 1")),
    Case("a turn that is null", chat(turn(), turn("assistant", None)), (LINE, "messages[1].content", "null")),
    Case("parts for content", chat(turn(content=[{"text": "a"}])), (LINE, "messages[0].content", "a list of 1")),
    Case("5 000 messages", chat(*[turn()] * 5000), (LINE, "at most 1,000 messages", "a list of 5000")),
    Case("5 MB of text", chat(*[turn(content="x" * 10_000)] * 500), (LINE, "longer than 4 MiB", "expected")),
    Case(
        "only empty answers that are cut off",
        lambda folder: write_recipe(
            folder, {"data.max_length": 4}, [{"prompt": "long_enough", "completion": ""}] * 5
        ),
        ("split has no response token", "`data.max_length` (now 4)"),
    ),
    Case(
        "conversations without an answer",
        lambda folder: write_recipe(folder, {"data.template": "tulu"}, [{"messages": [turn()]}] * 5),
        ("split has no response token", "expected answers in the data"),
    ),
    Case(
        "a conversation under `plain`",
        with_rows({"messages": [turn(), turn("assistant", "b"), turn()]}),
        (LINE, "`data.template: plain`", "user, assistant, user", "`data.template: tulu`"),
    ),
    Case(
        "no chat template",
        with_rows(data__template="tokenizer"),
        ("needs a chat template", "`data.template: tulu`"),
    ),
    Case(
        "a broken chat template", chat_template("{% for m in messages %}"), ("data.jsonl, line 1", "chat template")
    ),
    Case("a chat template that adds", chat_template("{{ messages[0] + 1 }}"), (LINE, "chat template refuses")),
    Case("a chat template that divides by 0", chat_template("{{ 1 / 0 }}"), (LINE, "chat template refuses")),
    Case(
        "a chat template that never ends",
        chat_template("{% for i in range(10 ** 9) %}{{ i }}{% endfor %}"),
        (LINE, "chat template refuses", "Range too big"),
    ),
    Case("tokens of text", tokens(["a"], ["a"]), (LINE, "`input_ids[0]`", "an integer", "the string 'a'")),
    Case("fewer labels than tokens", tokens([1, 2], [1]), (LINE, "`labels`", "2 as in `input_ids`", "found 1")),
    Case("no tokens", tokens([], []), (LINE, "`input_ids`", "at least one token id")),
    Case("a negative token", tokens([-1], [-100]), (LINE, "`input_ids[0]`", "from 0", "the number -1")),
    Case("a token beyond 32 bits", tokens([2**40], [-100]), (LINE, "`input_ids[0]`", "1099511627776")),
    Case(
        "a token beyond the model", tokens([96, 4000], [-100, 4000]), (LINE, "token id 4000", "97 embedding rows")
    ),
    Case("shifted labels", tokens([1, 2], [2, -100]), (LINE, "`labels[0]`", "labels are not shifted", "found 2")),
    Case(
        "noise outside the answer",
        with_rows({"prompt": "a", "completion": "bc", "noise": [[0, 9]]}),
        (LINE, "`noise[0]`", "within the completion's 2 characters", "[0, 9)"),
    ),
    Case(
        "noise in a conversation",
        with_rows({"messages": [turn(), turn("assistant", "b")], "noise": []}),
        (LINE, "`noise`", "the row has `messages`"),
    ),
    Case(
        "one bad reference row",
        bad_reference,
        ("r.jsonl, line 1", "`completion` is missing"),
    ),
    Case(
        "only bad rows, to be skipped",
        lambda folder: write_recipe(folder, {"data.on_bad_row": "skip"}, [{"prompt": "a"}] * 3),
        ("data.jsonl", "none of its rows can be used", "`completion` is missing"),
    ),
    Case(
        "too few rows after skipping",
        lambda folder: write_recipe(
            folder,
            {"data.on_bad_row": "skip", "split": {"reference_rows": 3, "train_rows": 10}},
            [*ROWS, {"prompt": "a"}],
        ),
        ("has 12 rows", "too few", "lower these numbers or add data"),
    ),
    Case(
        "a damaged file, rows to be skipped",
        damaged_with_skip,
        ("d.jsonl.gz", "cut off", "again"),
    ),
)
