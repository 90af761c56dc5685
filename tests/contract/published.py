"""An artifact with files of every kind, and a commit of it."""

from typing import Any

from infra.commits import Commit, Input, Output
from infra.fingerprint import step_payload
from infra.manifest import Artifact
from tests.stores import commit_of

STEP = "evaluate[sft,boolq]"
CONTENT = {
    "train/0.parquet": b"train" * 1000,
    "train/deep/1.parquet": b"more",
    "reference/0.parquet": b"",
    "metrics ρ.json": b"{}",
}
AUX = {"aux/times.json": b"12:00", "README.md": b"read me", "report.html": b"<p>"}


def make_commit(artifact: Artifact, root: str, seed: int = 42, **more: Any) -> Commit:
    payload = step_payload(STEP, 1, {"seed": seed, "rate": 1e-4}, {"data": "d" * 64})
    outputs = {"train": Output(path="train", digest=artifact.part("train").digest, bytes=5004)}
    inputs = {"data": Input(digest="d" * 64, uri=f"{root}/v1/data/split/x/train")}
    return commit_of(artifact, root, payload, outputs=outputs, inputs=inputs, **more)
