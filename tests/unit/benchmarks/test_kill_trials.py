"""Trials of the kill matrix: drawn from their seeds, fairly, and the same again."""

from collections import Counter
from pathlib import Path

import pytest

from benchmarks import kills
from benchmarks.kills import kept
from benchmarks.kills.attempt import Result
from benchmarks.kills.gate import Write
from benchmarks.kills.trial import FIRST_STEPS, PAIRS, VICTIMS, draw
from benchmarks.kills.world import Undisturbed


def test_a_seed_gives_the_same_trial_again() -> None:
    assert [draw(seed) for seed in range(50)] == [draw(seed) for seed in range(50)]
    assert len({draw(seed).moment for seed in range(50)}) == 50


def test_every_victim_is_killed_as_often_with_either_signal() -> None:
    trials = [draw(seed) for seed in range(3 * len(PAIRS))]
    assert Counter((trial.victim, trial.signal) for trial in trials) == dict.fromkeys(PAIRS, 3)
    assert {trial.victim for trial in trials[: len(VICTIMS)]} == set(VICTIMS)


def test_kills_are_spread_over_steps_moments_writes_and_places() -> None:
    trials = [draw(seed) for seed in range(200)]
    assert {trial.first_step for trial in trials} == FIRST_STEPS.keys()
    assert {(trial.at_write, trial.answered) for trial in trials} >= {(True, True), (True, False), (False, True)}
    assert min(trial.moment for trial in trials) < 0.05 < 0.85 < max(trial.moment for trial in trials)
    assert {trial.on_pool for trial in trials if trial.victim in ("flow", "child", "s3")} == {True, False}


def test_only_a_run_whose_writes_pass_the_gate_is_killed_in_one() -> None:
    trials = [draw(seed) for seed in range(200)]
    assert not [trial for trial in trials if trial.on_pool and trial.at_write]
    assert all(trial.on_pool for trial in trials if trial.victim == "worker")


def test_a_run_that_finds_steps_in_the_store_takes_what_the_others_took() -> None:
    targets = ["data/prepare/1", "commits/prepare/1", "data/forget/1", "commits/forget/1", "runs/1"]
    writes = tuple(Write(12.0 + 2 * number, f"/bucket/v1/{target}.json") for number, target in enumerate(targets))
    usual = Undisturbed({}, began=10.0, ended=21.0, writes=writes)
    assert (usual.seconds_from("prepare"), usual.writes_from("prepare")) == (11.0, 5)
    # two seconds until the first write, and what came after the commit of `prepare`
    assert (usual.seconds_from("forget"), usual.writes_from("forget")) == (9.0, 3)
    assert (usual.seconds_from("report"), usual.writes_from("report")) == (5.0, 1)


def test_what_became_of_trials_is_kept_and_those_are_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kills.jsonl"
    first, second = (Result(draw(seed), "again", "»killed«", 1.0, 2.5, "abc1234+") for seed in (4, 1))
    kept.keep(path, [first], [])
    kept.keep(path, [second], ["a slot is held"])
    assert kept.read(path) == ([second, first], ["a slot is held"])
    # all that is asked for is there, so that no stack is started
    kept.keep(path, [Result(draw(seed), "went on", "", 3.0, 4.0, "def5678") for seed in (0, 2, 3)], [])
    monkeypatch.setattr(kills, "kill", pytest.fail)
    results, strays = kills.try_all(5, path)
    assert [result.trial.seed for result in results] == [0, 1, 2, 3, 4]
    shown = kills.rows(results, strays, 5)
    assert [row.what for row in shown if not row.holds] == ["left at the end"]
    assert (shown[-1].measured, shown[-1].note) == (5, "0.0 hours of trials, by code abc1234+, def5678")
