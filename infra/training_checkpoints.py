"""Training checkpoints in the store, so that a training that was killed goes on, on this host or on another.

```
v1/data/{step}/{uuid}/…                 the checkpoint: an artifact without a commit
v1/training/{step}/{fingerprint}.json   which one is the newest
```

Whoever trains writes them, so there is one writer while leases hold; should two train the same step all the same,
the last one's checkpoint stays, and either is as good.
"""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from infra.commits import DATA
from infra.manifest import RelativePath, Sha256
from infra.objects import NotFoundError, StoreError
from infra.sealed import seal, unseal
from infra.staging import ArtifactMissingError
from infra.store import Store

TRAINING = "v1/training"


class Kept(BaseModel):
    """The newest checkpoint of one training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    artifact: Annotated[RelativePath, Field(pattern=rf"^{DATA}[^/]+/[^/]+$")]
    """Folder, relative to the store's root; it is deleted when a newer one takes its place."""
    digest: Sha256
    optimizer_step: Annotated[int, Field(ge=0)]
    """Completed ones."""


class TrainingCheckpoints:
    """Those of one training: a step and its fingerprint."""

    def __init__(self, store: Store, step: str, fingerprint: str) -> None:
        self._store, self._objects, self._step = store, store.objects, step
        self._key = f"{TRAINING}/{step}/{fingerprint}.json"

    def newest(self) -> Kept | None:
        """The newest one, if there is any. Raises `StoreError`."""
        try:
            return Kept.model_validate(unseal(self._objects.read(self._key)))
        except NotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{self._objects.root}/{self._key} is damaged: {error}; delete it") from error

    def keep(self, folder: Path, optimizer_step: int) -> None:
        """Copy `folder` into the store, in place of the one that is there. Raises `StoreError`."""
        older = self.newest()
        artifact = self._store.publish(self._step, folder)
        relative = artifact.uri.removeprefix(f"{self._store.root}/")
        kept = Kept(artifact=relative, digest=artifact.digest, optimizer_step=optimizer_step)
        self._objects.overwrite(self._key, seal(kept.model_dump()))
        if older is not None:
            self._objects.delete_folder(older.artifact)

    def fetch(self, kept: Kept, scratch: Path) -> Path | None:
        """A local folder with a verified copy, not to be written to; None when it is gone. Raises `StoreError`."""
        try:
            return self._store.stage(f"{self._store.root}/{kept.artifact}", kept.digest, scratch)
        except ArtifactMissingError:
            return None

    def discard(self) -> None:
        """The training is over. Raises `StoreError`."""
        kept = self.newest()
        if kept is not None:
            self._objects.delete(self._key)
            self._objects.delete_folder(kept.artifact)
