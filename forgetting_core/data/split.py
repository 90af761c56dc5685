"""The step `split`: raw instruction data becomes tokenised, disjoint splits.

The files are read twice, once to check and count every row, once to tokenise the chosen ones, so that only these
are ever held.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from itertools import chain, islice
from pathlib import Path
from typing import Any

from forgetting_core.config import DataConfig, SplitConfig
from forgetting_core.data.formats import recognise
from forgetting_core.data.rows import RawRow, read_rows
from forgetting_core.data.selection import SPLIT_NAMES, Indices, SplitName, choose_rows
from forgetting_core.data.storing import Counts, SplitTable
from forgetting_core.data.tokenising import RowTokeniser
from forgetting_core.errors import InputError
from forgetting_core.json_files import write_json
from forgetting_core.progress import Progress

_BATCH_ROWS = 1024
"""Rows tokenised at once: enough for all cores, few enough to report progress."""
_NOTES = {
    "rows_without_response": "rows have no response token (the prompt fills `data.max_length`, or no answer)",
    "empty_answers": "rows have an empty answer; its response is the end marker alone",
    "cut_rows": "rows were cut to `data.max_length`",
}


def split_data(
    data: DataConfig,
    split: SplitConfig,
    *,
    train: Sequence[Path],
    reference: Sequence[Path] | None,
    model: Path,
    out: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Write `train/`, `reference/` and `validation/` (those that have rows) below `out`, and `aux/statistics.json`.

    `train` and `reference` are data files (see `rows.SUFFIXES`), read in the given order; `model` is a folder with
    tokenizer and config.json. Returns the counts, `{"rows": {"train": …}, "tokens": {…}, …}`.
    Raises `InputError` for wrong data, too few rows, and a training split without any response token.
    """
    available, noise = _survey([*train])
    of_reference, noisy_reference = (None, False) if reference is None else _survey([*reference])
    chosen = choose_rows(split, available, of_reference)
    tokeniser = RowTokeniser(data, model)
    tables = {name: SplitTable(out / name, noise or noisy_reference) for name in SPLIT_NAMES}
    total = sum(len(indices) for indices in chosen.values())
    done = 0
    progress.advance(done, total, "rows")
    for files, names in _sources(train, reference):
        for batch in _batches(_chosen_rows(files, {name: chosen[name] for name in names})):
            for (name, _), row in zip(batch, tokeniser([row for _, row in batch]), strict=True):
                tables[name].add(row)
            done += len(batch)
            progress.advance(done, total, "rows")
    for name, table in tables.items():
        _check_answers(name, table.counts, data.max_length)
    for table in tables.values():
        table.finish()
    write_json(out / "aux" / "statistics.json", {name: table.statistics() for name, table in tables.items()})
    _note_oddities(tables, progress)
    return {
        field.name: {name: getattr(tables[name].counts, field.name) for name in SPLIT_NAMES}
        for field in fields(Counts)
    }


def _survey(files: Sequence[Path]) -> tuple[int, bool]:
    """(number of rows, whether any says what is noise); every row is checked."""
    count, noise = 0, False
    for row in chain.from_iterable(map(read_rows, files)):
        recognise(row)
        count += 1
        noise = noise or row.fields.get("noise") is not None
    return count, noise


def _sources(
    train: Sequence[Path], reference: Sequence[Path] | None
) -> list[tuple[Sequence[Path], tuple[SplitName, ...]]]:
    """The files and which splits come out of them."""
    if reference is None:
        return [(train, SPLIT_NAMES)]
    return [(reference, ("reference",)), (train, ("validation", "train"))]


def _chosen_rows(files: Sequence[Path], chosen: Mapping[SplitName, Indices]) -> Iterator[tuple[SplitName, RawRow]]:
    """The chosen rows of `files` in source order, each with its split."""
    owners = {int(index): name for name, indices in chosen.items() for index in indices}
    for index, row in enumerate(chain.from_iterable(map(read_rows, files))):
        if index in owners:
            yield owners[index], row


def _batches(rows: Iterable[tuple[SplitName, RawRow]]) -> Iterator[list[tuple[SplitName, RawRow]]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, _BATCH_ROWS)):
        yield batch


def _check_answers(name: SplitName, counts: Counts, max_length: int) -> None:
    if not counts.response_tokens and (counts.rows or name == "train"):
        raise InputError(
            f"the {name} split has no response token in any of its {counts.rows} rows; expected answers in the "
            f"data and a `data.max_length` (now {max_length}) that is longer than the prompts"
        )


def _note_oddities(tables: Mapping[SplitName, SplitTable], progress: Progress) -> None:
    for name, table in tables.items():
        counts = asdict(table.counts)
        for field, meaning in _NOTES.items():
            if counts[field]:
                progress.note(f"{name}: {counts[field]} of {counts['rows']} {meaning}")
