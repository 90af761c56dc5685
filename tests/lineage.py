"""What tests of the lineage recorder start from: a run, and named contents."""

import hashlib
from typing import Any, Literal

from infra.lineage import Lineage, Produced


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def produced(
    name: str, kind: Literal["data", "model"] = "data", content: str | None = None, uri: str | None = None
) -> Produced:
    content = content or name
    return Produced(name, kind, uri or f"s3://bucket/v1/data/{content}", sha(content))


def start(uri: str, recipe: str = "smollm2", **more: Any) -> Lineage:
    lineage = Lineage.start(uri, experiment="forgetting", recipe=recipe, variant="ρ=0.7", **more)
    assert lineage.degraded is None
    return lineage
