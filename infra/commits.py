"""The commit record: the marker that a step is done, and everything that is known about how.

In the record, addresses inside the store are relative to its root (`v1/data/…`), so a store that was moved or is
mounted elsewhere still works; the store makes them absolute when it hands a record out.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from infra.fingerprint import fingerprint
from infra.manifest import RelativePath, Sha256
from infra.objects import StoreError
from infra.sealed import seal, unseal

DATA = "v1/data/"


class Output(BaseModel):
    """A part of the artifact that later steps take as their input."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: RelativePath | Literal[""]
    """Sub-folder of the artifact; empty: all of it."""
    digest: Sha256
    bytes: int


class Input(BaseModel):
    """An input by content, and where it was, if it was anywhere."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    uri: str | None = None
    files: dict[str, Sha256] = {}
    """{address: sha256} of raw files, or of a single file of an artifact.

    Empty, and then not in the record, for an artifact or a part of one.
    """

    @model_serializer(mode="wrap")
    def _without_empty_files(self, record: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = record(self)
        return fields if self.files else {name: value for name, value in fields.items() if name != "files"}


class Commit(BaseModel):
    """One finished step. `root` and `adopted` are filled in by the store and are not part of the record."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)

    schema_: Literal[1] = Field(1, alias="schema")
    step: str
    fingerprint: Sha256
    payload: dict[str, Any]
    """What the fingerprint was computed from: `fingerprint.step_payload`."""
    artifact: Annotated[RelativePath, Field(pattern=rf"^{re.escape(DATA)}")]
    """Folder of the artifact, relative to the store's root."""
    digest: Sha256
    bytes: int
    outputs: dict[str, Output]
    inputs: dict[str, Input]
    summary: dict[str, Any] = {}
    """Counts, tokens, metrics: small."""
    provenance: dict[str, Any] = {}
    """Code, libraries, execution values, ids, host, times (ISO, UTC) and seconds."""

    root: str = Field("", exclude=True)
    """Absolute address of the store that holds the record."""
    adopted: bool = Field(False, exclude=True)
    """Whether another attempt had committed first."""

    @model_validator(mode="after")
    def _agrees_with_payload(self) -> "Commit":
        if fingerprint(self.payload) != self.fingerprint or self.payload["step"] != self.step:
            raise ValueError("the fingerprint or the step is not that of the payload")
        if {name: item.digest for name, item in self.inputs.items()} != self.payload["inputs"]:
            raise ValueError("the inputs are not those of the payload")
        return self

    @property
    def uri(self) -> str:
        """Absolute address of the artifact."""
        return f"{self.root}/{self.artifact}"

    def output_uri(self, name: str) -> str:
        """Absolute address of an output. Raises `KeyError`."""
        path = self.outputs[name].path
        return f"{self.uri}/{path}" if path else self.uri


class UncheckedCommit(Commit):
    """A record as it stands, true or altered: for whoever examines a store and has to name what is wrong."""

    @model_validator(mode="after")
    def _agrees_with_payload(self) -> "UncheckedCommit":
        return self


def encode(commit: Commit) -> bytes:
    """The record as sealed JSON. Raises `TypeError` or `ValueError` naming a field that has no JSON form."""
    record = commit.model_dump(by_alias=True)
    for item in record["inputs"].values():
        item["uri"] = item["uri"] and item["uri"].removeprefix(f"{commit.root}/")
    return seal(record)


def decode(data: bytes, root: str, key: str, *, form: type[Commit] = Commit) -> Commit:
    """The record stored under `key`. Raises `StoreError` for anything but a sound one."""
    try:
        commit = form.model_validate(unseal(data, check=form is Commit))
    except (ValueError, TypeError, RecursionError) as error:
        raise StoreError(
            f"{root}/{key} is damaged or was written by a newer version: {error};"
            " upgrade, or delete it to let the step run again"
        ) from error
    inputs = {name: _absolute(item, root) for name, item in commit.inputs.items()}
    return commit.model_copy(update={"root": root, "inputs": inputs})


def _absolute(item: Input, root: str) -> Input:
    inside = item.uri is not None and item.uri.startswith(DATA)
    return item.model_copy(update={"uri": f"{root}/{item.uri}"}) if inside else item
