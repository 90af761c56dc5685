"""The step `evaluate` of diversity on tiny models: what is asked, what is drawn, what is written."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from forgetting_core.config import DiversityConfig, EvaluateConfig, ExecutionConfig, Recipe
from forgetting_core.errors import InputError, NumericalError
from forgetting_core.evaluation.diversity import choose_prompts, evaluate_diversity
from forgetting_core.evaluation.diversity_metrics import Answer, means, measure
from forgetting_core.evaluation.sampling import Sampler
from forgetting_core.progress import Progress
from forgetting_core.tables import IGNORE_INDEX, TokenRows
from tests.tiny import save_model, token_rows, write_rows

CONFIG = DiversityConfig(prompts=6, samples=3, max_new_tokens=12)


class Listener(Progress):
    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def validation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(token_rows(12), tmp_path_factory.mktemp("validation"))


def evaluate(
    base: Path, validation: Path, out: Path, config: DiversityConfig = CONFIG, **changed: Any
) -> tuple[dict[str, Any], list[str]]:
    """(summary, notes)"""
    out.mkdir(parents=True)
    listener = Listener()
    inputs = {"checkpoint": None, "execution": ExecutionConfig(device="cpu"), "dtype": "float32"} | changed
    return evaluate_diversity(
        config, base=base, validation=validation, out=out, progress=listener, **inputs
    ), listener.notes


def read(out: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(metrics.json, the samples)"""
    lines = (out / "samples/diversity.jsonl").read_text(encoding="utf-8").split("\n")
    return json.loads((out / "metrics.json").read_text()), [json.loads(line) for line in lines[:-1]]


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_the_metrics_are_those_of_the_stored_answers(base: Path, validation: Path, tmp_path: Path) -> None:
    summary, notes = evaluate(base, validation, tmp_path / "out")
    stored, samples = read(tmp_path / "out")
    intervals = json.loads((tmp_path / "out/intervals.json").read_text())
    assert stored["diversity"] == summary["metrics"]["diversity"] and not notes
    assert summary["answers"] == 18
    assert summary["tokens"] == sum(len(ids) for sample in samples for ids in sample["answer_ids"])
    again = means(
        [
            measure([Answer(text, tuple(ids)) for text, ids in zip(s["answers"], s["answer_ids"], strict=True)])
            for s in samples
        ],
        seed=42,
    )
    assert again.keys() >= {"distinct_1", "distinct_2", "distinct_3", "self_bleu", "overlap", "length"}
    for name, mean in again.items():
        assert (stored["diversity"][name], stored["diversity"][f"{name}_stderr"]) == (mean.value, mean.stderr)
        assert intervals[name] == {"low": mean.low, "high": mean.high, "prompts": mean.prompts}
        assert mean.low <= mean.value <= mean.high
    how = {"prompts": 6, "samples": 3, "temperature": 1.0, "max_new_tokens": 12, "seed": 42, "dtype": "float32"}
    assert how.items() <= stored["protocol"].items()


def test_prompts_are_what_stands_before_the_answer(base: Path, validation: Path, tmp_path: Path) -> None:
    evaluate(base, validation, tmp_path / "out", CONFIG.model_copy(update={"prompts": 9}))
    rows, tokenizer = TokenRows.read(validation), AutoTokenizer.from_pretrained(base)
    spans = dict(enumerate(rows.rows()))
    samples = read(tmp_path / "out")[1]
    answered = [row for row, span in spans.items() if (rows.labels[span][1:] != IGNORE_INDEX).any()]
    assert [sample["doc_id"] for sample in samples] == answered and len(answered) == 9
    for sample in samples:
        ids, labels = rows.input_ids[spans[sample["doc_id"]]], rows.labels[spans[sample["doc_id"]]]
        first = next(place for place in range(1, len(ids)) if labels[place] != IGNORE_INDEX)
        assert sample["doc"] == tokenizer.decode(ids[:first])


