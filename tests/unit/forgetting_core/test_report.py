"""The report of a small split with hostile tokens: what a reader sees, and that equal inputs give equal bytes."""

import json
import re
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from forgetting_core.config import PartitionConfig, Recipe
from forgetting_core.errors import InputError
from forgetting_core.partition import partition
from forgetting_core.progress import Progress
from forgetting_core.report import write_report
from forgetting_core.run_facts import RunFacts
from forgetting_core.tables import (
    IGNORE_INDEX,
    LOSS_SCHEMA,
    NOISE_FIELD,
    SPLIT_SCHEMA,
    list_array,
    write_parquet,
)

HOSTILE = [
    "<script>alert(1)</script>",
    "\x00\x1b[31m",
    "\"'><img src=x onerror=alert(1)>",
    "a\u202eb",
    "\t\n",
    "</script>",
    "{{ 7 * 7 }}",
]
SOURCE = "<b>alpaca</b>"
ROWS = 30
METRICS = {
    "base": {"boolq": {"acc": 0.5, "acc_stderr": 0.0123}, "held_out": {"loss": 3.5, "tokens": 4321}},
    "forget": {"boolq": {"acc": 0.5625, "acc_stderr": 0.0111}, "held_out": {"loss": 3.25, "tokens": 4321}},
}


@dataclass
class Inputs:
    """The artifacts in a folder, and the arrays they were made from."""

    folder: Path
    recipe: Recipe
    metrics: dict[str, list[Path]]
    noise: np.ndarray
    score: np.ndarray
    response: np.ndarray
    hostile_ids: list[int] = field(default_factory=list)

    def write(self, out: Path, **changes: Any) -> dict[str, Any]:
        out.mkdir()
        folders = {
            name: self.folder / name
            for name in ("data", "tokenizer", "loss_base", "loss_reference", "token_labels")
        }
        arguments = {**folders, "metrics": self.metrics, "facts": RunFacts(), **changes}
        return write_report(self.recipe, out=out, progress=Progress(), **arguments)


