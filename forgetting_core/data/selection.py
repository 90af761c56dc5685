"""Which rows go into which split: by seed, disjoint, and stable when another split's size changes."""

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from forgetting_core.config import SplitConfig
from forgetting_core.errors import InputError

SplitName = Literal["reference", "validation", "train"]
SPLIT_NAMES: tuple[SplitName, ...] = get_args(SplitName)
Indices = npt.NDArray[np.int64]


def choose_rows(split: SplitConfig, train: int, reference: int | None) -> Mapping[SplitName, Indices]:
    """Ascending row indices of each split, out of `train` and `reference` rows that there are.

    The splits are consecutive stretches of one seeded permutation, reference first, then validation, then train:
    more training rows leave the others as they are. With reference data of its own (`reference` not None) the
    reference split is chosen from that, in the same way. Raises `InputError` when there are too few rows.
    """
    order = np.random.Generator(np.random.PCG64(split.seed)).permutation(train)
    if reference is None:
        if split.reference_rows is None:
            raise InputError(
                "split.reference_rows: null means all rows of `data.reference`, but there is no reference data; "
                "give the number of rows to carve out of `data.train` (0 with a reference model that exists "
                "already), or name `data.reference`"
            )
        carved = split.reference_rows
        _demand(split, train, carved)
        chosen_reference = order[:carved]
    else:
        carved = 0
        _demand(split, train, carved)
        wanted = reference if split.reference_rows is None else split.reference_rows
        if wanted > reference:
            raise InputError(
                f"split.reference_rows: expected at most {reference}, the number of rows in `data.reference`, "
                f"found {wanted}"
            )
        chosen_reference = np.random.Generator(np.random.PCG64(split.seed)).permutation(reference)[:wanted]
    start = carved + split.validation_rows
    end = None if split.train_rows is None else start + split.train_rows
    return {
        "reference": np.sort(chosen_reference),
        "validation": np.sort(order[carved:start]),
        "train": np.sort(order[start:end]),
    }


def _demand(split: SplitConfig, available: int, carved: int) -> None:
    asked = {
        "split.reference_rows": carved,
        "split.validation_rows": split.validation_rows,
        "split.train_rows": split.train_rows if split.train_rows is not None else 1,
    }
    if sum(asked.values()) > available:
        numbers = " + ".join(f"{number} ({field})" for field, number in asked.items() if number)
        rest = ", at least one training row" if split.train_rows is None else ""
        raise InputError(
            f"`data.train` has {available} rows, too few for {numbers} = {sum(asked.values())}{rest}; "
            "lower these numbers or add data"
        )
