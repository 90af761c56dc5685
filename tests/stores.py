"""Small stores, made by publishing and committing directly: no pipeline has to run."""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.commits import Commit, Input, Output
from infra.fingerprint import fingerprint, step_payload
from infra.manifest import Artifact
from infra.store import Store


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    """A folder with these files."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def commit_of(artifact: Artifact, root: str, payload: dict[str, Any], **more: Any) -> Commit:
    """The commit of an artifact in the store at `root`, made as `payload` says; its folders are its outputs."""
    identity = (entry.path for entry in artifact.files if entry.role == "identity")
    folders = sorted({path.partition("/")[0] for path in identity if "/" in path})
    parts = {name: artifact.part(name) for name in folders}
    outputs = {name: Output(path=name, digest=part.digest, bytes=part.bytes) for name, part in parts.items()}
    record: dict[str, Any] = {
        "step": payload["step"],
        "fingerprint": fingerprint(payload),
        "payload": payload,
        "artifact": artifact.uri.removeprefix(f"{root}/"),
        "digest": artifact.digest,
        "bytes": artifact.bytes,
        "outputs": outputs,
        "inputs": {},
    }
    return Commit(**record | more)


def make_step(
    store: Store,
    folder: Path,
    step: str,
    inputs: Mapping[str, Commit | Input] | None = None,
    *,
    config: dict[str, Any] | None = None,
    label: str | None = None,
) -> Commit:
    """Publish `folder` and commit it as `step` made from `inputs`; every call has an identity of its own."""
    given = {
        name: Input(digest=item.digest, uri=item.uri) if isinstance(item, Commit) else item
        for name, item in (inputs or {}).items()
    }
    config = {"seed": uuid.uuid4().hex} if config is None else config
    payload = step_payload(step, 1, config, {name: item.digest for name, item in given.items()})
    artifact = store.publish(step, folder)
    return store.commit(commit_of(artifact, store.root, payload, inputs=given, provenance={"label": label or step}))


def record_run(store: Store, *commits: Commit, finished: bool = True, recipe: str = "recipe") -> str:
    """A flow run that used `commits`; its id."""
    run_id = str(uuid.uuid4())
    steps = {
        f"{commit.step}{index}": {
            "step": commit.step,
            "fingerprint": commit.fingerprint,
            "artifact": commit.uri.removeprefix(f"{store.root}/"),
        }
        for index, commit in enumerate(commits)
    }
    store.record_run(run_id, {"flow_run_id": run_id, "recipe": recipe, "finished": finished, "steps": steps})
    return run_id
