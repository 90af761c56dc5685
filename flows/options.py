"""Options that commands share."""

from typing import Annotated

import typer

StoreOption = Annotated[str | None, typer.Option(help="A folder or `s3://bucket/prefix`.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
