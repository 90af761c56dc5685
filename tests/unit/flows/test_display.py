"""What of the metrics the tables at the end of a run and of a sweep show."""

from flows.display import metric_cells, metric_columns


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
