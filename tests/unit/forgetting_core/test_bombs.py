"""Small files that unpack to more than any machine holds are refused in little memory, with the file named."""

import gzip
import json
import lzma
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from forgetting_core.errors import InputError
from forgetting_core.evaluation.local_tasks import local_tasks
from forgetting_core.recipe import load_recipe

pytestmark = pytest.mark.security("files that unpack to more than a machine holds")
MIB = 2**20
MEMORY_BYTES = 3 * 2**30
"""Address space of the reader, with its libraries; every bomb here unpacks to more."""
READER = """
import resource, sys
from pathlib import Path
from forgetting_core.data.rows import read_rows
from forgetting_core.errors import InputError
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), int(sys.argv[2])))
try:
    for row in read_rows(Path(sys.argv[1])):
        pass
except InputError as error:
    print(error)
"""


def packed(path: Path, start: bytes, filling: bytes, end: bytes) -> Path:
    """4 GiB of `filling` between `start` and `end`: gzip members can be put one after the other."""
    member = gzip.compress(filling * (64 * MIB // len(filling)))
    path.write_bytes(gzip.compress(start) + member * 64 + gzip.compress(end))
    return path


def one_line(folder: Path) -> Path:
    return packed(folder / "one-line.jsonl.gz", b'{"prompt": "', b"a", b'", "completion": "b"}\n')


def many_lines(folder: Path) -> Path:
    return packed(folder / "many-lines.jsonl.gz", b"", b'{"prompt": "a", "completion": "b"}' + b" " * 2**16 + b"\n", b"")


def array(folder: Path) -> Path:
    return packed(folder / "array.json.gz", b"[", b" ", b"]")


def plain_line(folder: Path) -> Path:
    path = folder / "line.jsonl"
    with path.open("wb") as file:
        file.write(b'{"prompt": "')
        for _ in range(100):
            file.write(b"a" * MIB)
    return path


def repeated_value(folder: Path) -> Path:
    """A dictionary of one value of 4 MiB, which 100 000 rows name."""
    path = folder / "repeated.parquet"
    schema = pa.schema([("prompt", pa.string()), ("completion", pa.string())])
    value = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), pa.array(["x" * (4 * MIB)]))
    with pq.ParquetWriter(
        path,
        pa.schema([(name, value.type) for name in schema.names]),
        compression="zstd",
        dictionary_pagesize_limit=2**30,
        store_schema=False,
    ) as writer:
        for _ in range(100):
            writer.write_table(pa.table({"prompt": value, "completion": value}))
    return path


def long_list(folder: Path) -> Path:
    """One row of 30 million equal numbers."""
    path = folder / "list.parquet"
    count = 30_000_000
    values = pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), pa.array(np.zeros(count, np.int8)))
    pq.write_table(pa.table({"input_ids": values, "labels": values}), path, compression="zstd")
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="the reader's memory is bounded by RLIMIT_AS")
@pytest.mark.parametrize("make", [one_line, many_lines, array, plain_line, repeated_value, long_list])
def test_a_data_file_that_unpacks_without_end_is_refused_in_little_memory(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = make(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", READER, str(path), str(MEMORY_BYTES)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(path)), done.stdout or "all of it was read"
    assert "failed" not in done.stdout, "refused for want of memory only"


def test_what_is_packed_otherwise_is_not_unpacked_at_all(tmp_path: Path) -> None:
    from forgetting_core.data.rows import read_rows

    path = tmp_path / "rows.jsonl.xz"
    path.write_bytes(lzma.compress(b'{"prompt": "a", "completion": "b"}'))
    with pytest.raises(InputError, match="unknown kind of data file"):
        list(read_rows(path))


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12)
)
DOCUMENTS = {
    "laughs": LAUGHS,
    "merges": MERGES,
    "a list in itself": "a: &a [*a]\n",
    "a mapping in itself": "a: &a {b: *a}\n",
    "deep": "a: " + "[" * 20_000,
    "deep and closed": "a: " + "[" * 500 + "]" * 500,
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_recipe_that_unfolds_without_end_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: x\n" + DOCUMENTS[name])
    with pytest.raises(InputError, match=f"recipe {path}: not valid YAML"):
        load_recipe(path)


@pytest.mark.parametrize("text", ["a=&a [*a]", "a=" + "[" * 2000])
def test_an_override_that_unfolds_without_end_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: x\n")
    with pytest.raises(InputError, match="the value is not valid YAML"):
        load_recipe(path, [text])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_benchmark_that_unfolds_without_end_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("task: own\n" + DOCUMENTS[name])
    with pytest.raises(InputError, match="own.yaml: cannot be read as a task YAML"):
        local_tasks(tmp_path, ["own"])


def test_anchors_that_save_typing_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    training = {"learning_rate": 1e-3}
    path.write_text(
        f"name: x\nsynthetic: {{}}\nreference: &training {json.dumps(training)}\nforget: {{<<: *training}}\n"
    )
    assert load_recipe(path).forget.learning_rate == 1e-3
