import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from forgetting_core.config import SyntheticConfig
from forgetting_core.errors import InputError, Interrupted
from forgetting_core.progress import Progress
from forgetting_core.recipe import load_recipe
from forgetting_core.synthetic import prepare
from forgetting_core.synthetic.corpus import draw_prompts
from forgetting_core.synthetic.noise import NOISE_KINDS, noise_spans, plant
from forgetting_core.synthetic.skills import SKILLS, clean_answer

ROOT = Path(__file__).parents[3]
RECIPES = ROOT / "flows" / "recipes"


def nano(**changes: Any) -> SyntheticConfig:
    config = load_recipe(RECIPES / "nano.yaml").synthetic
    assert config is not None
    return SyntheticConfig.model_validate({**config.model_dump(), **changes})


def identity_files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] != "aux"
    }


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("synthetic")
    return out, prepare(nano(), out=out, progress=Progress())


@pytest.fixture
def other_thread_count() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    yield
    torch.set_num_threads(threads)


def test_the_same_config_gives_the_same_bytes_whatever_torch_did_before(
    made: tuple[Path, dict[str, Any]], tmp_path: Path, other_thread_count: None
) -> None:
    torch.manual_seed(123)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    summary = prepare(nano(), out=tmp_path, progress=Progress())
    assert identity_files(tmp_path) == identity_files(made[0])
    assert summary == made[1]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_another_process_gives_the_same_bytes(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from forgetting_core.config import SyntheticConfig;"
        "from forgetting_core.progress import Progress; from forgetting_core.synthetic import prepare;"
        "config = SyntheticConfig.model_validate_json(sys.argv[1]);"
        "prepare(config, out=Path(sys.argv[2]), progress=Progress())"
    )
    command = [sys.executable, "-c", code, nano().model_dump_json(), str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": "1"})
    assert identity_files(tmp_path) == identity_files(made[0])


def test_another_seed_gives_other_data_and_another_model(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    prepare(nano(seed=7), out=tmp_path, progress=Progress())
    ours, theirs = identity_files(made[0]), identity_files(tmp_path)
    assert ours.keys() == theirs.keys()
    for name in ("base/model.safetensors", "train/train.jsonl", "tasks/skills_test.jsonl"):
        assert ours[name] != theirs[name]


def test_noise_spans_point_at_the_characters_that_differ_from_the_clean_answer(
    made: tuple[Path, dict[str, Any]],
) -> None:
    noisy = 0
    for row in read_rows(made[0] / "train" / "train.jsonl"):
        completion, clean = row["completion"], clean_answer(row["prompt"])
        marked = {at for start, end in row["noise"] for at in range(start, end)}
        noisy += bool(marked)
        assert bool(marked) == (completion != clean)
        start, clean_words = 0, clean.split(" ")
        for place, word in enumerate(completion.split(" ")):
            right = clean_words[place] if place < len(clean_words) else ""
            for at, char in enumerate(word):
                assert ((start + at) in marked) == (right[at : at + 1] != char)
            start += len(word) + 1
    assert noisy > 10


@pytest.mark.parametrize(
    ("clean", "completion", "expected"),
    [
        ("68", "68", []),
        ("68", "63", ["3"]),
        ("9", "19", ["19"]),
        ("red cat", "red fox", ["fox"]),
        ("red cat", "red cat see you", [" see you"]),
        ("1 2 3", "3 2 1", ["3", "1"]),
    ],
)
def test_noise_spans_of_known_answers(clean: str, completion: str, expected: list[str]) -> None:
    assert [completion[start:end] for start, end in noise_spans(clean, completion)] == expected


def test_every_kind_of_noise_can_be_planted_in_every_skill() -> None:
    random = Random(0)
    for skill in SKILLS:
        for kind in NOISE_KINDS:
            planted = [plant(skill.prompt(random), kind, random)[1] for _ in range(10)]
            assert sum(bool(spans) for spans in planted) >= 5, (skill.name, kind)


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("Add the numbers: Ada 5 Tom 8\n", "13"),
        ("Sort the numbers: 7 0 3 5\n", "0 3 5 7"),
        ("Look up the number: bed 4 zip 5 key 2 for zip\n", "zip 5"),
        ("Copy the words: cat bus key\n", "cat bus key"),
        ("Name the day of return: Ada left Saturday for 3 days by bus\n", "Tuesday"),
        ("Reverse the letters: a b c\n", "c b a"),
        ("Find the largest number: 3 9 4 0\n", "9"),
        ("Write in capitals: cat bus\n", "CAT BUS"),
    ],
)
def test_clean_answers_are_right(prompt: str, answer: str) -> None:
    assert clean_answer(prompt) == answer


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
def test_the_share_of_noise_in_response_tokens_is_met(tmp_path: Path, share: float) -> None:
    config = nano(noise=share, train_rows=800, pretrain={"rows": 200, "steps": 1})
    summary = prepare(config, out=tmp_path, progress=Progress())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    tokens = noise = 0
    for row in read_rows(tmp_path / "train" / "train.jsonl"):
        prompt, text = row["prompt"], row["prompt"] + row["completion"]
        for start, end in tokenizer(text, return_offsets_mapping=True)["offset_mapping"]:
            if end > len(prompt):
                tokens += 1
                noise += any(
                    first + len(prompt) < end and start < last + len(prompt) for first, last in row["noise"]
                )
        tokens += 1  # the end of the answer
    assert noise / tokens == pytest.approx(share, abs=0.01)
    assert (summary["train_noise_tokens"], summary["train_response_tokens"]) == (noise, tokens)


