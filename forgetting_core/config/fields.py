"""What configs are made of: their base, the marker of what is no identity, and the types of their values."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Execution:
    """Marks a field that does not change what a step computes: `Annotated[T, Execution]`."""


@dataclass(frozen=True)
class AbsentWhen:
    """Marks a field that enters the identity only with another value than this: `Annotated[T, AbsentWhen("off")]`.

    For what is added to a config later and changes nothing by default: results from before it keep their
    fingerprints.
    """

    value: Any


AbsentWhenNull = AbsentWhen(None)
"""Of a field that is null unless it is set: `Annotated[T | None, AbsentWhenNull]`."""


class Config(BaseModel):
    """Base of all configs: immutable, unknown keys refused.

    Defaults are validated like any value, so that `alpha: 16`, left out or written down, is the same 16.0.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False, validate_default=True
    )


def identity(value: Any) -> Any:
    """Plain JSON data of `value` without its `Execution` and absent `AbsentWhen` fields: for a fingerprint."""
    if isinstance(value, BaseModel):
        return {
            info.alias or name: identity(getattr(value, name))
            for name, info in type(value).model_fields.items()
            if Execution not in info.metadata and AbsentWhen(getattr(value, name)) not in info.metadata
        }
    if isinstance(value, list | tuple):
        return [identity(item) for item in value]
    if isinstance(value, dict):
        return {key: identity(item) for key, item in value.items()}
    return value


def canonical_share(value: object) -> str:
    """`0.70`, `"0.7"` and `7e-1` all become `"0.7"`; anything outside [0, 1] is refused."""
    return _canonical(value, range(2), "expected a number from 0 to 1, such as 0.7")


def canonical_nats(value: object) -> str:
    """`0`, `0.0` and `-0` all become `"0"`; what cannot be a difference of two losses is refused."""
    return _canonical(value, range(-1000, 1001), "expected a number of nats from -1000 to 1000, such as 0 or -0.25")


def _canonical(value: object, bounds: range, expected: str) -> str:
    try:
        if isinstance(value, bool):
            raise InvalidOperation
        number = Decimal(str(value).strip())
    except InvalidOperation:
        raise ValueError(expected) from None
    if not number.is_finite() or not bounds[0] <= number <= bounds[-1]:
        raise ValueError(expected)
    return format(number.normalize() if number else Decimal(0), "f")


def _or_null(canonical: Callable[[object], str]) -> BeforeValidator:
    return BeforeValidator(lambda value: None if value is None else canonical(value))


Share = Annotated[str | None, _or_null(canonical_share)]
"""A decimal in [0, 1], kept as its shortest decimal string: exact, and `0.7` and `0.70` agree."""
Nats = Annotated[str | None, _or_null(canonical_nats)]
"""A decimal likewise."""
Dtype = Literal["float32", "bfloat16", "float64"]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""What every random generator takes."""
Ratio = Annotated[float, Field(ge=0, le=1)]
