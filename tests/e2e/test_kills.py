"""Fifteen of the kills that `python -m benchmarks kills` tries: any process of a run or its servers."""

from collections.abc import Iterator

import pytest

from benchmarks.kills.attempt import Result, attempt
from benchmarks.kills.settling import settle
from benchmarks.kills.trial import draw
from benchmarks.kills.world import World, open_world

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
SEEDS = range(15)
RESULTS: list[Result] = []


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with open_world(tmp_path_factory.mktemp("kills")) as opened:
        yield opened


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"{draw(seed).victim}-{draw(seed).signal.name}-{seed}")
def test_after_a_kill_the_same_model_comes_out_and_nothing_is_left(world: World, seed: int) -> None:
    result = attempt(draw(seed), world)
    RESULTS.append(result)
    print(f"{result.trial}: {result.outcome} ({result.said})")
    assert result.outcome != "lost", f"{result.trial}: {result.said}"


def test_in_the_end_no_run_goes_on_in_prefect_or_mlflow(world: World) -> None:
    settled, strays = settle(RESULTS, world)
    assert strays == []
    assert [f"{result.trial}: {result.said}" for result in settled if result.outcome == "lost"] == []
