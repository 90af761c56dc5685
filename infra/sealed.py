"""Records that show when they were altered: canonical JSON that carries the checksum of the rest.

What artifacts hold is verified by digests; a record is where those digests are. Networks and disks flip bits, and a
number with another digit is as good JSON as before.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from infra.fingerprint import canonical_json

CHECKSUM = "checksum"


def seal(record: Mapping[str, Any]) -> bytes:
    """The record with its checksum as canonical JSON. Raises as `canonical_json` does."""
    return canonical_json({**record, CHECKSUM: _checksum(record)})


def unseal(data: bytes, *, check: bool = True) -> dict[str, Any]:
    """The record in `data`. Raises `ValueError` when it is not what was sealed; one without a checksum is taken."""
    record = json.loads(data)
    if not isinstance(record, dict):
        raise ValueError("expected a JSON object")
    checksum = record.pop(CHECKSUM, None)
    if check and checksum is not None and checksum != _checksum(record):
        raise ValueError("its checksum is not that of its content")
    return record


def _checksum(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(dict(record))).hexdigest()
