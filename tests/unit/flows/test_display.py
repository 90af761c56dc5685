"""What of the metrics the tables at the end of a run and of a sweep show."""

from io import StringIO

from rich.console import Console

from flows.display import headline_columns, metric_cells, metric_columns, metrics_table


def test_a_column_is_neither_an_error_nor_a_count_nor_a_part_of_a_mean() -> None:
    tasks = {
        "tydiqa": {"f1": 0.4, "f1_stderr": 0.01, "f1.ar": 0.3, "f1.ar_stderr": 0.02},
        "gsm": {"exact_match.strict": 0.25, "exact_match.loose": 0.5},
        "held_out": {"loss": 2.0, "tokens": 7},
    }
    columns = metric_columns([tasks])
    assert columns == [
        ("gsm", "exact_match.loose"),
        ("gsm", "exact_match.strict"),
        ("held_out", "loss"),
        ("tydiqa", "f1"),
    ]
    assert list(metric_cells(tasks, columns)) == ["0.500", "0.250", "2.000", "0.400 ± 0.010"]


def test_many_metrics_of_several_models_fit_a_hundred_columns() -> None:
    tasks = {"diversity": {"distinct_1": 0.5, "distinct_1_stderr": 0.01, "prompts": 9, "self_bleu": 0.25}}
    metrics = {model: {**tasks, "held_out": {"loss": 2.0}} for model in ("base", "sft", "ignore", "forget")}
    metrics["forget"] = {"held_out": {"loss": 1.0}}
    console = Console(file=StringIO(), width=100)
    console.print(metrics_table(metrics))
    lines = [line.split() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert ["metric", "base", "sft", "ignore", "forget"] in lines
    assert ["diversity", "distinct_1", *(["0.500", "±", "0.010"] * 3)] in lines
    assert ["self_bleu", "0.250", "0.250", "0.250"] in lines
    assert ["held_out", "loss", "2.000", "2.000", "2.000", "1.000"] in lines


def test_sweeps_show_what_stands_for_diversity() -> None:
    diversity = {"distinct_1": 0.5, "distinct_2": 0.5, "self_bleu": 0.5, "self_bleu_stderr": 0.1, "length": 9.0}
    columns = headline_columns([{"diversity": diversity, "boolq": {"acc": 0.5}}])
    assert columns == [("boolq", "acc"), ("diversity", "distinct_2"), ("diversity", "self_bleu")]
