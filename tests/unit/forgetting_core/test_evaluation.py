"""The step `evaluate` on tiny models, with the real harness."""

import hashlib
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from peft import LoraConfig, get_peft_model
from pydantic import ValidationError
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from forgetting_core.config import EvaluateConfig, ExecutionConfig
from forgetting_core.errors import InputError, Interrupted
from forgetting_core.evaluation.evaluate import evaluate_benchmarks
from forgetting_core.evaluation.held_out import (
    RowLosses,
    evaluate_held_out,
    loss_change,
    ratio_with_stderr,
    read_row_losses,
    write_row_losses,
)
from forgetting_core.evaluation.protocols import Asked, Seeds, asked
from forgetting_core.evaluation.records import plain_metrics
from forgetting_core.evaluation.tydiqa import LANGUAGES, averaged
from forgetting_core.progress import Progress
from forgetting_core.tables import IGNORE_INDEX, SPLIT_SCHEMA, write_parquet

SHARED = Path(__file__).parents[4] / "shared"
ROWS = [([5, 6, 7, 8, 9], 2), ([10, 11, 12], 3), ([20, 21, 22, 23, 24, 25], 1), ([30, 31], 0)]
"""(input_ids, length of the prompt): the second has no response, the last is labelled from its first token on."""


class Listener(Progress):
    def __init__(self, stop_after: float = float("inf")) -> None:
        super().__init__()
        self.stop_after = stop_after
        self.advances: list[tuple[float, float, str]] = []
        self.notes: list[str] = []

    def advance(self, done: float, total: float, unit: str) -> None:
        self.advances.append((done, total, unit))
        self.stop_requested = len(self.advances) >= self.stop_after
        super().advance(done, total, unit)

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama over bytes whose tokenizer has an eos token, but neither bos, pad nor chat template."""
    folder = tmp_path_factory.mktemp("base")
    vocabulary = {token: index for index, token in enumerate(["<eos>", *sorted(ByteLevel.alphabet())])}
    tokenizer = Tokenizer(BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=2048,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def own_tasks(tmp_path: Path) -> Path:
    """A folder with two tasks of the user's own that share one data file: a choice and a generation."""
    folder = tmp_path / "own"
    (folder / "data").mkdir(parents=True)
    rows = [{"question": f"{a} plus {a}", "answer": str(2 * a), "index": a - 1} for a in range(1, 6)]
    (folder / "data/sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "common.yaml").write_text(
        "dataset_path: json\n"
        "dataset_kwargs: {data_files: {test: data/sums.jsonl}}\n"
        "test_split: test\n"
        "doc_to_text: !function prompts.ask\n"
    )
    (folder / "prompts.py").write_text("def ask(doc):\n    return 'What is ' + doc['question'] + '?'\n")
    (folder / "choose.yaml").write_text(
        "include: common.yaml\ntask: choose\noutput_type: multiple_choice\n"
        "doc_to_choice: ['2', '4', '6', '8', '10']\ndoc_to_target: index\nmetric_list: [{metric: acc}]\n"
    )
    (folder / "generate.yaml").write_text(
        "include: common.yaml\ntask: generate\noutput_type: generate_until\ndoc_to_target: '{{answer}}'\n"
        "generation_kwargs: {max_gen_toks: 4, until: ['\\n']}\nmetric_list: [{metric: exact_match}]\n"
    )
    return folder


@pytest.fixture
def validation(tmp_path: Path) -> Path:
    columns: dict[str, list[Any]] = {name: [] for name in SPLIT_SCHEMA.names}
    for index, (input_ids, prompt) in enumerate(ROWS):
        labels = [IGNORE_INDEX] * prompt + input_ids[prompt:]
        for name, value in zip(SPLIT_SCHEMA.names, (index, input_ids, labels, "f", index, "s"), strict=True):
            columns[name].append(value)
    write_parquet(tmp_path / "validation/0.parquet", [pa.table(columns, schema=SPLIT_SCHEMA)], SPLIT_SCHEMA)
    return tmp_path / "validation"


def evaluate(
    base: Path,
    out: Path,
    tasks: Sequence[str],
    limit: float | None = None,
    *,
    protocol: str = "harness",
    **kwargs: Any,
) -> dict[str, Any]:
    config = EvaluateConfig(tasks=list(tasks), limit=limit, dtype="float32", protocol=protocol)
    inputs = {"checkpoint": None, "task_dir": None, "progress": Listener()} | kwargs
    out.mkdir(parents=True)
    return evaluate_benchmarks(config, base=base, out=out, execution=ExecutionConfig(device="cpu"), **inputs)


