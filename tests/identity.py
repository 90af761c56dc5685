"""Every field of the recipe, changed one at a time: which steps notice? `python -m tests.identity` prints it.

The fields come from the model itself. Where a recipe cannot have them all at once (a union, an optional part),
there is one recipe for each way.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from flows.dag import Input, Node, walk
from forgetting_core.config import Execution, ModelSource, Recipe
from infra.fingerprint import canonical_json, step_fingerprint
from infra.sources import Ref, Unresolved
from tasks.spec import StepCall

Path = tuple[str | int, ...]
"""Keys from the recipe down to a field: ("forget", "lambda", "t_max")."""
Field = tuple[str, str]
"""(class, field)"""

_MODEL = {"path": "m", "revision": "r"}
_COMMON: dict[str, Any] = {
    "name": "x",
    "model": _MODEL,
    "data": {"train": ["a.jsonl"], "reference": ["b.jsonl"]},
    "split": {"validation_rows": 8},
    "baselines": ["base", "sft", "ignore", "reference", "npo", "random"],
    "evaluate": {"tasks": ["boolq"], "task_dir": "benchmarks", "diversity": {}},
    "execution": {"micro_batch": 4},
}
_HUB = {"hub": "h", "revision": "r", "name": "n"}
RECIPES = {
    "forget": Recipe.model_validate(_COMMON),
    "npo": Recipe.model_validate({**_COMMON, "forget": {"negative": "npo"}}),
    "ignore": Recipe.model_validate({**_COMMON, "forget": {"objective": "ignore"}}),
    "sft": Recipe.model_validate({**_COMMON, "forget": {"objective": "sft"}, "baselines": ["base", "npo"]}),
    "threshold": Recipe.model_validate({**_COMMON, "partition": {"threshold": 0}}),
    "oracle": Recipe.model_validate({**_COMMON, "partition": {"labelling": "oracle_noise"}}),
    "microbatch": Recipe.model_validate({**_COMMON, "forget": {"normalization": "microbatch"}}),
    "hub data": Recipe.model_validate({**_COMMON, "data": {"train": [_HUB], "reference": [_HUB]}}),
    "named reference": Recipe.model_validate({**_COMMON, "reference": {"model": _MODEL}}),
    "synthetic": Recipe.model_validate(
        {
            "name": "x",
            "synthetic": {},
            "split": {"validation_rows": 8},
            "baselines": ["base"],
            "evaluate": {"tasks": ["skills"], "diversity": {}},
            "execution": {"micro_batch": 4},
        }
    ),
}
_INSTEAD_OF = {("partition", "threshold"): "rho", ("partition", "rho"): "threshold"}
"""Fields of which one is null."""


@dataclass
class Recorder:
    """Walks the DAG as if every step's content were as new as its fingerprint; sources never change."""

    identities: dict[str, bytes] = field(default_factory=dict)
    """What each step is handed of the recipe."""
    fingerprints: dict[str, str] = field(default_factory=dict)

    def step(self, call: StepCall, inputs: Mapping[str, Input]) -> Node:
        found = step_fingerprint(
            call.spec.name,
            call.spec.version,
            call.identity,
            {name: _content(value) for name, value in inputs.items() if value is not None},
        )
        self.identities[call.label] = canonical_json(call.identity)
        self.fingerprints[call.label] = found
        return Node(found)

    def model(self, source: ModelSource, field: str, *, code: bool) -> Ref | Unresolved:
        return Ref(field, _digest(field), "model")

    def tokenizer(self, source: ModelSource, field: str) -> Ref | Unresolved:
        return Ref(field, _digest("tokenizer"), "model")

    def data(self, recipe: Recipe, field: str) -> Ref | Unresolved | None:
        return Ref(field, _digest(field), "data") if getattr(recipe.data, field) else None

    def tasks(self, recipe: Recipe, task: str) -> Ref | Unresolved | None:
        return Ref("tasks", _digest(task), "data") if recipe.evaluate.task_dir else None


def _content(value: Node | Ref | Unresolved) -> str:
    if isinstance(value, Node):
        return _digest(f"{value.handle}/{value.part}")
    assert isinstance(value, Ref)
    return value.digest


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def record(recipe: Recipe) -> Recorder:
    """The identities and fingerprints of all its steps."""
    recorder = Recorder()
    walk(recipe, recorder)
    return recorder


@cache
def walked(name: str) -> Recorder:
    """The walk of one of `RECIPES`."""
    return record(RECIPES[name])


@dataclass(frozen=True)
class Flip:
    """One field of one recipe, changed."""

    recipe: str
    path: Path
    model: type[BaseModel]
    name: str
    execution: bool
    """Whether it, or what it is part of, is marked `Execution`."""
    old: Any
    new: Any
    after: Recipe

    @property
    def field(self) -> str:
        """Its path as the recipe has it."""
        return ".".join(map(str, self.path))

    @cached_property
    def walked(self) -> Recorder:
        """The walk of the changed recipe."""
        return record(self.after)

    def __str__(self) -> str:
        return f"{self.recipe}: {self.field}"


def flips() -> list[Flip]:
    """Every field of every recipe. Raises `LookupError` for a field that nobody knows another value of."""
    return [flip for name, recipe in RECIPES.items() for flip in _flips(name, recipe, recipe, (), False)]


