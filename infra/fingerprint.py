"""Identity of a step: one canonical JSON text, and its SHA-256.

Two processes on two machines must agree on every byte, so a value without exactly one JSON form is refused here
instead of being given one (design: "The encoder is strict").
"""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

SCHEMA = 1
"""Version of the payload's layout; a change makes every step run again."""

CODE_KEY = "code"
"""Where an identity config holds the digest of the source, if that is part of identity."""

_PAYLOAD_KEYS = frozenset({"schema", "step", "version", "config", "inputs"})


def canonical_json(value: object) -> bytes:
    """UTF-8 JSON with sorted keys and no white space; equal values give equal bytes.

    Takes dicts with str keys, lists, tuples (as lists), str, int, bool, None and finite floats (-0.0 becomes 0.0;
    1 and 1.0 stay different), and no subclass of them. Raises `TypeError` for any other type and `ValueError` for
    NaN, infinities and lone surrogates; the message names the path inside `value`, such as `config.lora.r`.
    """
    plain = _plain(value, "")
    return json.dumps(plain, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")).encode()


def step_payload(step: str, version: int, config: dict[str, Any], inputs: Mapping[str, str]) -> dict[str, Any]:
    """What identifies one execution of `step`: its identity config and its inputs' content digests."""
    return {"schema": SCHEMA, "step": step, "version": version, "config": config, "inputs": dict(inputs)}


def fingerprint(payload: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the canonical JSON of a `step_payload`. Raises as `canonical_json` does."""
    if payload.keys() != _PAYLOAD_KEYS:
        raise ValueError(f"a fingerprint's payload has the keys {sorted(_PAYLOAD_KEYS)}, not {sorted(payload)}")
    return hashlib.sha256(canonical_json(dict(payload))).hexdigest()


def step_fingerprint(step: str, version: int, config: dict[str, Any], inputs: Mapping[str, str]) -> str:
    """The fingerprint of `step` with this version, identity config and `{input name: content digest}`."""
    return fingerprint(step_payload(step, version, config, inputs))


def _plain(value: object, path: str) -> object:
    kind = type(value)
    if value is None or kind is bool or kind is int:
        return value
    if isinstance(value, str) and kind is str:
        return _text(value, path)
    if isinstance(value, float) and kind is float:
        if not math.isfinite(value):
            raise ValueError(f"{path or 'value'}: {value!r} has no canonical JSON form; expected a finite number")
        return value or 0.0
    if isinstance(value, list | tuple) and kind in (list, tuple):
        return [_plain(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, dict) and kind is dict:
        return {_key(key, path): _plain(item, _below(path, key)) for key, item in value.items()}
    raise TypeError(
        f"{path or 'value'}: a {kind.__module__}.{kind.__qualname__} has no canonical JSON form;"
        " expected dict, list, tuple, str, int, float, bool or None"
    )


def _key(key: object, path: str) -> str:
    if type(key) is not str:
        raise TypeError(f"{path or 'value'}: the key {key!r} is not a string")
    return _text(key, _below(path, key))


def _text(text: str, path: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{ascii(path) if path else 'value'}: {text!a} holds a lone surrogate") from None
    return text


def _below(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)
