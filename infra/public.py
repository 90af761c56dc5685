"""What may be written where others read it: URIs without credentials, data without secrets in them.

A record that an audit relies on is copied, mailed and kept for years. Whatever goes into one passes through here
first.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

# Secret keys of object stores contain slashes and people paste them unescaped (`s3://AK:se/cret@host`), hence the
# second alternative: `name:` that is no port, up to the next `@`.
_USERINFO = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*:/+)(?:[^/?#@]*@|[^/@\s\[]*:(?!\d*(?:[/?#]|$)).*?@)")
_URI_IN_TEXT = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>`]+")


def public_uri(uri: str) -> str:
    """`uri` without user, password, query and fragment; a plain file path comes back unchanged.

    Queries go as a whole: presigned URLs carry their signature there.
    """
    if "://" not in uri:
        return uri
    return re.split(r"[?#]", _USERINFO.sub(r"\1", uri), maxsplit=1)[0]


def public_text(text: str) -> str:
    """`text` with every URI in it made public."""
    return _URI_IN_TEXT.sub(lambda match: public_uri(match.group()), text)


def public_data(value: Any) -> Any:
    """JSON data with every URI in it made public and every non-finite number null (JSON has none)."""
    if isinstance(value, str):
        return public_text(value)
    if isinstance(value, Mapping):
        return {str(key): public_data(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [public_data(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