def _flips(name: str, recipe: Recipe, model: BaseModel, path: Path, execution: bool) -> Iterator[Flip]:
    for key, info in type(model).model_fields.items():
        value = getattr(model, key)
        below: Path = (*path, info.alias or key)
        marked = execution or Execution in info.metadata
        inner = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        models = [(index, item) for index, item in inner if isinstance(item, BaseModel)]
        for index, item in models:
            yield from _flips(name, recipe, item, below if index is None else (*below, index), marked)
        if not models and _is_plain(info.annotation, value):
            old = _at(recipe.model_dump(by_alias=True), below)
            after = _changed(recipe, below, info.annotation, old, marked)
            yield Flip(
                name, below, type(model), key, marked, old, _at(after.model_dump(by_alias=True), below), after
            )


def all_fields(model: type[BaseModel] = Recipe) -> set[Field]:
    """(class, field) of every field that may hold a plain value, in `model` and all that it can be made of."""
    found: set[Field] = set()
    for name, info in model.model_fields.items():
        found = found.union(*map(all_fields, _parts(info.annotation)))
        if set(_types(info.annotation)) - {NoneType, *_parts(info.annotation)}:
            found.add((model.__name__, name))
    return found


def _types(annotation: Any) -> list[Any]:
    """All that a field or the items of its list may be."""
    if get_origin(annotation) is Annotated:
        return _types(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType, list):
        return [found for argument in get_args(annotation) for found in _types(argument)]
    return [annotation]


def _parts(annotation: Any) -> list[type[BaseModel]]:
    """The models that an annotation allows."""
    return [found for found in _types(annotation) if isinstance(found, type) and issubclass(found, BaseModel)]


def _is_plain(annotation: Any, value: Any) -> bool:
    """Whether `value` is a field's own, and not the absence of a part that has fields."""
    return value is not None or not _parts(annotation)


def _changed(recipe: Recipe, path: Path, annotation: Any, old: Any, execution: bool) -> Recipe:
    """`recipe` with another value at `path`."""
    if _discriminates(annotation):
        return _other_member(recipe, path, old)
    tried = [value for value in _candidates(annotation, old) if value != old or type(value) is not type(old)]
    for value in tried:
        data = recipe.model_dump(by_alias=True)
        _at(data, path[:-1])[path[-1]] = value
        if path in _INSTEAD_OF:
            _at(data, path[:-1])[_INSTEAD_OF[path]] = None
        try:
            return Recipe.model_validate(data)
        except ValidationError:
            continue
    if execution and tried:  # a field with only one value that is allowed so far
        unchecked = _unchecked(recipe, path, tried[0])
        assert isinstance(unchecked, Recipe)
        return unchecked
    raise LookupError(
        f"{'.'.join(map(str, path))}: no other valid value found for {annotation} than {old!r}; teach "
        "tests/identity.py one in `_candidates`"
    )


def _candidates(annotation: Any, old: Any) -> list[Any]:
    """Values that a field of this type may have; the first valid one that differs is taken."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _candidates(get_args(annotation)[0], old)
    if origin in (Union, UnionType):
        members = [member for member in get_args(annotation) if member is not NoneType]
        return [value for member in members for value in _candidates(member, old)]
    if origin is Literal:
        return list(get_args(annotation))
    number = old if isinstance(old, int | float) else 1
    if annotation is bool:
        return [not old]
    if annotation is int:
        return [number + 1, number * 2, number - 1]
    if annotation is float:
        return [number / 2, number * 2, 0.5]
    if annotation is str:
        return ["0.25" if old is None else f"{old}x", "0.25"]
    if origin is list:
        return [old[1:], [*old, *_candidates(get_args(annotation)[0], "")]]
    return []


def _discriminates(annotation: Any) -> bool:
    return get_origin(annotation) is Literal and len(get_args(annotation)) == 1


def _other_member(recipe: Recipe, path: Path, old: Any) -> Recipe:
    """Another member of the union that the model above is one of, with the fields that both have."""
    data = recipe.model_dump(by_alias=True)
    *parents, part, _ = path
    holder: Any = Recipe
    for key in parents:
        holder = _parts(holder.model_fields[key].annotation)[0]
    here = _at(data, path[:-1])
    for member in _parts(holder.model_fields[part].annotation):
        (value,) = get_args(member.model_fields[str(path[-1])].annotation)
        if value != old:
            kept = {key: item for key, item in here.items() if key in member.model_fields}
            _at(data, tuple(parents))[part] = {**kept, path[-1]: value}
            return Recipe.model_validate(data)
    raise LookupError(f"{'.'.join(map(str, path))}: no other member of the union")


def _unchecked(model: Any, path: Path, value: Any) -> Any:
    key = str(path[0])
    return model.model_copy(
        update={key: value if len(path) == 1 else _unchecked(getattr(model, key), path[1:], value)}
    )


def _at(data: Any, path: Path) -> Any:
    for key in path:
        data = data[key]
    return data


def noticed(flip: Flip) -> tuple[set[str], set[str]]:
    """(steps whose own part of the recipe changed, steps whose fingerprint changed), of those in both recipes."""
    old, new = walked(flip.recipe), flip.walked
    both = old.identities.keys() & new.identities.keys()
    return (
        {label for label in both if old.identities[label] != new.identities[label]},
        {label for label in both if old.fingerprints[label] != new.fingerprints[label]},
    )


if __name__ == "__main__":
    for each in flips():
        own, fingerprints = noticed(each)
        below = len(fingerprints - own)
        print(
            f"{each}: {each.old!r} -> {each.new!r}: "
            + (
                "execution: none"
                if not own
                else f"{', '.join(sorted(own))}" + (f" (+{below} below)" if below else "")
            )
        )
    print(f"{len({(each.model, each.name) for each in flips()})} fields, {len(flips())} flips")
