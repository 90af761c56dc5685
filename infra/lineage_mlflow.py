"""How lineage is put into MLflow's terms: keys, datasets, external models, registered versions.

MLflow is imported inside the functions because it takes a second.
"""

import json
import os
import posixpath
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from infra.lineage_notes import escape_markdown
from infra.lineage_records import Produced
from infra.public import public_text

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.data.dataset_source import DatasetSource
    from mlflow.entities import DatasetInput

PARAM_CHARACTERS = 6000
TAG_CHARACTERS = 8000
INPUT_TAG_CHARACTERS = 500
DATASET_DIGEST_CHARACTERS = 32

_default_uri_lock = threading.Lock()


def safe_key(key: str) -> str:
    """`key` as MLflow takes it for params, tags and metrics: word characters, space, `/ . - :`, a normal path."""
    key = re.sub(r"[^/\w.\- :]", "_", key)[:250]
    return posixpath.normpath(key).lstrip("/.") or "_"


def safe_model_name(name: str) -> str:
    """`name` without what MLflow refuses in the names of models, or cannot address afterwards."""
    return re.sub(r"[/:.=%@\"']", "-", name) or "-"


def as_params(params: Mapping[str, object]) -> dict[str, str]:
    """Params that were given (not None), as public text; one that is too long says so at its end."""
    given = {safe_key(key): public_text(str(value)) for key, value in params.items() if value is not None}
    return {key: _cut(value, PARAM_CHARACTERS) for key, value in given.items()}


def as_tags(tags: Mapping[str, object]) -> dict[str, str]:
    """Tags that were given (not None), as public text; one that is too long says so at its end."""
    given = {safe_key(key): public_text(str(value)) for key, value in tags.items() if value is not None}
    return {key: _cut(value, TAG_CHARACTERS) for key, value in given.items()}


def dataset_input(item: Produced, *, context: str, producer_run_id: str | None) -> "DatasetInput":
    """`item` as an input of a run; its full digest, its place and its producer are tags of the input.

    The dataset itself is shared by name and digest within an experiment and keeps the first place it was seen at.
    """
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import DatasetInput, InputTag

    dataset = MetaDataset(  # type: ignore[abstract]
        _source(item.uri), name=item.name, digest=item.digest[:DATASET_DIGEST_CHARACTERS]
    )
    tags = {
        "mlflow.data.context": context,
        "digest": item.digest,
        "uri": _cut(item.uri, INPUT_TAG_CHARACTERS),
    }
    if producer_run_id:
        tags["producer_run_id"] = producer_run_id
    return DatasetInput(dataset._to_mlflow_entity(), [InputTag(key, value) for key, value in tags.items()])


def external_model(
    client: "MlflowClient",
    experiment_id: str,
    item: Produced,
    *,
    name: str,
    source_run_id: str | None,
    tags: Mapping[str, str],
) -> str:
    """The id of the model whose content is `item`: found by its digest, else created. No bytes are copied.

    MLflow's own `create_external_model` works on the process's default tracking URI and attaches the git remote.
    """
    from mlflow.utils.mlflow_tags import MLFLOW_MODEL_IS_EXTERNAL

    by_digest = f"tags.digest = '{item.digest}'"
    oldest_first = [{"field_name": "creation_timestamp", "ascending": True}]
    found = client.search_logged_models(
        [experiment_id], filter_string=by_digest, max_results=1, order_by=oldest_first
    )
    if found:
        model = found[0]
        if model.tags.get("uri") != item.uri:
            client.set_logged_model_tags(model.model_id, {"uri": item.uri})
    else:
        model = client.create_logged_model(
            experiment_id,
            name=safe_model_name(name),
            source_run_id=source_run_id,
            tags={**tags, "digest": item.digest, "uri": item.uri, MLFLOW_MODEL_IS_EXTERNAL: "true"},
            # the model's page shows params, and no tags
            params={"digest": item.digest, "uri": item.uri},
            model_type="external",
        )
        client.finalize_logged_model(model.model_id, "READY")
    return str(model.model_id)


def register_version(
    client: "MlflowClient",
    name: str,
    model_id: str,
    *,
    run_id: str,
    tags: Mapping[str, str],
    alias: str,
    current: bool,
    description: str,
) -> str:
    """Version of the registered model `name` made of `model_id`, with `alias` moved onto it when it is `current`.

    A version with the same digest and the same `tags` is taken again, so a cached run adds none.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description=_registered(name, alias))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = {**tags, "model_id": model_id}
    known = client.search_model_versions(f"name = '{name}' and tags.model_id = '{model_id}'")
    same = [version for version in known if tags.items() <= version.tags.items()]
    if same:
        version = str(max(same, key=lambda candidate: int(candidate.version)).version)
    else:
        with _as_default_uri(client.tracking_uri):
            made = client.create_model_version(
                name,
                f"models:/{model_id}",
                run_id=run_id,
                tags=dict(tags),
                description=description,
                await_creation_for=0,
                model_id=model_id,
            )
        version = str(made.version)
    if current:
        client.set_registered_model_alias(name, alias, version)
    return version


def _registered(name: str, alias: str) -> str:
    return (
        f"Models fine-tuned by the recipe {escape_markdown(name)}, one version per set of weights. The tags of a "
        f"version name ρ or the threshold, the digest of the weights and their address; its description leads back "
        f"to the data. The alias `{alias}` is on the version that the last finished run ended with."
    )


def _source(uri: str) -> "DatasetSource":
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.dataset_source_registry import get_dataset_source_from_json
    from mlflow.data.http_dataset_source import HTTPDatasetSource
    from mlflow.exceptions import MlflowException

    scheme = uri.partition("://")[0] if "://" in uri else "file"
    if scheme in ("http", "https"):
        return HTTPDatasetSource(uri)
    try:
        # by type, because resolving a local path warns that two classes fit
        return get_dataset_source_from_json(json.dumps({"uri": uri}), "local" if scheme == "file" else scheme)
    except MlflowException:
        return CodeDatasetSource({"uri": uri})


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    mark = f"… ({len(text)} characters)"
    return text[: limit - len(mark)] + mark


@contextmanager
def _as_default_uri(tracking_uri: str) -> Iterator[None]:
    """Lend the process our URI: a database as registry looks `models:/<id>` up there."""
    if tracking_uri.startswith(("http://", "https://")):
        yield
        return
    import mlflow

    unset: Any = None
    with _default_uri_lock:
        variable = os.environ.get("MLFLOW_TRACKING_URI")
        mlflow.set_tracking_uri(tracking_uri)
        try:
            yield
        finally:
            # unset also clears the variable, which `set_tracking_uri` keeps equal to what was set by code
            mlflow.set_tracking_uri(unset)
            if variable is not None:
                os.environ["MLFLOW_TRACKING_URI"] = variable
