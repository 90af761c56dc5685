"""The independent figures that ours must agree with, and where they are."""

import json
from pathlib import Path

import numpy as np
import pytest

from forgetting_core.tables import IGNORE_INDEX, TokenRows

SHARED = Path(__file__).resolve().parents[2] / "shared"
ORACLE = SHARED / "oracle"

needs_oracle = pytest.mark.skipif(not ORACLE.is_dir(), reason="../shared/oracle is not beside this checkout")


class Oracle:
    """`tokens.npz` and the recorded runs."""

    def __init__(self) -> None:
        with np.load(ORACLE / "tokens.npz") as arrays:
            self.tokens = {name: arrays[name] for name in arrays.files}
        self.rows = TokenRows(self.tokens["input_ids"], self.tokens["labels"], self.tokens["row_offsets"])

    def flat(self, pairs: np.ndarray) -> np.ndarray:
        """Flat token indices of (row, j) pairs."""
        return self.rows.offsets[pairs[:, 0]] + pairs[:, 1]

    def sign(self, rho: str) -> np.ndarray:
        """int8 (T,): the stored sets, without the j = 0 labels, which nothing predicts."""
        sign = np.zeros(len(self.rows.input_ids), dtype=np.int8)
        sign[self.flat(self.tokens[f"pos_rho{rho}"])] = 1
        sign[self.flat(self.tokens[f"neg_rho{rho}"])] = -1
        return np.where(self.rows.response_mask(), sign, 0).astype(np.int8)

    def labelled(self) -> np.ndarray:
        """bool (T,): labelled tokens, j = 0 included."""
        return self.rows.labels != IGNORE_INDEX

    def trajectory(self, run: str) -> tuple[list[dict], list[dict]]:
        """(micro-batch records, optimizer-step records) of a recorded run."""
        lines = (ORACLE / "runs" / run / "trajectory.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        return [r for r in records if "loss" in r], [r for r in records if "opt_step" in r]
