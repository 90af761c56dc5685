"""Which steps run again when a field of the recipe changes: each field, generated from the model."""

import pytest

from forgetting_core.config import Recipe, TrainingConfig
from tests.identity import RECIPES, Flip, all_fields, flips, noticed, record, walked

FLIPS = flips()
OF_THE_STEP = {
    "data": "split",
    "split": "split",
    "reference": "reference",
    "score": "score[",
    "partition": "partition",
    "synthetic": "prepare",
}
"""Part of the recipe: start of the labels of the steps that see it."""
LOAD_THE_MODEL = ("split", "reference", "score[", "forget", "evaluate[")
ONLY_REPORTED = {"name", "baselines"}
ON_VALIDATION_ROWS = {"held_out", "diversity"}
TASK = {"boolq", "skills", *ON_VALIDATION_ROWS}
"""What the recipes evaluate on."""
SHARED_WITH_BASELINES = {*TrainingConfig.model_fields, "normalization"}


def steps_that_see(flip: Flip) -> set[str]:
    """By the design: each step its own part of the recipe, the report all of it."""
    labels = walked(flip.recipe).identities.keys()
    if flip.field == "execution.micro_batch" and flip.recipe == "microbatch":
        return {label for label in labels if label.startswith("forget")}
    if flip.field == "execution.trust_remote_code":
        return {label for label in labels if label.startswith(LOAD_THE_MODEL)}
    if flip.execution:
        return set()
    section = str(flip.path[0])
    if flip.field == "evaluate.dtype":
        return {"report", *(label for label in labels if label.startswith("evaluate["))}
    if section == "evaluate":
        asked = {"diversity"} if flip.path[1] == "diversity" else TASK - ON_VALIDATION_ROWS
        return {"report", *(label for label in labels if label.endswith(tuple(f",{task}]" for task in asked)))}
    if section in ONLY_REPORTED:
        return {"report"}
    if section == "forget":
        if flip.path[1] in SHARED_WITH_BASELINES:
            return {"report", *(label for label in labels if label.startswith("forget"))}
        # the same objective on other labels; the same forgetting, but for how it is bounded
        bounded = set() if flip.path[1] in ("objective", "negative") else {"forget[npo]"}
        return {"report", "forget", "forget[random]", *bounded}
    if flip.field == "partition.labelling":
        return {"report", "partition"}
    assert section in OF_THE_STEP, f"the recipe has a new part `{section}`: say here which steps see it"
    return {"report", *(label for label in labels if label.startswith(OF_THE_STEP[section]))}


def below(flip: Flip, labels: set[str]) -> set[str]:
    """`labels` and every step that reads, directly or not, what they write (the table of the design)."""
    everything, objective = set(flip.walked.identities), flip.after.forget
    evaluations = {label for label in everything if label.startswith("evaluate[")}
    fine_tunes = {label for label in everything if label.startswith("forget")}
    reads_labels = fine_tunes - {"forget[sft]", *(["forget"] if objective.objective == "sft" else [])}
    reached = set(labels)
    if "prepare" in reached:
        return everything
    if "split" in reached:
        given = {"base"} if "reference" in everything else {"base", "reference"}
        benchmarks = {f"evaluate[{model},{task}]" for model in given for task in TASK - ON_VALIDATION_ROWS}
        reached |= everything - benchmarks - {"prepare"}
    if "reference" in reached:
        reached |= {"score[reference]", *(f"evaluate[reference,{task}]" for task in TASK)}
    if {"score[base]", "score[reference]"} & reached:
        reached |= {"partition", "partition[random]"}
    if "score[base]" in reached:
        reached |= {"forget[npo]"} | ({"forget"} if getattr(objective, "negative", None) == "npo" else set())
    if "partition" in reached:
        reached |= reads_labels - {"forget[random]"}
    if "partition[random]" in reached:
        reached.add("forget[random]")
    for label in reached & fine_tunes:
        model = label.removeprefix("forget[").removesuffix("]")
        reached |= {f"evaluate[{model},{task}]" for task in TASK}
    if reached & (evaluations | {"partition"}):
        reached.add("report")
    return reached & everything