def test_the_same_seed_gives_the_same_bytes_whatever_the_micro_batch(
    base: Path, validation: Path, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    config = CONFIG.model_copy(update={"samples": 5})
    evaluate(base, validation, tmp_path / "one", config, execution=ExecutionConfig(device="cpu", micro_batch=1))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    for name, size in (("two", 2), ("auto", "auto")):
        evaluate(
            base, validation, tmp_path / name, config, execution=ExecutionConfig(device="cpu", micro_batch=size)
        )
        assert contents(tmp_path / "one") == contents(tmp_path / name)
    assert any(len(set(sample["answers"])) > 1 for sample in read(tmp_path / "one")[1]), "one seed for all answers"
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("micro_batch", "expected"), [(2, [2, 2, 1]), (8, [5]), ("auto", [5])])
def test_no_more_answers_are_drawn_at_once_than_the_micro_batch(
    base: Path, micro_batch: int | str, expected: list[int]
) -> None:
    """So that a smaller one needs less memory."""
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    sizes = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    config = DiversityConfig(samples=5, max_new_tokens=1)
    Sampler(config, model, AutoTokenizer.from_pretrained(base), micro_batch).answers(np.array([5, 6]), seed=0)
    assert sizes == expected


def test_more_answers_begin_with_those_of_fewer(base: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base).eval(), AutoTokenizer.from_pretrained(base)
    prompt = np.array([5, 6])
    two, five = (
        Sampler(DiversityConfig(samples=samples, max_new_tokens=9), model, tokenizer, 1).answers(prompt, seed=3)
        for samples in (2, 5)
    )
    assert five[:2] == two


def test_a_prompt_has_the_same_answers_whatever_else_is_asked(base: Path, validation: Path, tmp_path: Path) -> None:
    evaluate(base, validation, tmp_path / "few", CONFIG.model_copy(update={"prompts": 3}))
    evaluate(base, validation, tmp_path / "all", CONFIG.model_copy(update={"prompts": 9}))
    evaluate(base, validation, tmp_path / "other", CONFIG.model_copy(update={"prompts": 9, "seed": 7}))
    few, everything, other = (
        {sample["doc_id"]: sample["answers"] for sample in read(tmp_path / name)[1]}
        for name in ("few", "all", "other")
    )
    assert len(few) == 3 and few.items() <= everything.items()
    assert all(everything[row] != other[row] for row in everything)


def test_answers_follow_the_models_own_distribution(base: Path) -> None:
    """The first token of 4000 answers against softmax(logits / temperature)."""
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    config = DiversityConfig(samples=4000, max_new_tokens=1, temperature=0.7)
    prompt = np.array([5, 6, 7])
    with torch.inference_mode():
        logits = model(torch.tensor(prompt)[None]).logits[0, -1].double()
    expected = torch.softmax(logits / 0.7, dim=0).numpy()
    sampler = Sampler(config, model, AutoTokenizer.from_pretrained(base), "auto")
    first, *other_ends = sampler.ends
    for end in other_ends:  # an answer does not say which of them ended it
        expected[first], expected[end] = expected[first] + expected[end], 0
    answers = sampler.answers(prompt, seed=3)
    drawn = np.bincount([(*answer.tokens, first)[0] for answer in answers], minlength=len(expected)) / 4000
    tolerance = 4 * np.sqrt(expected * (1 - expected) / 4000).max()
    assert np.abs(drawn - expected).max() < tolerance
    assert np.abs(expected - 1 / len(expected)).max() > 1.5 * tolerance, "too flat to tell"


