"""Pins: names that keep an artifact from garbage collection, whatever runs there are.

A pin is `v1/pins/{name}.json` and names the commit and the artifact.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from infra.commits import Commit
from infra.errors import RequestError
from infra.manifest import RelativePath, Sha256
from infra.objects import NotFoundError, Objects, StoreError
from infra.sealed import seal, unseal

PINS = "v1/pins"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class Pin(BaseModel):
    """What a name stands for."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal[1] = Field(1, alias="schema")
    step: str
    fingerprint: Sha256
    artifact: Annotated[RelativePath, Field(pattern=r"^v1/data/")]
    """Relative to the store's root."""


def write_pin(objects: Objects, name: str, commit: Commit) -> None:
    """Pin the artifact of `commit`, replacing what the name stood for. Raises `RequestError` and `StoreError`."""
    artifact = commit.uri.removeprefix(f"{commit.root}/")
    pin = Pin(step=commit.step, fingerprint=commit.fingerprint, artifact=artifact)
    objects.overwrite(_key(name), seal(pin.model_dump(by_alias=True)))


def remove_pin(objects: Objects, name: str) -> None:
    """Raises `RequestError` when there is no such pin, and `StoreError`."""
    known = [stored.key for stored in objects.find(PINS)]
    if _key(name) not in known:
        names = ", ".join(key.rsplit("/", 1)[1].removesuffix(".json") for key in known)
        raise RequestError(f"no artifact is pinned as {name!r}; pins in {objects.root}: {names or 'none'}")
    objects.delete(_key(name))


def read_pins(objects: Objects) -> Iterator[tuple[str, Pin]]:
    """All pins by name. Raises `StoreError`, also for a damaged one: what it keeps would be lost."""
    for stored in objects.find(PINS):
        try:
            pin = Pin.model_validate(unseal(objects.read(stored.key)))
        except NotFoundError:  # removed since it was listed
            continue
        except (ValueError, RecursionError) as error:
            raise StoreError(
                f"{objects.root}/{stored.key} is damaged or was written by a newer version: {error};"
                " upgrade, or delete it"
            ) from error
        yield stored.key.rsplit("/", 1)[1].removesuffix(".json"), pin


def _key(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise RequestError(f"{name!r} cannot name a pin; expected at most 100 letters, digits and _ . -")
    return f"{PINS}/{name}.json"