def held_out_of(base: Path, validation: Path, out: Path, checkpoint: Path | None = None) -> dict[str, float]:
    out.mkdir(parents=True)
    summary = evaluate_held_out(
        base=base,
        checkpoint=checkpoint,
        validation=validation,
        dtype="float32",
        out=out,
        execution=ExecutionConfig(device="cpu"),
        progress=Listener(),
    )
    assert json.loads((out / "metrics.json").read_text()) == summary["metrics"]
    found: dict[str, float] = summary["metrics"]["held_out"]
    return found


def samples(out: Path, task: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / f"samples/{task}.jsonl").read_text().splitlines()]


def test_own_tasks_with_relative_files_run_and_repeat_to_the_byte(
    base: Path, own_tasks: Path, tmp_path: Path
) -> None:
    progress = Listener()
    tasks = ["generate", "choose"]
    summary = evaluate(base, tmp_path / "a", tasks, task_dir=own_tasks, progress=progress)
    evaluate(base, tmp_path / "b", tasks, task_dir=own_tasks)
    for file in ("metrics.json", "samples/choose.jsonl", "samples/generate.jsonl"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()

    assert summary["items"] == 10
    assert progress.advances[-1] == (10, 10, "items")
    assert [done for done, _, _ in progress.advances] == sorted(done for done, _, _ in progress.advances)
    stored = json.loads((tmp_path / "a/metrics.json").read_text())
    assert stored.pop("protocol")["tasks"]["generate"]["generation"] == {"max_gen_toks": 4, "until": ["\\n"]}
    assert stored == summary["metrics"]
    assert summary["metrics"].keys() == {"choose", "generate"}
    assert summary["metrics"]["generate"].keys() == {"exact_match", "exact_match_stderr"}

    chosen = samples(tmp_path / "a", "choose")
    assert [sample["doc"]["answer"] for sample in chosen] == ["2", "4", "6", "8", "10"]
    correct = [np.argmax([float(ll) for ll, _ in s["response"]]) == s["doc_id"] for s in chosen]
    assert [bool(sample["metrics"]["acc"]) for sample in chosen] == correct
    assert summary["metrics"]["choose"]["acc"] == np.mean(correct)


def test_a_data_file_changed_behind_its_time_is_read_again(base: Path, own_tasks: Path, tmp_path: Path) -> None:
    data = own_tasks / "data/sums.jsonl"
    before = data.stat()
    evaluate(base, tmp_path / "a", ["choose"], task_dir=own_tasks)
    data.write_text(data.read_text().replace("plus", "and "))
    os.utime(data, ns=(before.st_atime_ns, before.st_mtime_ns))
    evaluate(base, tmp_path / "b", ["choose"], task_dir=own_tasks)
    questions = [samples(tmp_path / out, "choose")[0]["doc"]["question"] for out in "ab"]
    assert questions == ["1 plus 1", "1 and  1"]


def test_an_interruption_ends_the_evaluation(base: Path, own_tasks: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        evaluate(base, tmp_path / "out", ["choose"], task_dir=own_tasks, progress=Listener(stop_after=3))
    assert not (tmp_path / "out/metrics.json").exists()


def test_malformed_data_of_a_local_task_is_an_input_error(base: Path, own_tasks: Path, tmp_path: Path) -> None:
    (own_tasks / "data/sums.jsonl").write_text("not json\n")
    with pytest.raises(InputError, match=r"evaluate\.tasks: choose in .*own cannot be loaded: .*JSON"):
        evaluate(base, tmp_path / "out", ["choose"], task_dir=own_tasks)


def test_a_task_unknown_to_the_harness_is_answered_with_the_nearest(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"knows no task 'boolqq'\. Nearest: .*boolq\b"):
        evaluate(base, tmp_path / "out", ["boolqq"])


def plain_losses(folder: Path) -> list[list[float]]:
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    losses = []
    with torch.no_grad():
        for input_ids, prompt in ROWS:
            log_p = torch.log_softmax(model(torch.tensor([input_ids])).logits[0].double(), dim=-1)
            losses.append([-float(log_p[j - 1, input_ids[j]]) for j in range(max(prompt, 1), len(input_ids))])
    return losses


def test_held_out_loss_is_the_mean_over_response_tokens(base: Path, validation: Path, tmp_path: Path) -> None:
    held_out = held_out_of(base, validation, tmp_path / "out")
    expected = [loss for row in plain_losses(base) for loss in row]
    assert held_out["tokens"] == len(expected) == 3 + 0 + 5 + 1
    assert held_out["loss"] == pytest.approx(np.mean(expected), abs=1e-5)


def test_a_sample_of_the_held_out_loss_says_which_row_it_was(base: Path, validation: Path, tmp_path: Path) -> None:
    held_out_of(base, validation, tmp_path / "out")
    lines = samples(tmp_path / "out", "held_out")
    digests = [hashlib.sha256(np.array(ids, "<i4").tobytes()).hexdigest() for ids, _ in ROWS]
    assert [(line["doc_id"], line["doc"]) for line in lines] == [(row, digests[row]) for row in (0, 2, 3)]


def test_losses_read_again_are_those_written_and_pair_by_row(tmp_path: Path) -> None:
    before = RowLosses(np.array([0, 2]), np.array([3.0, 40.0]), np.array([3, 10]), ["a", "b"])
    write_row_losses(tmp_path, before)
    read = read_row_losses(tmp_path)
    assert (read.rows.tolist(), read.tokens.tolist(), read.digests) == ([0, 2], [3, 10], ["a", "b"])
    assert read.sums == pytest.approx(before.sums, rel=1e-12)
    after = replace(before, sums=before.sums + 0.5 * before.tokens)
    assert loss_change(read, after) == pytest.approx((0.5, 0.0), abs=1e-12)
    with pytest.raises(InputError, match="different validation rows"):
        loss_change(before, replace(after, digests=["a", "c"]))


def test_an_adapter_that_changes_nothing_scores_like_its_base(
    base: Path, validation: Path, own_tasks: Path, tmp_path: Path
) -> None:
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    get_peft_model(model, LoraConfig(target_modules="all-linear")).save_pretrained(tmp_path / "adapter")
    tasks, adapter = ["choose", "generate"], tmp_path / "adapter"
    plain = evaluate(base, tmp_path / "a", tasks, task_dir=own_tasks)
    assert evaluate(base, tmp_path / "b", tasks, task_dir=own_tasks, checkpoint=adapter) == plain
    plain_loss = held_out_of(base, validation, tmp_path / "c")
    assert held_out_of(base, validation, tmp_path / "d", adapter) == plain_loss


def test_the_error_of_the_held_out_loss_counts_rows_as_the_draws() -> None:
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(2000):
        counts = rng.integers(1, 20, size=50)
        sums = rng.normal(3, 1, size=50) * counts
        draws.append(ratio_with_stderr(sums, counts))
    means, errors = np.array(draws, dtype=float).T
    assert errors.mean() == pytest.approx(means.std(), rel=0.05)


def test_one_row_has_a_mean_without_an_error() -> None:
    assert ratio_with_stderr(np.array([6.0]), np.array([3])) == (2.0, None)


def test_published_tydiqa_shows_an_example_cuts_contexts_and_draws_answers_by_seed(tmp_path: Path) -> None:
    base = SHARED / "oracle/tiny_base"
    if not base.is_dir():
        pytest.skip(f"{SHARED}: the figures and data of the workplace are not there")
    tasks, files = ["tydiqa_goldp_en"], {"task_dir": SHARED / "data"}
    summary = evaluate(base, tmp_path / "a", tasks, 3, protocol="published", **files)
    evaluate(base, tmp_path / "b", tasks, 3, protocol="published", **files)
    assert (tmp_path / "a/samples/tydiqa_goldp_en.jsonl").read_bytes() == (
        tmp_path / "b/samples/tydiqa_goldp_en.jsonl"
    ).read_bytes()
    assert summary["metrics"]["tydiqa_goldp_en"].keys() >= {"f1", "f1_stderr", "exact_match"}
    tokenizer = AutoTokenizer.from_pretrained(base)
    lengths = []
    for sample in samples(tmp_path / "a", "tydiqa_goldp_en"):
        assert sample["prompt"].count("\n\nQuestion:") == 2
        example, asked = (part.split("\n\nQuestion:")[0] for part in sample["prompt"].split("Context: ")[1:])
        assert sample["doc"]["context"].startswith(asked)
        lengths += [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (example, asked)]
        assert (
            len(tokenizer(sample["response"][0], add_special_tokens=False)["input_ids"]) <= 55
        )  # merges may differ
    assert max(lengths) == 512
    protocol = json.loads((tmp_path / "a/metrics.json").read_text())["protocol"]
    how = protocol["tasks"]["tydiqa_goldp_en"]
    assert protocol["name"] == "published" and how["num_fewshot"] == 1 and how["seeds"]["torch"] == 42
    assert how["generation"]["temperature"] == 1.0 and how["generation"]["max_gen_toks"] == 50


def test_tydiqa_is_the_mean_over_nine_languages_that_count_alike() -> None:
    languages = {
        language: {"f1": 0.1 * place, "f1_stderr": 0.03 if place else 0.04}
        for place, language in enumerate(LANGUAGES)
    }
    found = averaged(languages)
    assert found["f1"] == pytest.approx(0.4) and found["f1.te"] == pytest.approx(0.8)
    assert found["f1_stderr"] == pytest.approx(np.sqrt(0.04**2 + 8 * 0.03**2) / 9)
    del languages["fi"]["f1_stderr"]
    assert "f1_stderr" not in averaged(languages) and "f1.fi_stderr" not in averaged(languages)


def asked_of(task: str, **config: Any) -> Asked:
    return asked(EvaluateConfig(tasks=[task], **config), task, micro_batch="auto", device="cpu")


def test_a_protocol_fills_in_what_the_recipe_leaves_open() -> None:
    assert asked_of("boolq") == Asked(None, Seeds(0, 1234, 1234, 1234), 1)
    assert asked_of("boolq", protocol="published") == Asked(0.99, Seeds(42, 42, 42, 42), 24)
    assert asked_of("asdiv", protocol="published").batch_size == 20
    assert asked_of("tydiqa", protocol="published").limit == 100
    assert asked_of("tydiqa", protocol="published", limit=3, seed=7) == Asked(3, Seeds(7, 7, 7, 7), 24)


def test_entries_beside_the_benchmarks_cannot_be_benchmarks() -> None:
    with pytest.raises(ValidationError, match="'held_out' is an entry of its own"):
        EvaluateConfig(tasks=["held_out"])


def test_metrics_keep_the_filter_only_where_it_tells_two_apart() -> None:
    progress = Listener()
    results = {
        "alias": "gsm",
        "sample_len": 4,
        "exact_match,strict": 0.25,
        "exact_match_stderr,strict": 0.1,
        "exact_match,loose": 0.5,
        "exact_match_stderr,loose": "N/A",
        "acc,none": 1,
        "acc_stderr,none": float("nan"),
        "bleu,none": float("nan"),
    }
    assert plain_metrics(results, progress, "gsm") == {
        "exact_match.strict": 0.25,
        "exact_match.strict_stderr": 0.1,
        "exact_match.loose": 0.5,
        "acc": 1.0,
    }
    assert progress.notes == ["evaluate: gsm: bleu is nan, not a finite number; it is left out"]


def test_boolq_and_asdiv_run_from_local_files_and_send_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (SHARED / "oracle/tiny_base").is_dir():
        pytest.skip(f"{SHARED}: the figures and data of the workplace are not there")
    attempts: list[Any] = []

    def refuse(*args: Any, **kwargs: Any) -> None:
        attempts.append(args)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    summary = evaluate(
        SHARED / "oracle/tiny_base", tmp_path / "out", ["boolq", "asdiv"], 4, task_dir=SHARED / "data"
    )
    assert attempts == []
    assert summary["items"] == 8
    assert {task: sorted(values) for task, values in summary["metrics"].items()} == {
        "boolq": ["acc", "acc_stderr"],
        "asdiv": ["acc", "acc_stderr"],
    }
    protocol = json.loads((tmp_path / "out/metrics.json").read_text())["protocol"]
    assert protocol["name"] == "harness" and protocol["harness_version"]
    asked = {task: (how["num_fewshot"], how["items"]) for task, how in protocol["tasks"].items()}
    assert asked == {"asdiv": (0, 4), "boolq": (0, 4)}
    first = json.loads((SHARED / "data/boolq.jsonl").read_text().splitlines()[0])
    assert samples(tmp_path / "out", "boolq")[0]["doc"]["question"] == first["question"]
