"""Where the model and the data come from, and which rows go where."""

from typing import Annotated, Literal

from pydantic import Field

from forgetting_core.config.fields import AbsentWhen, Config, Count, Execution, Positive, Seed


class ModelSource(Config):
    """A Hugging Face model: a local folder, an `s3://` folder, or a hub id at a revision."""

    path: Annotated[str, Execution]
    """Where it is. The digest of its weight, config and tokenizer files is its identity."""
    revision: Annotated[str | None, Execution] = None
    """Commit, tag or branch of a hub id; the commit it resolves to is recorded."""


class HubData(Config):
    """A data set of the hub at a pinned revision."""

    hub: Annotated[str, Execution]
    revision: Annotated[str, Execution]
    split: Annotated[str, Execution] = "train"
    name: Annotated[str | None, Execution] = None


DataSources = Annotated[list[str | HubData], Field(min_length=1)]


class DataConfig(Config):
    """Raw instruction data and how a row becomes tokens."""

    train: Annotated[DataSources | None, Execution] = None
    """JSONL, JSON or Parquet files (`.gz` too), `s3://` URLs or hub data sets; their content is the identity."""
    reference: Annotated[DataSources | None, Execution] = None
    """Data for the reference model; null: carved out of `train`, disjoint."""
    template: Literal["tokenizer", "tulu", "plain"] = "tokenizer"
    """`tokenizer`: its own chat template."""
    max_length: Positive = 2048
    """Rows are cut to this many tokens."""
    on_bad_row: Annotated[Literal["error", "skip"], AbsentWhen("error")] = "error"
    """What becomes of a row that cannot be used. `skip`: left out, counted, and kept with the reason in the file
    `aux/bad_rows.jsonl` of the split; a file that cannot be read, or has no good row, is an error all the same."""


class SplitConfig(Config):
    """How many rows go where. Rows are chosen by seed and stored in source order; null: all that is left."""

    train_rows: Positive | None = None
    reference_rows: Count | None = None
    validation_rows: Count = 0
    seed: Seed = 42
