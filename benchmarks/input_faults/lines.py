"""Data files of JSON, plain and gzipped: cut, damaged, in another encoding, too large, nested, ambiguous."""

import gzip
import json
from pathlib import Path

from benchmarks.input_faults.case import ROWS, Case, Make, with_file, write_recipe

GOOD = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
ARRAY = json.dumps(ROWS).encode()
MIB = 2**20


def spoiled(line: bytes) -> Make:
    """A file whose fourth line is this one."""
    lines = GOOD.splitlines(keepends=True)
    return with_file("d.jsonl", b"".join([*lines[:3], line + b"\n", *lines[3:]]))


def zipped(data: bytes, changed: slice = slice(0, 0), by: bytes = b"") -> bytes:
    """`data` gzipped, with some of those bytes replaced."""
    packed = bytearray(gzip.compress(data, mtime=0))
    packed[changed] = by
    return bytes(packed)


def bomb() -> bytes:
    """4 GB of blanks in one line of 4 MB: many gzip members, which a reader takes for one file."""
    return gzip.compress(b'{"prompt": "' + b" " * (64 * MIB)) + gzip.compress(b" " * (64 * MIB)) * 63


def folder_for_file(folder: Path) -> None:
    """A folder where a file is expected."""
    write_recipe(folder, {"data.train": ["d.jsonl"]}, rows=None)
    (folder / "d.jsonl").mkdir()


LINE_4 = "d.jsonl, line 4"
NESTED = b'{"prompt": "p", "completion": "c", "x": '
CASES = (
    Case("a folder for a data file", folder_for_file, ("data.train: no such file: d.jsonl", "expected a JSONL")),
    Case("a CSV file", with_file("d.csv", b"prompt,completion\na,b\n"), ("d.csv", "unknown kind", ".jsonl, ")),
    Case("an empty file", with_file("d.jsonl", b""), ("d.jsonl", "no rows", "at least one")),
    Case("a file of blank lines", with_file("d.jsonl", b"\n \n\n"), ("d.jsonl", "no rows", "at least one")),
    Case("an empty array", with_file("d.json", b" [ ] "), ("d.json", "no rows", "at least one")),
    Case("an empty gzip file", with_file("d.jsonl.gz", zipped(b"")), ("d.jsonl.gz", "no rows")),
    Case("a gzip file of no bytes", with_file("d.jsonl.gz", b""), ("d.jsonl.gz", "no rows")),
    Case("a gzip file cut off", with_file("d.jsonl.gz", zipped(GOOD)[:-20]), ("d.jsonl.gz", "cut off", "again")),
    Case("a gzipped array cut off", with_file("d.json.gz", zipped(ARRAY)[:-9]), ("d.json.gz", "cut off", "again")),
    Case("text named .gz", with_file("d.jsonl.gz", GOOD), ("d.jsonl.gz", "not a whole gzip file", "again")),
    Case(
        "a gzip file with a flipped bit",
        with_file("d.jsonl.gz", zipped(GOOD, slice(-8, -7), b"\x55")),
        ("d.jsonl.gz", "not a whole gzip file", "CRC", "again"),
    ),
    Case(
        "a gzip file with something behind it",
        with_file("d.jsonl.gz", zipped(GOOD) + b"junk"),
        ("d.jsonl.gz", "not a whole gzip file", "again"),
    ),
    Case("gzip named .jsonl", with_file("d.jsonl", zipped(GOOD)), ("d.jsonl", "gzipped", "`.gz`")),
    Case("Parquet named .jsonl", with_file("d.jsonl", b"PAR1\x15\x04\x15"), ("d.jsonl, line 1", "malformed JSON")),
    Case("a gzip bomb", with_file("d.jsonl.gz", bomb), ("d.jsonl.gz, line 1", "longer than 4 MiB", "expected")),
    Case(
        "a gzip bomb for an array",
        with_file("d.json.gz", lambda: gzip.compress(b"[" + b" " * (64 * MIB)) + bomb()),
        ("d.json.gz", "more than 200 times its size", "write it without"),
        slow=True,
    ),
    Case("a line of 100 MB", spoiled(b'{"prompt": "' + b"x" * 100_000_000), (LINE_4, "longer than 4 MiB")),
    Case("one line that breaks off", spoiled(b'{"prompt": "a", '), (LINE_4, "malformed JSON", "one JSON object")),
    Case("a file that breaks off", with_file("d.jsonl", GOOD[:-20]), ("d.jsonl, line 12", "malformed JSON")),
    Case("an array that breaks off", with_file("d.json", ARRAY[:-20]), ("d.json", "malformed JSON", "an array")),
    Case("two objects in a line", spoiled(b'{"prompt": "a"} {"prompt": "b"}'), (LINE_4, "Extra data", "a line")),
    Case("a line of Python", spoiled(b"{'prompt': 'a'}"), (LINE_4, "malformed JSON", "double quotes")),
    Case(
        "a line in Latin-1", spoiled('{"prompt": "café"}'.encode("latin-1")), (LINE_4, "invalid UTF-8 at byte 15")
    ),
    Case("a file in UTF-16", with_file("d.jsonl", GOOD.decode().encode("utf-16")), ("d.jsonl, line 1", "UTF-8")),
    Case("a file in UTF-16 LE", with_file("d.jsonl", GOOD.decode().encode("utf-16-le")), ("line 1", "JSON")),
    Case("a byte order mark inside", spoiled(b"\xef\xbb\xbf" + GOOD.splitlines()[0]), (LINE_4, "byte order mark")),
    Case("a NUL byte between fields", spoiled(b'{"prompt": "a",\0"completion": "b"}'), (LINE_4, "malformed JSON")),
    Case("a NUL byte inside text", spoiled(b'{"prompt": "a\0", "completion": "b"}'), (LINE_4, "control character")),
    Case("a line of NUL bytes", spoiled(b"\0" * 512), (LINE_4, "malformed JSON")),
    Case("nested 100 000 deep", spoiled(NESTED + b"[" * 100_000 + b"]" * 100_000 + b"}"), (LINE_4, "too deeply")),
    Case("objects nested deep", spoiled(NESTED + b'{"a":' * 50_000 + b"1" + b"}" * 50_001), (LINE_4, "too deeply")),
    Case("an array nested deep", with_file("d.json", b"[" * 100_000), ("d.json", "too deeply", "an array")),
    Case(
        "a field twice",
        spoiled(b'{"prompt": "a", "completion": "b", "prompt": "c"}'),
        (LINE_4, "`prompt`", "twice"),
    ),
    Case(
        "a field twice inside a message",
        spoiled(b'{"messages": [{"role": "user", "content": "a", "content": "b"}]}'),
        (LINE_4, "`content`", "twice"),
    ),
    Case("a number of 5 000 digits", spoiled(NESTED + b"9" * 5000 + b"}"), (LINE_4, "digits")),
    Case("a list for a row", spoiled(b'["a", "b"]'), (LINE_4, "expected an object", "a list of 2")),
    Case("a number for a row", spoiled(b"7"), (LINE_4, "expected an object", "the number 7")),
    Case(
        "a word in an array of rows",
        with_file("d.json", b'[{"prompt": "a", "completion": "b"}, "x"]'),
        ("d.json, row 1 (counted from 0)", "expected an object", "the string 'x'"),
    ),
)
