"""The step `split`: raw instruction data becomes tokenised, disjoint splits.

The files are read twice, once to check and count every row, once to tokenise the chosen ones, of which a group at a
time is held.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from itertools import islice
from pathlib import Path
from typing import Any

from forgetting_core.ahead import ahead
from forgetting_core.config import DataConfig, SplitConfig
from forgetting_core.data.formats import recognise
from forgetting_core.data.pool import BAD_ROWS_FILE, Pool, survey, survey_skipping
from forgetting_core.data.rows import RawRow
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
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Write `train/`, `reference/` and `validation/` (those that have rows) below `out`, and `aux/statistics.json`.

    `train` and `reference` are data files (see `rows.SUFFIXES`), read in the given order; `model` is a folder with
    tokenizer and config.json. Returns the counts, `{"rows": {"train": …}, "tokens": {…}, …}`.
    With `data.on_bad_row: skip` the rows that cannot be used are in `aux/bad_rows.jsonl`, and under `bad_rows` in
    the counts. Raises `InputError` for wrong data, too few rows, and a training split without any response token.
    """
    tokeniser = RowTokeniser(data, model, trust_remote_code=trust_remote_code)
    pools = {"train": _pool(data, train, tokeniser, out)}
    if reference is not None:
        pools["reference"] = _pool(data, reference, tokeniser, out)
    chosen = choose_rows(split, pools["train"].rows, pools["reference"].rows if reference is not None else None)
    noise = any(pool.says_noise for pool in pools.values())
    tables = {name: SplitTable(out / name, noise) for name in SPLIT_NAMES}
    total = sum(len(indices) for indices in chosen.values())
    done = 0
    progress.advance(done, total, "rows")
    for pool, names in _sources(pools):
        batches = _batches(_chosen_rows(pool, {name: chosen[name] for name in names}))
        for owners, rows in ahead((owners, tokeniser(batch)) for owners, batch in batches):
            for name, row in zip(owners, rows, strict=True):
                tables[name].add(row)
            done += len(owners)
            progress.advance(done, total, "rows")
    for name, table in tables.items():
        _check_answers(name, table.counts, data.max_length)
    for table in tables.values():
        table.finish()
    write_json(out / "aux" / "statistics.json", {name: table.statistics() for name, table in tables.items()})
    _note_oddities(tables, pools, progress)
    counts = {
        field.name: {name: getattr(tables[name].counts, field.name) for name in SPLIT_NAMES}
        for field in fields(Counts)
    }
    return {**counts, "bad_rows": {name: len(pool.skipped) for name, pool in pools.items()}}


def _pool(data: DataConfig, files: Sequence[Path], tokeniser: RowTokeniser, out: Path) -> Pool:
    """The rows to draw from; every one is checked."""
    if data.on_bad_row == "skip":
        return survey_skipping(files, tokeniser.check, out / "aux" / BAD_ROWS_FILE)
    return survey(files, recognise)


def _sources(pools: Mapping[str, Pool]) -> list[tuple[Pool, tuple[SplitName, ...]]]:
    """The rows and which splits come out of them."""
    if "reference" not in pools:
        return [(pools["train"], SPLIT_NAMES)]
    return [(pools["reference"], ("reference",)), (pools["train"], ("validation", "train"))]


def _chosen_rows(pool: Pool, chosen: Mapping[SplitName, Indices]) -> Iterator[tuple[SplitName, RawRow]]:
    """The chosen rows of `pool` in source order, each with its split."""
    owners = {int(index): name for name, indices in chosen.items() for index in indices}
    for index, row in enumerate(pool):
        if index in owners:
            yield owners[index], row


def _batches(
    rows: Iterable[tuple[SplitName, RawRow]],
) -> Iterator[tuple[tuple[SplitName, ...], tuple[RawRow, ...]]]:
    """(whose they are, rows)"""
    iterator = iter(rows)
    while batch := list(islice(iterator, _BATCH_ROWS)):
        owners, of_owners = zip(*batch, strict=True)
        yield owners, of_owners


def _check_answers(name: SplitName, counts: Counts, max_length: int) -> None:
    if not counts.response_tokens and (counts.rows or name == "train"):
        raise InputError(
            f"the {name} split has no response token in any of its {counts.rows} rows; expected answers in the "
            f"data and a `data.max_length` (now {max_length}) that is longer than the prompts"
        )


def _note_oddities(tables: Mapping[SplitName, SplitTable], pools: Mapping[str, Pool], progress: Progress) -> None:
    for field, pool in pools.items():
        if pool.skipped:
            found = len(pool.skipped) + pool.rows
            progress.note(
                f"data.{field}: {len(pool.skipped)} of {found} rows cannot be used and were skipped; they are in "
                f"aux/{BAD_ROWS_FILE} of this step's artifact, with the reasons"
            )
    for name, table in tables.items():
        counts = asdict(table.counts)
        for field, meaning in _NOTES.items():
            if counts[field]:
                progress.note(f"{name}: {counts[field]} of {counts['rows']} {meaning}")