def save_tokenizer(folder: Path) -> list[int]:
    """A byte-level vocabulary without merges plus `HOSTILE`; returns the ids of those."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in HOSTILE])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return [tokenizer.token_to_id(text) for text in HOSTILE]


def make_inputs(folder: Path, *, noise: bool = True, scope: str = "corpus", source: str = SOURCE) -> Inputs:
    hostile_ids = save_tokenizer(folder / "tokenizer")
    random = np.random.default_rng(7)
    lengths = random.integers(10, 40, ROWS)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    input_ids = random.integers(0, 256, offsets[-1]).astype(np.int32)
    labels = input_ids.copy()
    for start in offsets[:-1]:
        labels[start : start + 3] = IGNORE_INDEX
        input_ids[start] = hostile_ids[0]
        input_ids[start + 3 : start + 3 + len(hostile_ids)] = hostile_ids
        labels[start + 3 : start + 3 + len(hostile_ids)] = hostile_ids
    labels[offsets[0] : offsets[1]] = IGNORE_INDEX
    response = labels != IGNORE_INDEX
    planted = (response & (random.random(len(labels)) < 0.3)).astype(np.int8)
    base = np.where(response, random.gamma(2, 2, len(labels)), np.nan).astype(np.float32)
    reference = (base - np.where(planted, -0.5, 0.5) - random.normal(0, 1, len(labels))).astype(np.float32)
    sources = [source if row % 2 else None for row in range(ROWS)]
    columns = {
        "row": pa.array(np.arange(ROWS)),
        "input_ids": list_array(input_ids, offsets, pa.int32()),
        "labels": list_array(labels, offsets, pa.int32()),
        "source_file": pa.array(["rows.jsonl"] * ROWS),
        "source_row": pa.array(np.arange(ROWS)),
        "source": pa.array(sources, pa.string()),
        "noise": list_array(planted, offsets, pa.int8()),
    }
    schema = SPLIT_SCHEMA.append(NOISE_FIELD) if noise else SPLIT_SCHEMA
    table = pa.table([columns[name] for name in schema.names], schema=schema)
    write_parquet(folder / "data" / "part-00000.parquet", [table], schema)
    for name, losses in (("loss_base", base), ("loss_reference", reference)):
        write_losses(folder / name, losses, offsets)
    recipe = Recipe.model_validate(
        {
            "name": "small-report",
            "model": {"path": "model"},
            "data": {"train": ["rows.jsonl"]},
            "partition": {"rho": "0.7", "scope": scope},
        }
    )
    partition(
        recipe.partition,
        loss_base=folder / "loss_base",
        loss_reference=folder / "loss_reference",
        out=folder / "token_labels",
        progress=Progress(),
    )
    metrics = {name: [folder / f"metrics-{name}-{task}" for task in tasks] for name, tasks in METRICS.items()}
    for name, paths in metrics.items():
        for path, (task, values) in zip(paths, METRICS[name].items(), strict=True):
            path.mkdir()
            (path / "metrics.json").write_text(json.dumps({task: values, "protocol": {"name": "harness"}}))
    return Inputs(folder, recipe, metrics, planted == 1, base - reference, response, hostile_ids)


def write_losses(folder: Path, losses: np.ndarray, offsets: np.ndarray) -> None:
    rows = len(offsets) - 1
    table = pa.table([pa.array(np.arange(rows)), list_array(losses, offsets, pa.float32())], schema=LOSS_SCHEMA)
    write_parquet(folder / "token_losses.parquet", [table], LOSS_SCHEMA)


class Page(HTMLParser):
    """What a browser would see: tags, ids, the tooltips and the text below an element with an id."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[str] = []
        self.tooltips: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.attributes += values
        self.ids += [values["id"] or ""] if "id" in values else []
        self.tooltips += [values["title"] or ""] if "title" in values else []

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def written(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("report") / "out"
    return out, inputs.write(out)


@pytest.fixture(scope="module")
def html(written: tuple[Path, dict[str, Any]]) -> str:
    return (written[0] / "report.html").read_text(encoding="utf-8")


def section(html: str, name: str) -> str:
    found = re.search(rf'<section id="{name}".*?</section>', html, re.DOTALL)
    assert found, f"no section {name}"
    return found[0]


def test_same_inputs_give_the_same_bytes(
    inputs: Inputs, written: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    inputs.write(tmp_path / "again")
    for name in ("report.html", "statistics.json"):
        assert (tmp_path / "again" / name).read_bytes() == (written[0] / name).read_bytes()


def test_page_needs_no_network(html: str) -> None:
    page = Page(html)
    assert not {"img", "link", "iframe", "object"} & set(page.tags)
    assert not [name for name in page.attributes if name.startswith("on") or name == "src"]
    assert not re.search(r"url\(\s*[\"']?(?!#)", html)
    assert len(page.ids) == len(set(page.ids))


def test_page_contains_no_path_of_the_machine(inputs: Inputs, html: str) -> None:
    assert str(inputs.folder) not in html


def test_hostile_tokens_are_visible_text(html: str) -> None:
    page = Page(html)
    shown = {tooltip.splitlines()[0].rsplit(" (id", 1)[0] for tooltip in page.tooltips}
    assert {
        "<script>alert(1)</script>",
        "␀␛[31m",
        "\"'><img␣src=x␣onerror=alert(1)>",
        "a⟨U+202E⟩b",
        "⇥↵",
        "\\xff",
    } <= shown
    assert "<script>alert(1)</script>" in page.text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", html)


def test_source_names_are_escaped_and_fall_back_to_the_file(html: str) -> None:
    text = Page(section(html, "negatives")).text
    assert "<b>alpaca</b>" in text
    assert "rows.jsonl" in text


def test_tokens_show_losses_influence_and_label(inputs: Inputs, html: str) -> None:
    tooltips = Page(section(html, "tokens")).tooltips
    assert re.fullmatch(
        r"<script>alert\(1\)</script> \(id \d+\)\n"
        r"base loss \d+\.\d{3}, reference loss -?\d+\.\d{3} nats\n"
        r"influence [+-]\d+\.\d{3}: (positive|negative)(\nplanted noise)?",
        tooltips[0],
    )
    assert html.count("<details open>") == 20
    negative = [tooltip for tooltip in tooltips if ": negative" in tooltip]
    # the legend underlines a word too
    assert Page(section(html, "tokens")).tags.count("u") == len(negative) + 1


def test_rows_without_a_response_are_counted_and_not_shown(written: tuple[Path, dict[str, Any]], html: str) -> None:
    statistics = json.loads((written[0] / "statistics.json").read_text())
    assert statistics["rows_without_response"] == 1
    assert "Row 0 " not in html
    assert "Row 1 " in html


def test_benchmarks_show_stderr_and_difference(html: str) -> None:
    text = " ".join(Page(section(html, "benchmarks")).text.split())
    assert "boolq acc 0.5000 ± 0.0123 0.5625 ± 0.0111+0.0625" in text
    assert "held_out lossnats, lower is better 3.5000 3.2500−0.2500" in text
    assert "held_out tokens 4,321 4,321" in text


def test_report_without_benchmarks_says_so(inputs: Inputs, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("{}")
    inputs.write(tmp_path / "out", metrics={"forget": [tmp_path]})
    assert "Nothing was evaluated" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_summary_tells_how_well_noise_was_found(inputs: Inputs, written: tuple[Path, dict[str, Any]]) -> None:
    noise, score = inputs.noise[inputs.response], inputs.score[inputs.response]
    tokens = len(score)
    negative = np.argsort(np.argsort(score)) < tokens - int(0.7 * tokens)
    summary = written[1]
    assert summary["tokens"] == tokens
    assert summary["negative_share"] == negative.mean()
    assert summary["noise"] == {
        "tokens": noise.sum(),
        "share": noise.mean(),
        "called_negative": negative[noise].mean(),
        "chance": negative.mean(),
        "precision": noise[negative].mean(),
        "auc": pytest.approx((score[noise][:, None] < score[~noise]).mean()),
    }


def test_noise_is_left_out_where_unknown(html: str, tmp_path: Path) -> None:
    assert 'id="noise"' in html
    assert "labels at random" in html
    summary = make_inputs(tmp_path, noise=False).write(tmp_path / "out")
    assert set(summary) == {"tokens", "negative_share", "warnings"}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "oise" not in re.sub("<(style|script)>.*?</\\1>", "", page, flags=re.DOTALL)


def test_threshold_is_shown_only_where_all_rows_share_one(html: str, tmp_path: Path) -> None:
    assert "threshold" in section(html, "influence")
    make_inputs(tmp_path, scope="row").write(tmp_path / "out")
    by_row = section((tmp_path / "out" / "report.html").read_text(encoding="utf-8"), "influence")
    assert "no common threshold" in by_row
    assert "stroke-dasharray" in section(html, "influence")
    assert "stroke-dasharray" not in by_row


def test_a_threshold_stands_where_rho_does(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    partition = PartitionConfig(threshold="0.1", scope="row")
    replace(inputs, recipe=inputs.recipe.model_copy(update={"partition": partition})).write(tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "threshold=0.1" in page[page.index("<h1>") : page.index("</h1>")]
    assert "None" not in page[: page.index("<main>")]
    assert "stroke-dasharray" in section(page, "influence"), "rows have one threshold in common then"


def test_a_control_is_named_and_has_no_threshold_of_influence(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    partition = PartitionConfig(rho="0.5", labelling="random")
    replace(inputs, recipe=inputs.recipe.model_copy(update={"partition": partition})).write(tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "ρ=0.5 random" in page[page.index("<h1>") : page.index("</h1>")]
    assert "stroke-dasharray" not in section(page, "influence")
    assert "threshold of influence" not in page
    assert "The labels are a control" in section(page, "influence")


def test_losses_of_another_split_are_refused(inputs: Inputs, tmp_path: Path) -> None:
    write_losses(tmp_path / "other", np.ones(4, np.float32), np.array([0, 4]))
    with pytest.raises(InputError, match="score and partition this split again"):
        inputs.write(tmp_path / "out", loss_reference=tmp_path / "other")
