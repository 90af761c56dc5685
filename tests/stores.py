"""Small stores, made by publishing and committing directly: no pipeline has to run."""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.commits import Commit, Input, Output
from infra.fingerprint import fingerprint, step_payload
from infra.store import Store


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    """A folder with these files."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


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
    parts = {path.name for path in folder.iterdir() if path.is_dir() and path.name != "aux"}
    return store.commit(
        Commit(
            step=step,
            fingerprint=fingerprint(payload),
            payload=payload,
            artifact=artifact.uri.removeprefix(f"{store.root}/"),
            digest=artifact.digest,
            bytes=artifact.bytes,
            outputs={
                name: Output(path=name, digest=artifact.part(name).digest, bytes=artifact.part(name).bytes)
                for name in sorted(parts)
            },
            inputs=given,
            provenance={"label": label or step},
        )
    )


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
