"""The source closure of a function: a digest of everything in the project that it can reach, by name.

What is reached is followed statically, name by name. Where that is not clear, more is taken rather than less: of a
class that is used all of it, of a module that is handed around all of it. A class that is mentioned only as a type
is data that comes from outside: its fields are values, but its methods are code and count.
"""

import ast
import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from infra.fingerprint import canonical_json
from infra.source_modules import (
    Dotted,
    Function,
    Module,
    Names,
    Target,
    module_path,
    names_in,
    normalised,
    read_module,
)

TEMPLATE = ".j2"
"""A file with this ending counts, by its bytes, when code beside it names one: templates include each other."""

_PARSING = threading.Lock()
"""Python 3.11 counts the depth of syntax trees for all threads together: two that parse at once get `SystemError`
("AST constructor recursion depth mismatch", cpython issue 106905)."""


def closure(entry: Callable[..., Any] | str, packages: Sequence[str]) -> dict[str, str]:
    """{qualified name: SHA-256 of its normalised source} of all that `entry` reaches inside `packages`.

    `entry` is a module-level function or `"module:function"`. The names are those of functions, methods, classes
    (without their methods), constants, modules (what they do when imported) and template files. Nothing is
    imported. Raises `LookupError` when there is no such function, and `SyntaxError`.
    """
    module, _, name = entry.partition(":") if isinstance(entry, str) else (entry.__module__, "", entry.__qualname__)
    walk = _Closure(packages)
    with _PARSING:
        if module_path(module) is None or name not in read_module(module).definitions:
            raise LookupError(f"no source of {module}:{name}; expected a function at the top of a module")
        walk.take(module, name)
    return dict(sorted(walk.digests.items()))


def source_digest(digests: Mapping[str, str]) -> str:
    """SHA-256 of a whole `closure`."""
    return hashlib.sha256(canonical_json(dict(digests))).hexdigest()


class _Closure:
    def __init__(self, packages: Sequence[str]) -> None:
        self.digests: dict[str, str] = {}
        self._packages = frozenset(packages)
        self._seen: set[tuple[str, str, bool]] = set()

    def take(self, module_name: str, name: str, *, as_type: bool = False) -> None:
        """Add a definition and what it reaches; `as_type`: it is mentioned only as the type of something."""
        if (module_name, name, as_type) in self._seen:
            return
        self._seen.add((module_name, name, as_type))
        module = read_module(module_name)
        statements = module.definitions[name]
        if not as_type:
            self._take_import_of(module)
        rest: list[ast.stmt] = []
        for statement in statements:
            if isinstance(statement, ast.ClassDef):
                self._take_class(module, statement, as_type)
            else:
                rest.append(statement)
        if rest:
            self._add(module, name, rest, as_type)

    def _take_class(self, module: Module, node: ast.ClassDef, as_type: bool) -> None:
        fields: list[ast.stmt] = []
        for statement in node.body:
            if isinstance(statement, Function):
                self._add(module, f"{node.name}.{statement.name}", [statement])
            else:
                fields.append(statement)
        head = [*node.bases, *node.keywords, *node.decorator_list]
        self._add(module, node.name, [*head, *fields], as_type, in_class=True)

    def _take_import_of(self, module: Module) -> None:
        """What importing the module does, and its packages before it."""
        if (module.name, "", False) in self._seen:
            return
        self._seen.add((module.name, "", False))
        if module.body:
            self._add(module, "", module.body)
        package = module.name.rpartition(".")[0]
        if package and module_path(package):
            self._take_import_of(read_module(package))

    def _add(
        self, module: Module, name: str, nodes: Sequence[ast.AST], as_type: bool = False, *, in_class: bool = False
    ) -> None:
        """Record the digest of `nodes` (not of a mere type), and follow what they name."""
        names = names_in(nodes, module)
        if not as_type:
            full = f"{module.name}.{name}" if name else module.name
            digest = hashlib.sha256(normalised(nodes, _bindings(names, module, in_class), in_class=in_class))
            # a property and its setter, or one name bound twice
            self.digests[full] = _joined(self.digests.get(full), digest.hexdigest())
            if any(text.endswith(TEMPLATE) for text in names.strings):
                self._take_templates(module)
        for dotted in names.used:
            self._follow(module, dotted, names, as_type)
        for dotted in names.annotations:
            self._follow(module, dotted, names, as_type or not in_class)

    def _follow(self, module: Module, dotted: Dotted, names: Names, as_type: bool) -> None:
        first, *attributes = dotted
        target = names.imports.get(first)
        if target is None and first in module.definitions:
            self.take(module.name, first, as_type=as_type)
            return
        target = target or module.imports.get(first)
        if target is not None:
            self._follow_target(target, attributes, as_type)
            return
        for origin in module.star_imports:
            self._follow_target(Target(origin, first), attributes, as_type)

    def _follow_target(self, target: Target, attributes: Sequence[str], as_type: bool) -> None:
        if target.module.split(".")[0] not in self._packages:
            return
        path = [*([target.attribute] if target.attribute else []), *attributes]
        module = read_module(target.module)
        while path and not module.binds(path[0]) and module_path(f"{module.name}.{path[0]}"):
            module = read_module(f"{module.name}.{path.pop(0)}")
        if path and path[0] in module.definitions:
            self.take(module.name, path[0], as_type=as_type)
        elif path and path[0] in module.imports:
            self._follow_target(module.imports[path[0]], path[1:], as_type)
        elif path and module.star_imports:
            for origin in module.star_imports:
                self._follow_target(Target(origin, path[0]), path[1:], as_type)
        elif not as_type:
            self._take_all(module)

    def _take_all(self, module: Module) -> None:
        """A module as a value, or asked for a name that it makes up."""
        self._take_import_of(module)
        for name in module.definitions:
            self.take(module.name, name)

    def _take_templates(self, module: Module) -> None:
        package = module.name if module.path.name == "__init__.py" else module.name.rpartition(".")[0]
        for path in sorted(module.path.parent.glob(f"*{TEMPLATE}")):
            self.digests[f"{package}/{path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()


def _bindings(names: Names, module: Module, in_class: bool) -> dict[str, str]:
    """What the imported names stand for: `sqrt` of one library is not that of another."""
    mentioned = names.used | names.annotations if in_class else names.used
    imports = {**module.imports, **names.imports}
    return {first: str(imports[first]) for first, *_ in mentioned if first in imports}


def _joined(earlier: str | None, digest: str) -> str:
    return digest if earlier is None else hashlib.sha256(f"{earlier}{digest}".encode()).hexdigest()
