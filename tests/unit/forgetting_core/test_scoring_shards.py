"""Scoring in shards: the same bytes for any number of them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetting_core.config import ExecutionConfig, ScoreConfig
from forgetting_core.progress import Progress
from forgetting_core.scoring import LOSSES_FILE, merge_shards, score_split
from forgetting_core.tables import shard_rows
from tests.tiny import save_model, token_rows, write_rows


@given(rows=st.integers(1, 5000), block=st.integers(1, 600), shards=st.integers(1, 40))
def test_shards_are_whole_blocks_that_cover_every_row_once(rows: int, block: int, shards: int) -> None:
    parts = shard_rows(rows, block, shards)
    assert [row for part in parts for row in part] == list(range(rows))
    assert all(part.start % block == 0 for part in parts)
    assert len(parts) == min(shards, -(-rows // block))
    blocks = [-(-len(part) // block) for part in parts]
    assert max(blocks) - min(blocks) <= 1


@pytest.mark.parametrize("shards", [1, 2, 3, 50])
def test_merged_shards_are_the_bytes_of_scoring_at_once(tmp_path: Path, shards: int) -> None:
    data = write_rows(token_rows(23), tmp_path)
    base = save_model(tmp_path / "base")
    config, execution = ScoreConfig(dtype="float32", block_rows=5), ExecutionConfig(device="cpu")

    def score(name: str, only: range | None) -> Path:
        out = tmp_path / name
        out.mkdir()
        score_split(
            config,
            base=base,
            checkpoint=None,
            data=data,
            out=out,
            execution=execution,
            progress=Progress(),
            only=only,
        )
        return out

    at_once = score("at-once", None)
    parts = [score(f"shard-{rows.start}", rows) for rows in shard_rows(23, 5, shards)]
    merged = tmp_path / "merged"
    merged.mkdir()
    summary = merge_shards(parts, out=merged)

    assert (merged / LOSSES_FILE).read_bytes() == (at_once / LOSSES_FILE).read_bytes()
    assert summary["tokens"] > 0
