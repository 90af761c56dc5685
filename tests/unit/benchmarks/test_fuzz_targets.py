"""What the fuzzer starts from, and what it has found, keeps what the readers promise."""

import pytest

from benchmarks.fuzz.targets import TARGETS, found

SEEDS = [(name, index, seed) for name, target in TARGETS.items() for index, seed in enumerate(target.seeds())]
FOUND = {path: (name, data) for name in TARGETS for path, data in found(name).items()}


@pytest.mark.parametrize(("name", "index", "seed"), SEEDS)
def test_a_sound_input_is_read(name: str, index: int, seed: bytes) -> None:
    TARGETS[name].check(seed)


@pytest.mark.parametrize("path", FOUND)
def test_an_input_that_broke_a_reader_once_is_refused_in_words(path: str) -> None:
    name, data = FOUND[path]
    TARGETS[name].check(data)


def test_there_is_something_found_for_rows_and_manifests() -> None:
    assert {name for name, _ in FOUND.values()} >= {"rows", "manifest"}
