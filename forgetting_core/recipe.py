"""Reading a recipe: YAML, `--set` overrides, and messages that name the field, the value and what is allowed."""

import difflib
import re
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from forgetting_core.config import Recipe
from forgetting_core.errors import InputError
from forgetting_core.plain_yaml import parse_yaml

MOST_BYTES = 1_000_000
"""Of a recipe's file."""
_CREDENTIALS = re.compile(r"://[^/\s]*(@|:[^\s]*@)|https?://\S*\?")
"""In an address. Keys of object stores contain slashes, so the `@` may come late."""


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in `path` with `overrides` such as `partition.rho=0.5` applied.

    Raises `InputError` that lists every fault: unknown keys with the nearest known one, values out of range.
    """
    text = _read(path)
    try:
        data = parse_yaml(text)
    except ValueError as error:
        raise InputError(f"recipe {path}: not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"recipe {path}: expected keys such as `model:` and `data:`, found {_shown(data)}")
    data = _unshared(data)
    _refuse_credentials(f"recipe {path}", data)
    for override in overrides:
        _refuse_credentials(f"--set {override.partition('=')[0]}", override)
        _apply(data, override)
    return parse_recipe(data, str(path))


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise InputError(f"recipe {path}: more than {MOST_BYTES // 10**6} MB; expected a page of YAML")
        return content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"recipe {path}: cannot be read: {error}; expected a YAML file in UTF-8") from error


def parse_recipe(data: Mapping[str, Any], origin: str = "recipe") -> Recipe:
    """Validate plain data; `origin` is named in the `InputError`."""
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        faults = "\n".join(f"  {_describe(fault)}" for fault in error.errors())
        raise InputError(f"{origin}: the recipe is wrong\n{faults}") from error


def _refuse_credentials(origin: str, value: Any) -> None:
    """A recipe is recorded, shown and fingerprinted as it stands; the message does not repeat the value."""
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_credentials(f"{origin}: {key}", item)
    elif isinstance(value, list):
        for item in value:
            _refuse_credentials(origin, item)
    elif isinstance(value, str) and _CREDENTIALS.search(value):
        raise InputError(
            f"{origin}: an address with a user, a password or a signature in it; a recipe is recorded as it is: "
            "give the address without, and credentials by the environment (AWS_…, HF_TOKEN)"
        )


def _unshared(value: Any) -> Any:
    """A copy in which nothing is shared: YAML's anchors would let a change of one section reach another."""
    if isinstance(value, dict):
        return {key: _unshared(item) for key, item in value.items()}
    return [_unshared(item) for item in value] if isinstance(value, list) else value


def _apply(data: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    if not separator or not path.strip():
        raise InputError(f"--set {override}: expected FIELD=VALUE, such as partition.rho=0.5")
    *parents, last = path.strip().split(".")
    try:
        value = _unshared(parse_yaml(text))
    except ValueError as error:
        raise InputError(f"--set {override}: the value is not valid YAML: {error}") from error
    target = data
    for key in parents:
        below = target.get(key)
        if below is None:
            below = target[key] = {}
        if not isinstance(below, dict):
            raise InputError(f"--set {override}: `{key}` is {_shown(below)}, which has no field `{last}`")
        target = below
    target[last] = value


def _describe(fault: ErrorDetails) -> str:
    """One line: field, value, what is allowed."""
    field = _field(fault)
    if fault["type"] in ("extra_forbidden", "invalid_key"):
        *parents, unknown = field.split(".")
        known = _known_keys(parents)
        near = difflib.get_close_matches(unknown, known, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"known keys here: {', '.join(known)}"
        return f"{field}: unknown key; {hint}"
    if fault["type"] == "missing":
        return f"{field}: is missing; add it"
    if fault["type"] == "union_tag_invalid":
        return f"{field}.objective: {_shown(fault['input'].get('objective'))}; expected forget, ignore or sft"
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    message = message if "expected" in message or " " not in message else f"expected {message}"
    if isinstance(fault["input"], dict):
        return f"{field or 'recipe'}: {fault['msg'].removeprefix('Value error, ')}"
    return f"{field}: {_shown(fault['input'])}; {message}"


def _field(fault: ErrorDetails) -> str:
    """The recipe path of a fault; pydantic puts the union's member into it, which no recipe has."""
    parts: list[str] = []
    model: Any = Recipe
    for part in fault["loc"]:
        fields = _fields(model)
        if isinstance(part, int) or part in fields:
            parts.append(str(part))
            model = fields.get(str(part))
        elif part == fault["loc"][-1] and fault["type"] in ("extra_forbidden", "missing"):
            parts.append(str(part))
    return ".".join(parts)


def _fields(annotation: Any) -> dict[str, Any]:
    """{key: annotation} of every model that `annotation` may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {info.alias or name: info.annotation for name, info in annotation.model_fields.items()}
    if get_origin(annotation) in (Union, types.UnionType, list):
        merged: dict[str, Any] = {}
        for member in get_args(annotation):
            merged |= _fields(member)
        return merged
    return {}


def _known_keys(parents: Sequence[str]) -> list[str]:
    model: Any = Recipe
    for part in parents:
        if not part.isdigit():
            model = _fields(model).get(part)
    return sorted(_fields(model))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
