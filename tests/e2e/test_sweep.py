"""`forgetting sweep` on `nano`, as a user runs it: interrupted, then continued, with one ρ that fails."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.plan import plan
from forgetting_core.errors import InputError
from infra.store import open_store

PROJECT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-c", "from flows.cli import main; main()"]
RHOS = ["0.7", "0.5", "0.3"]
FAILS = "0"
"""No positive token: nothing to train the baseline `ignore` on."""
SHARED = {"prepare": 1, "split": 1, "reference": 1, "score": 2}
EVALUATED = {f"evaluate[{model},{task}]" for model in ("ignore", "forget") for task in ("skills", "held_out")}
SEES_RHO = {"partition", "forget[ignore]", "forget", *EVALUATED, "report"}


@dataclass
class Swept:
    """One sweep after the other in the same state directory."""

    state: Path
    interrupted: dict[str, Any]
    interrupted_status: int
    planned: dict[str, dict[str, str]]
    """{ρ: {step: state}} just before the sweep was continued."""
    continued: dict[str, Any]
    continued_status: int
    messages: str


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    state = tmp_path_factory.mktemp("sweep")
    sweep = ["sweep", "nano", "--json", "--rho"]
    interrupted, interrupted_status = _interrupt_second(start(state, *sweep, ",".join(RHOS)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORGETTING_STATE_DIR", str(state))
        plans = {rho: plan("nano", [f"partition.rho={rho}"], str(state / "store")) for rho in RHOS}
    planned = {rho: {step.label: step.assessment.state for step in steps} for rho, steps in plans.items()}
    process = start(state, *sweep, ",".join([FAILS, *RHOS]))
    continued, messages = process.communicate(timeout=300)
    return Swept(
        state, interrupted, interrupted_status, planned, json.loads(continued), process.returncode, messages
    )


def start(state: Path, *arguments: str) -> "subprocess.Popen[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    return subprocess.Popen(
        [*COMMAND, *arguments],
        env={**kept, "PYTHONPATH": str(PROJECT), "FORGETTING_STATE_DIR": str(state)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _interrupt_second(process: "subprocess.Popen[str]") -> tuple[dict[str, Any], int]:
    """Ctrl-C, for the whole process group as a terminal does it, when the second ρ begins."""
    assert process.stderr is not None
    heard = []
    for line in process.stderr:
        heard.append(line)
        if line.startswith("rho 0.5: 2 of 3"):
            os.killpg(process.pid, signal.SIGINT)
            break
    output, rest = process.communicate(timeout=300)
    assert output, "".join([*heard, rest])
    return json.loads(output), process.returncode


def states(run: dict[str, Any]) -> dict[str, str]:
    return {label: step["state"] for label, step in run["steps"].items()}


def test_ctrl_c_stops_the_whole_sweep(swept: Swept) -> None:
    assert swept.interrupted_status == 130
    done, stopped, never = (swept.interrupted["runs"][rho] for rho in RHOS)
    assert set(states(done).values()) == {"ran"}
    assert stopped["error"] == "partition: interrupted"
    assert never == {"error": "not started: interrupted before its turn", "steps": {}}


def test_steps_that_do_not_see_rho_run_once(swept: Swept) -> None:
    store = open_store(str(swept.state / "store"))
    assert {step: len(list(store.commits(step))) for step in SHARED} == SHARED
    assert set(states(swept.continued["runs"]["0.7"]).values()) == {"cached"}
    for rho in ("0.5", "0.3"):
        ran = {label for label, state in states(swept.continued["runs"][rho]).items() if state == "ran"}
        assert ran == SEES_RHO


def test_the_plan_foretold_every_step(swept: Swept) -> None:
    allowed = {"cached": {"cached"}, "run": {"ran"}, "maybe": {"ran", "cached"}}
    for rho, foretold in swept.planned.items():
        came = states(swept.continued["runs"][rho])
        assert foretold.keys() == came.keys()
        assert {label: state for label, state in came.items() if state not in allowed[foretold[label]]} == {}
        assert {label for label, state in foretold.items() if state != "cached"} == (
            SEES_RHO if rho != "0.7" else set()
        )


def test_each_rho_is_a_run_of_its_own_tagged_with_the_sweep(swept: Swept) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{swept.state / 'mlflow.db'}")
    flow_runs = set()
    for rho in RHOS:
        document = swept.continued["runs"][rho]
        run = client.get_run(document["mlflow_run_id"])
        assert run.data.params["rho"] == rho
        assert run.data.tags["prefect_parent_flow_run_id"] == swept.continued["sweep_id"]
        flow_runs.add(document["flow_run_id"])
    assert len(flow_runs) == 3


def test_the_plot_is_drawn(swept: Swept) -> None:
    plot = Path(swept.continued["plot"])
    assert plot == swept.state / "sweeps" / f"nano-{swept.continued['sweep_id']}.svg"
    text = plot.read_text(encoding="utf-8")
    assert all(words in text for words in ("skills exact_match", "forget", "sft", "base", "0.3"))
    assert plot.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_a_failing_rho_leaves_the_others_alone(swept: Swept) -> None:
    assert swept.continued_status == 1
    runs = swept.continued["runs"]
    assert list(runs) == [FAILS, *RHOS]
    assert runs[FAILS]["error"].startswith("forget[ignore]: no token to train on under the objective `ignore`")
    assert states(runs[FAILS])["partition"] == "ran"
    assert [rho for rho, run in runs.items() if "error" in run] == [FAILS]
    assert "error: rho 0: forget[ignore]" in swept.messages


@pytest.mark.parametrize(
    ("rhos", "message"),
    [
        ("0.7,0.70", "0.70 is 0.7, which is there already"),
        ("0,-0", "-0 is 0, which is there already"),
        ("0.5,1.5", "'1.5': expected a number from 0 to 1"),
        ("0.5,", "'': expected a number from 0 to 1"),
    ],
)
def test_wrong_values_are_refused(rhos: str, message: str) -> None:
    from flows.sweep import check_sweep

    with pytest.raises(InputError, match=message):
        check_sweep("nano", rhos.split(","), [])


def test_a_wrong_value_is_exit_status_2_before_anything_runs(tmp_path: Path) -> None:
    process = start(tmp_path, "sweep", "nano", "--rho", "0.7,7e-1", "--json")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "7e-1 is 0.7, which is there already" in json.loads(output)["error"]
    assert not (tmp_path / "store").exists()