@pytest.mark.parametrize("flip", FLIPS, ids=str)
def test_a_changed_field_is_noticed_by_the_steps_that_see_it_and_those_below(flip: Flip) -> None:
    assert flip.old != flip.new or type(flip.old) is not type(flip.new)
    own, fingerprints = noticed(flip)
    expected = steps_that_see(flip) & flip.walked.identities.keys()
    assert own == expected, f"{flip}: {flip.old!r} -> {flip.new!r}"
    if flip.field not in ("baselines", "forget.objective"):  # these change what reads what
        assert fingerprints == below(flip, expected), f"{flip}: {flip.old!r} -> {flip.new!r}"


def test_every_field_is_changed_in_some_recipe() -> None:
    missing = all_fields() - {(flip.model.__name__, flip.name) for flip in FLIPS}
    assert not missing, f"add a recipe to tests/identity.py in which these are set: {sorted(missing)}"


def test_beside_the_execution_part_only_addresses_are_marked_as_execution() -> None:
    marked = {(flip.model.__name__, flip.name) for flip in FLIPS if flip.execution and flip.path[0] != "execution"}
    assert marked == {
        ("ModelSource", "path"),
        ("ModelSource", "revision"),
        ("HubData", "hub"),
        ("HubData", "revision"),
        ("HubData", "split"),
        ("HubData", "name"),
        ("DataConfig", "train"),
        ("DataConfig", "reference"),
        ("EvaluateConfig", "task_dir"),
    }, "a wrong marker is a stale result: mark only how a step is computed, or where its input is"


@pytest.mark.parametrize("name", RECIPES)
def test_the_same_recipe_gives_the_same_fingerprints(name: str) -> None:
    again = Recipe.model_validate(RECIPES[name].model_dump(by_alias=True))
    assert record(again).fingerprints == record(RECIPES[name]).fingerprints


def test_steps_with_the_same_config_differ_by_what_they_read() -> None:
    found = record(RECIPES["forget"]).fingerprints
    assert len(set(found.values())) == len(found)


def test_another_rho_runs_partition_what_reads_the_labels_and_no_more() -> None:
    (flip,) = [flip for flip in FLIPS if (flip.recipe, flip.field) == ("forget", "partition.rho")]
    assert noticed(flip)[1] == {
        "partition",
        "partition[random]",
        "forget",
        "forget[ignore]",
        "forget[npo]",
        "forget[random]",
        *(
            f"evaluate[{model},{task}]"
            for model in ("forget", "ignore", "npo", "random")
            for task in ("boolq", "held_out", "diversity")
        ),
        "report",
    }


def test_another_benchmark_runs_alone() -> None:
    before = record(RECIPES["forget"]).fingerprints
    evaluate = {**RECIPES["forget"].evaluate.model_dump(), "tasks": ["boolq", "asdiv"]}
    more = Recipe.model_validate({**RECIPES["forget"].model_dump(by_alias=True), "evaluate": evaluate})
    after = record(more).fingerprints
    models = ("base", "sft", "ignore", "reference", "npo", "random", "forget")
    assert after.keys() - before.keys() == {f"evaluate[{model},asdiv]" for model in models}
    assert {label for label in before if before[label] != after[label]} == {"report"}


def test_diversity_is_measured_beside_everything_else() -> None:
    data = RECIPES["forget"].model_dump(by_alias=True)
    without = Recipe.model_validate({**data, "evaluate": {**data["evaluate"], "diversity": None}})
    before, after = record(without).fingerprints, record(RECIPES["forget"]).fingerprints
    models = ("base", "sft", "ignore", "reference", "npo", "random", "forget")
    assert after.keys() - before.keys() == {f"evaluate[{model},diversity]" for model in models}
    assert {label for label in before if before[label] != after[label]} == {"report"}


def test_without_benchmarks_and_validation_rows_nothing_is_evaluated() -> None:
    nothing = {"split": {"validation_rows": 0}, "evaluate": {"tasks": [], "diversity": None}}
    recipe = Recipe.model_validate({**RECIPES["forget"].model_dump(by_alias=True), **nothing})
    assert not any(label.startswith("evaluate") for label in record(recipe).fingerprints)


def test_another_labelling_runs_partition_and_what_reads_its_labels_only() -> None:
    (flip,) = [flip for flip in FLIPS if (flip.recipe, flip.field) == ("forget", "partition.labelling")]
    changed = noticed(flip)[1]
    assert {"partition", "forget", "forget[ignore]", "forget[npo]"} <= changed
    assert not {"score[base]", "score[reference]", "partition[random]", "forget[random]", "forget[sft]"} & changed