def test_an_impossible_share_of_noise_names_the_part_and_the_most_there_can_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"0\.95 of the response tokens of the train rows.* it is 0\.\d\d"):
        prepare(nano(noise=0.95), out=tmp_path, progress=Progress())


def test_more_questions_than_a_skill_has_are_refused() -> None:
    with pytest.raises(InputError, match="has no further question"):
        draw_prompts(nano(train_rows=60_000))


def test_the_reference_rows_are_clean_and_no_question_occurs_twice(made: tuple[Path, dict[str, Any]]) -> None:
    out, summary = made
    reference = read_rows(out / "reference" / "reference.jsonl")
    assert all(row["completion"] == clean_answer(row["prompt"]) and not row["noise"] for row in reference)
    prompts = [
        [row["prompt"] for row in read_rows(out / name)]
        for name in ("train/train.jsonl", "reference/reference.jsonl", "tasks/skills_test.jsonl")
    ]
    assert (
        [len(part) for part in prompts]
        == [160, 48, 24]
        == [summary[f"{part}_rows"] for part in ("train", "reference", "test")]
    )
    everything = [prompt for part in (*prompts, draw_prompts(nano()).pretraining) for prompt in part]
    assert len(everything) == len(set(everything)) == 160 + 48 + 24 + 400


def test_the_base_model_is_a_hugging_face_directory_with_an_end_token_only(
    made: tuple[Path, dict[str, Any]],
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(made[0] / "base")
    model = AutoModelForCausalLM.from_pretrained(made[0] / "base")
    assert (tokenizer.bos_token, tokenizer.pad_token) == (None, None)
    assert tokenizer.eos_token_id == model.config.eos_token_id is not None
    assert model.config.vocab_size == len(tokenizer) == 384
    for text in ("Sort the numbers: 7 0 3\n0 3 7", "Ünïcode — \t日本 123", " two  spaces "):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert "transformers_version" not in (made[0] / "base" / "config.json").read_text(encoding="utf-8")


def test_the_benchmark_asks_in_the_tokens_of_the_training_rows(made: tuple[Path, dict[str, Any]]) -> None:
    tasks = made[0] / "tasks"
    task = yaml.safe_load((tasks / "skills.yaml").read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(made[0] / "base")
    for row in read_rows(tasks / task["dataset_kwargs"]["data_files"]["test"]):
        question, answer = row[task["doc_to_text"]], row[task["doc_to_target"]]
        assert answer == clean_answer(question)
        assert row["source"] in {skill.name for skill in SKILLS}
        question_ids, answer_ids = tokenizer(question)["input_ids"], tokenizer(answer)["input_ids"]
        assert tokenizer(question + answer)["input_ids"] == question_ids + answer_ids
        assert len(answer_ids) < task["generation_kwargs"]["max_gen_toks"]


def test_pretraining_reports_its_steps_and_can_be_stopped(tmp_path: Path) -> None:
    class StopAtStep3(Progress):
        def advance(self, done: float, total: float, unit: str) -> None:
            self.stop_requested = (done, total, unit) == (3, 30, "steps")
            super().advance(done, total, unit)

    with pytest.raises(Interrupted):
        prepare(nano(), out=tmp_path, progress=StopAtStep3())


@pytest.mark.parametrize("name", ["demo", "nano"])
def test_the_built_in_recipes_bring_everything_themselves(name: str) -> None:
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    assert recipe.synthetic is not None
    assert recipe.model is recipe.data.train is recipe.data.reference is recipe.evaluate.task_dir is None
    assert recipe.split.validation_rows > 0
