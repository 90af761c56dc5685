"""A store filled as a completed run would fill it, without computing anything: for tests of who looks at it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.dag import Input, Node, walk
from flows.sources import RecipeSources
from forgetting_core.config import Recipe
from infra.commits import Commit, Output
from infra.commits import Input as CommitInput
from infra.digests import DigestCache
from infra.fingerprint import fingerprint, step_payload
from infra.sources import Ref, Sources
from infra.store import Store
from tasks.spec import StepCall

PARTS = {"split": ("train", "reference"), "prepare": ("base", "train", "reference", "tasks")}


def record_run(recipe: Recipe, store: Store, scratch: Path, same_output: tuple[str, ...] = ()) -> dict[str, Commit]:
    """Commit every step of `recipe` and make the run its head; the commits by label.

    What a step "computes" depends on its fingerprint alone; steps in `same_output` always give the same bytes.
    """
    walker = RecordingWalker(recipe, store, scratch, same_output)
    walk(recipe, walker)
    used = {label: {"step": c.step, "fingerprint": c.fingerprint} for label, c in walker.commits.items()}
    store.write_head(recipe.name, {"recipe": recipe.name, "flow_run_id": "recorded", "steps": used})
    return walker.commits


class RecordingWalker(RecipeSources):
    """Publishes and commits a small artifact for every step."""

    def __init__(self, recipe: Recipe, store: Store, scratch: Path, same_output: tuple[str, ...]) -> None:
        super().__init__(Sources(DigestCache(scratch / "digests.sqlite"), scratch / "raw", fetch=True))
        self.commits: dict[str, Commit] = {}
        self._recipe, self._store, self._scratch, self._same = recipe, store, scratch, same_output

    def step(self, call: StepCall, inputs: Mapping[str, Input]) -> Node:
        refs = {name: ref for name, value in inputs.items() if (ref := _resolve(value)) is not None}
        digests = {name: ref.digest for name, ref in refs.items()}
        payload = step_payload(call.spec.name, call.spec.version, call.identity, digests)
        key = fingerprint(payload)
        commit = self._store.lookup(call.spec.name, key) or self._commit(call, payload, key, refs)
        self.commits[call.label] = commit
        return Node(commit)

    def _commit(self, call: StepCall, payload: dict[str, Any], key: str, refs: dict[str, Ref]) -> Commit:
        out = self._scratch / hashlib.sha256(f"{call.label} {key}".encode()).hexdigest()
        content = call.label if call.label in self._same else key
        parts = PARTS.get(call.spec.name, ())
        for name in parts or (".",):
            (out / name).mkdir(parents=True, exist_ok=True)
            (out / name / "result.txt").write_text(f"{content} {name}")
        artifact = self._store.publish(call.spec.name, out)
        outputs = {name: artifact.part(name) for name in parts}
        return self._store.commit(
            Commit(
                step=call.spec.name,
                fingerprint=key,
                payload=payload,
                artifact=artifact.uri.removeprefix(f"{self._store.root}/"),
                digest=artifact.digest,
                bytes=artifact.bytes,
                outputs={
                    name: Output(path=part.path, digest=part.digest, bytes=part.bytes)
                    for name, part in outputs.items()
                },
                inputs={name: CommitInput(digest=ref.digest, uri=ref.uri) for name, ref in refs.items()},
                provenance={
                    "label": call.label,
                    "execution": self._recipe.execution.model_dump(),
                    "started": "2026-01-01T00:00:00+00:00",
                    "seconds": 1.0,
                },
            )
        )


def _resolve(value: Input) -> Ref | None:
    if not isinstance(value, Node):
        assert value is None or isinstance(value, Ref)
        return value
    commit: Commit = value.handle
    if value.part is None:
        return Ref(commit.uri, commit.digest)
    return (
        Ref(commit.output_uri(value.part), commit.outputs[value.part].digest)
        if value.part in commit.outputs
        else None
    )