def test_the_models_own_sampling_settings_are_not_used(base: Path, validation: Path, tmp_path: Path) -> None:
    """A model whose generation config is greedy in all but name, and punishes repetition."""
    model = AutoModelForCausalLM.from_pretrained(base)
    plain = tmp_path / "plain"
    model.save_pretrained(plain)
    AutoTokenizer.from_pretrained(base).save_pretrained(plain)
    model.generation_config.update(do_sample=True, top_k=1, top_p=0.01, repetition_penalty=9.0, min_new_tokens=12)
    own = tmp_path / "own"
    model.save_pretrained(own)
    AutoTokenizer.from_pretrained(base).save_pretrained(own)
    assert json.loads((own / "generation_config.json").read_text())["top_k"] == 1
    evaluate(plain, validation, tmp_path / "a")
    evaluate(own, validation, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_an_answer_ends_at_any_of_the_models_end_tokens(base: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    model.generation_config.eos_token_id = [*range(0, 97, 2)]
    config = DiversityConfig(samples=64, max_new_tokens=20)
    sampler = Sampler(config, model, AutoTokenizer.from_pretrained(base), "auto")
    answers = sampler.answers(np.array([5, 6]), seed=0)
    assert all(token % 2 for answer in answers for token in answer.tokens)
    assert {len(answer.tokens) for answer in answers} > {0, 1, 2}


def test_a_long_prompt_loses_its_start_and_is_told_of(tmp_path: Path) -> None:
    base = save_model(tmp_path / "base", "gpt_neo")  # learned positions: 64
    ids = (np.arange(200) % 90).astype(np.int32)
    labels = np.where(np.arange(200) % 100 >= 60, ids, IGNORE_INDEX).astype(np.int32)
    rows = write_rows(TokenRows(ids, labels, np.array([0, 100, 200])), tmp_path / "rows")
    config = DiversityConfig(prompts=2, samples=2, max_new_tokens=32)
    _, notes = evaluate(base, rows, tmp_path / "out", config)
    assert len(notes) == 1 and "2 of 2 prompts are cut on the left to 32 tokens" in notes[0]
    with pytest.raises(InputError, match="64 leaves no room for a prompt in the model's 64 positions; lower it"):
        evaluate(base, rows, tmp_path / "b", config.model_copy(update={"max_new_tokens": 64}))


def test_fewer_prompts_than_asked_for_are_told_of(base: Path, validation: Path, tmp_path: Path) -> None:
    summary, notes = evaluate(base, validation, tmp_path / "out", DiversityConfig(samples=1, max_new_tokens=2))
    assert len(notes) == 1 and "9 of the 64 prompts asked for: 12 validation rows, 3 of them without" in notes[0]
    metrics = summary["metrics"]["diversity"]
    assert metrics["prompts"] == 9
    assert "distinct_1" in metrics and not {"self_bleu", "overlap"} & metrics.keys()


def test_rows_without_any_answer_are_refused() -> None:
    rows = TokenRows(np.array([1, 2], np.int32), np.full(2, IGNORE_INDEX, np.int32), np.array([0, 2]))
    with pytest.raises(InputError, match=r"none of the 1 validation rows has a response token.*data\.max_length"):
        choose_prompts(rows, CONFIG, Progress())


def test_a_model_that_diverged_is_named_as_the_fault(base: Path, validation: Path, tmp_path: Path) -> None:
    broken = save_model(tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"].fill_(float("nan"))
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NumericalError, match="logits are not finite"):
        evaluate(base, validation, tmp_path / "out", checkpoint=broken)


def test_diversity_without_validation_rows_is_refused_with_what_to_do() -> None:
    recipe = {"name": "x", "synthetic": {}, "evaluate": {"diversity": {}}}
    with pytest.raises(ValidationError, match=r"split\.validation_rows is 0; set that to 64 or more"):
        Recipe.model_validate(recipe)
    assert Recipe.model_validate({**recipe, "split": {"validation_rows": 64}}).evaluate.diversity is not None


def test_no_benchmark_may_be_called_diversity() -> None:
    with pytest.raises(ValidationError, match="'diversity' is an entry of its own"):
        EvaluateConfig(tasks=["diversity"])
