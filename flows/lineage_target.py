"""What a person means by a model, an address or a digest, and who is asked for it: the store, MLflow, or both."""

import re
from typing import TYPE_CHECKING

from infra.ancestry import Records, read_all_records
from infra.ancestry_mlflow import ModelVersion, find_version, record_of
from infra.ancestry_recalled import recall
from infra.commits import DATA
from infra.errors import RequestError
from infra.inventory import SHORTEST_PREFIX, Record
from infra.lineage_connection import open_for_reading, outages
from infra.objects import StoreError
from infra.public import public_text, public_uri
from infra.settings import Settings
from infra.store import open_store
from infra.urls import open_objects

if TYPE_CHECKING:
    from mlflow import MlflowClient

_MODEL = re.compile(r"(?:models:/)?(?P<name>[^/@]+)(?:/(?P<version>\d+))?")
_HEX = re.compile(rf"[0-9a-f]{{{SHORTEST_PREFIX},64}}")
_NAME_IT = "name the artifact by its address, digest or fingerprint (see `artifacts ls --step forget`)"


class Witness:
    """MLflow, as long as it answers."""

    def __init__(self, tracking_uri: str) -> None:
        self.uri = public_uri(tracking_uri)
        self.outage: str | None = None
        """Why it cannot be asked."""
        self.client: MlflowClient | None = None
        try:
            self.client = open_for_reading(tracking_uri)
        except outages() as error:
            self.lose(error)

    def lose(self, error: Exception) -> None:
        """From here on it is not asked any more."""
        self.client = None
        self.outage = f"{type(error).__name__}: {public_text(' '.join(str(error).split()))[:300]}"

    @property
    def silence(self) -> str:
        """That it cannot be asked, as a sentence."""
        return f"MLflow at {self.uri} cannot be asked ({self.outage})"


def find_target(
    argument: str, settings: Settings, store: str | None, witness: Witness
) -> tuple[Records, Record, ModelVersion | None]:
    """The commit that `argument` means, among which others, and the version if it names a registered model.

    Raises `RequestError` for an argument that is nothing or several things, and `StoreError` when neither the store
    nor MLflow can be read.
    """
    if f"/{DATA}" in argument or argument.startswith(DATA) or _HEX.fullmatch(argument):
        records = _records(settings, store, argument, witness)
        return records, records.find(_inside(records, argument)), None
    match = _MODEL.fullmatch(argument)
    if match is None:
        raise RequestError(
            f"{public_uri(argument)!r} is no model and no artifact; expected a registered model such as `demo` or"
            f" `demo/3`, an address below STORE/{DATA}, a digest, a fingerprint, or at least"
            f" {SHORTEST_PREFIX} of their first hexadecimal digits"
        )
    if witness.client is not None:
        try:
            version = find_version(witness.client, match["name"], match["version"])
        except outages() as error:
            witness.lose(error)
        else:
            records = _records(settings, store, version.uri, witness)
            return records, record_of(records, version), version
    records = _records(settings, store, "", witness)
    if match["version"] is not None:
        raise RequestError(
            f"{witness.silence}, and only it knows the versions of a model such as {argument!r}; {_NAME_IT}"
        )
    record = last_model(records, match["name"])
    if record is None:
        root = records.inventory.root
        raise RequestError(
            f"{witness.silence}, and {root} has no completed run of a recipe {match['name']!r}; {_NAME_IT}"
        )
    return records, record, None


def last_model(records: Records, recipe: str) -> Record | None:
    """The final model of a recipe's last completed run, where MLflow cannot say what a registered model is."""
    try:
        head = open_store(records.inventory.root).read_head(recipe)
    except ValueError:  # no name of a recipe
        return None
    final = head["steps"].get("forget") if head else None
    return records.inventory.by_step.get((final["step"], final["fingerprint"])) if final else None


def _records(settings: Settings, store: str | None, address: str, witness: Witness) -> Records:
    """The commits of the store that was named, else of the one that `address` lies in, else of the usual one.

    What MLflow remembers of them when the store cannot be read.
    """
    root, inside, _ = address.partition(f"/{DATA}")
    objects = open_objects(root if inside and store is None else settings.store_url)
    try:
        return read_all_records(objects)
    except StoreError as error:
        try:
            if witness.client is not None:
                return recall(witness.client, objects, str(error))
        except outages() as failure:
            witness.lose(failure)
        raise StoreError(f"{error}\n{witness.silence}") from error


def _inside(records: Records, argument: str) -> str:
    """An address as this store spells it, whatever way the store was reached then."""
    _, inside, key = argument.partition(f"/{DATA}")
    return f"{records.inventory.root}/{DATA}{key}" if inside else argument
