"""JSON as data files are read: UTF-8, each field once, and every failure a message with its place."""

import json
from typing import Any

from forgetting_core.errors import RowError


def parse_json(data: bytes | bytearray, place: str, expected: str) -> Any:
    """The value of `data`. Raises `RowError` for anything but one JSON value in UTF-8 with each field once.

    Python's own reader keeps the last of two equal fields in silence.
    """
    try:
        text = data.decode()
        if text.startswith("\ufeff"):
            raise ValueError("it begins with a byte order mark, which only a file may")
        return _DECODER.decode(text)
    except UnicodeDecodeError as error:
        raise RowError(
            place,
            f"invalid UTF-8 at byte {error.start} ({error.reason}); expected text in UTF-8, so convert the file",
        ) from error
    except json.JSONDecodeError as error:
        raise RowError(
            place,
            f"malformed JSON at line {error.lineno}, column {error.colno} of it: {error.msg}; expected {expected}",
        ) from error
    except RecursionError as error:
        raise RowError(place, f"JSON nested too deeply; expected {expected}") from error
    except ValueError as error:  # also Python's refusal of a number with thousands of digits
        raise RowError(place, f"JSON that cannot be taken as it is: {error}; expected {expected}") from error


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in fields if names.count(name) > 1)
        raise ValueError(f"the field `{twice}` is there twice, and only one can be meant")
    return fields


_DECODER = json.JSONDecoder(object_pairs_hook=_each_once)
