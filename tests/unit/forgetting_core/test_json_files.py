"""JSON lines: the same records are the same bytes, and a broken line is named."""

from pathlib import Path

import pytest

from forgetting_core.errors import InputError
from forgetting_core.json_files import read_json_lines, write_json_lines


def test_lines_are_canonical_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "deep/lines.jsonl"
    records = [{"b": 1, "a": "ü\u2028\n"}, {"c": [0.1]}]
    write_json_lines(path, records)
    assert path.read_bytes() == '{"a": "ü\u2028\\n", "b": 1}\n{"c": [0.1]}\n'.encode()
    assert list(read_json_lines(path)) == records


def test_what_is_no_json_is_made_json_or_refused(tmp_path: Path) -> None:
    write_json_lines(tmp_path / "paths.jsonl", [{"path": Path("x")}], default=str)
    assert list(read_json_lines(tmp_path / "paths.jsonl")) == [{"path": "x"}]
    with pytest.raises(TypeError):
        write_json_lines(tmp_path / "b.jsonl", [{"path": Path("x")}])


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{}\n{"a":\n')
    with pytest.raises(InputError, match=r"x\.jsonl, line 2: expected JSON"):
        list(read_json_lines(tmp_path / "x.jsonl"))
