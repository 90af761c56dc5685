"""Recipes: what is wrong with the YAML, and what is wrong with what it says."""

from pathlib import Path

from benchmarks.input_faults.case import RECIPE, Case, Make, changed

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
"""Ten million million items in a kilobyte."""
NOT_YAML = "not valid YAML"


def text(content: str | bytes) -> Make:
    """A recipe file with this content."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: _write(folder, data)


def _write(folder: Path, data: bytes) -> None:
    (folder / RECIPE).write_bytes(data)


CASES = (
    Case("no recipe file", lambda folder: None, (RECIPE, "o such file")),
    Case("a folder instead of a recipe", lambda folder: (folder / RECIPE).mkdir(), (RECIPE, "cannot be read")),
    Case("an empty recipe", text(""), (RECIPE, "expected keys such as `model:`", "found None")),
    Case("a list instead of keys", text("- name: x\n"), (RECIPE, "expected keys such as", "found [{'name'")),
    Case("only a word", text("demo"), ("expected keys such as", "found 'demo'")),
    Case("tabs for indentation", text("name: x\ndata:\n\ttemplate: plain\n"), (NOT_YAML, "line 3", "'\\t'")),
    Case("a bracket that is not closed", text("name: [x\n"), (NOT_YAML, "line 2")),
    Case("two documents in a file", text("name: x\n---\nname: y\n"), (NOT_YAML, "line 2", "another document")),
    Case("a recipe in Latin-1", text("name: caf\xe9\n".encode("latin-1")), ("cannot be read", "utf-8")),
    Case("a recipe in UTF-16", text("name: x\n".encode("utf-16")), ("cannot be read", "utf-8")),
    Case("a NUL byte in the recipe", text("name: x\0y\n"), (NOT_YAML, "#x0000")),
    Case("a recipe of binary data", text(bytes(range(256))), ("cannot be read", "utf-8")),
    Case("a Python object in the recipe", text("name: !!python/object/apply:os.getcwd []\n"), (NOT_YAML, "tag")),
    Case("a key twice", text("name: x\npartition: {rho: 0.5, rho: 0.7}\n"), (NOT_YAML, "`rho`", "twice", "line 2")),
    Case("a section twice", text("name: x\ndata: {}\nscore: {}\ndata: {}\n"), (NOT_YAML, "`data`", "line 4")),
    Case("a list as a key", text("name: x\n? [a, b]\n: 1\n"), (NOT_YAML, "key", "line 2")),
    Case("a number as a key", text("name: x\n7: y\n"), ("7", "unknown key", "known keys here")),
    Case("aliases that multiply", text(BOMB), ("aliases", "100,000", "write")),
    Case("an alias of itself", text("name: x\ndata: &d {template: *d}\n"), ("alias", "itself")),
    Case("brackets nested 100 000 deep", text("name: " + "[" * 100_000), (RECIPE, "nested deeper than 60")),
    Case("a recipe of 20 MB", text("name: x\n" + "# \n" * 7_000_000), (RECIPE, "MB", "expected")),
    Case("a number of 5 000 digits", text("name: x\nsplit: {seed: " + "9" * 5000 + "}\n"), (NOT_YAML, "line 2")),
    Case("a day that does not exist", text("name: x\ndata: 2026-13-45\n"), (NOT_YAML, "line 2", "month")),
    Case("a value after << that is no section", text("name: x\n<<: 3\n"), (NOT_YAML, "merging")),
    Case("an unknown key", changed(partition__roh=0.5), ("partition.roh: unknown key", "did you mean `rho`?")),
    Case("an unknown section", changed(qwertz={"a": 1}), ("qwertz: unknown key", "known keys here", "partition")),
    Case("a word for a number", changed(data__max_length="many"), ("data.max_length: 'many'", "integer")),
    Case("a list for a number", changed(forget__learning_rate=[1e-4]), ("forget.learning_rate: [0.0001]",)),
    Case("a truth value for ρ", changed(partition__rho=True), ("partition.rho: True", "from 0 to 1")),
    Case("ρ above 1", changed(partition__rho=1.5), ("partition.rho: 1.5", "from 0 to 1", "such as 0.7")),
    Case("ρ not a number", changed(partition__rho=float("nan")), ("partition.rho: nan", "from 0 to 1")),
    Case(
        "an infinite learning rate", changed(forget__learning_rate=float("inf")), ("learning_rate: inf", "finite")
    ),
    Case("a negative number of epochs", changed(forget__epochs=-1), ("forget.epochs: -1", "greater than")),
    Case("a negative seed", changed(split__seed=-1), ("split.seed: -1", "greater than or equal to 0")),
    Case("a seed of 100 bits", changed(forget__seed=2**100), ("forget.seed", "less than")),
    Case("a date for a name", text("name: 2026-11-20\nmodel: {path: m}\n"), ("name: ", "string")),
    Case("a name that is no name", changed(name="a/b c"), ("name: 'a/b c'", "pattern")),
    Case(
        "a file name for a list of files", changed(data__train="data.jsonl"), ("data.train: 'data.jsonl'", "list")
    ),
    Case("no data files", changed(data__train=[]), ("data.train: []", "at least 1 item")),
    Case("no data", changed(data__train=None), ("`data.train` is missing", "list instruction data files")),
    Case("no model", changed(model=None), ("`model` is missing", "name a folder")),
    Case("synthetic data and own data", changed(synthetic={}), ("`synthetic` stands in for", "remove those")),
    Case("a task name for a list of tasks", changed(evaluate__tasks="boolq"), ("evaluate.tasks: 'boolq'", "list")),
    Case("an unknown objective", changed(forget={"objective": "forgt"}), ("forget.objective: 'forgt'", "ignore")),
    Case("an unknown template", changed(data__template="chatml"), ("data.template: 'chatml'", "'tulu'")),
    Case("a baseline twice", changed(baselines=["sft", "sft"]), ("baselines: sft, sft", "each one once")),
    Case("ρ and a threshold", changed(partition={"rho": 0.5, "threshold": 0}), ("partition", "give exactly one")),
    Case("a micro-batch that does not divide", changed(forget__normalization="microbatch"), ("divisor of", "= 8")),
    Case(
        "a password in an address",
        changed(data__train=["s3://me:secret@bucket/d.jsonl"]),
        ("data: train", "a password", "by the environment"),
    ),
    Case(
        "a data file that is not there", changed(data__train=["gone.jsonl"]), ("data.train: no such file", "gone")
    ),
    Case(
        "a data file on the web",
        changed(data__train=["https://example.com/d.jsonl"]),
        ("data.train", "expected a local path or an s3:// URL", "download it first"),
    ),
    Case(
        "more rows than there are", changed(split__train_rows=100), ("has 12 rows", "split.train_rows", "add data")
    ),
    Case("a model that is not there", changed(model__path="gone"), ("model.path: no such folder: ", "gone")),
)
