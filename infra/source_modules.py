"""Python source as parts that can be told apart: what a module defines, what it imports, what each part names.

Only reads and parses; nothing is imported, so it is quick and works without the libraries that the code needs.
"""

import ast
import functools
import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.fingerprint import canonical_json

Function = ast.FunctionDef | ast.AsyncFunctionDef
_Block = ast.If | ast.Try | ast.With | ast.For | ast.While
_NOT_CODE = frozenset({"ctx", "kind", "type_comment", "type_ignores", "returns"})
Dotted = tuple[str, ...]
"""A name and the attributes asked of it: `np.random.default_rng` is ("np", "random", "default_rng")."""


@dataclass(frozen=True)
class Target:
    """What an imported name stands for: a module, or something that a module defines."""

    module: str
    attribute: str | None = None

    def __str__(self) -> str:
        return f"{self.module}:{self.attribute}" if self.attribute else self.module


@dataclass
class Names:
    """What a part of a module mentions."""

    used: set[Dotted] = field(default_factory=set)
    annotations: set[Dotted] = field(default_factory=set)
    """Mentioned only as the type of something."""
    imports: dict[str, Target] = field(default_factory=dict)
    strings: set[str] = field(default_factory=set)


@dataclass
class Module:
    """One parsed file."""

    name: str
    path: Path
    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    """The top-level statements that bind a name: functions, classes, constants."""
    imports: dict[str, Target] = field(default_factory=dict)
    star_imports: list[str] = field(default_factory=list)
    body: list[ast.stmt] = field(default_factory=list)
    """Statements that act when the module is imported."""

    def binds(self, name: str) -> bool:
        """Whether `name` is something of the module itself, rather than a module below it."""
        return name in self.definitions or name in self.imports


@functools.cache
def package_folder(package: str) -> Path | None:
    """Folder of a top-level package; finding it runs none of its code."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def module_path(name: str) -> Path | None:
    """The file of a module by its full name, or None. (`find_spec` of a submodule would import its parents.)"""
    top, *below = name.split(".")
    folder = package_folder(top)
    if folder is None:
        return None
    place = folder.joinpath(*below)
    candidates = (place / "__init__.py", place.with_suffix(".py"))
    return next((path for path in candidates if path.is_file()), None)


@functools.cache
def read_module(name: str) -> Module:
    """Parse a module. Raises `FileNotFoundError` when there is none and `SyntaxError`."""
    path = module_path(name)
    if path is None:
        raise FileNotFoundError(f"no source of the module {name}")
    module = Module(name, path)
    for statement in ast.parse(path.read_bytes(), str(path)).body:
        _sort_in(module, statement)
    return module


def _sort_in(module: Module, statement: ast.stmt) -> None:
    names = _bound(statement)
    if isinstance(statement, ast.Import | ast.ImportFrom):
        _add_imports(module, statement)
    elif isinstance(statement, _Block):
        for inner in _import_statements(statement):
            _add_imports(module, inner)
        if not _only_imports(statement):
            module.body.append(statement)
    elif not names and not _is_text(statement):
        module.body.append(statement)
    for name in names:
        module.definitions.setdefault(name, []).append(statement)


def _bound(statement: ast.stmt) -> list[str]:
    """Names that a top-level statement defines, imports aside."""
    if isinstance(statement, Function | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        nodes = [node for target in targets for node in ast.walk(target)]
        if any(isinstance(node, ast.Attribute | ast.Subscript) for node in nodes):
            return []  # changes something that exists
        return [node.id for node in nodes if isinstance(node, ast.Name)]
    if isinstance(statement, _Block):
        return [name for inner in _blocks(statement) for name in _bound(inner)]
    return []


def _blocks(statement: ast.stmt) -> Iterator[ast.stmt]:
    for node in ast.iter_child_nodes(statement):
        if isinstance(node, ast.stmt):
            yield node
        elif isinstance(node, ast.ExceptHandler):
            yield from node.body


def _import_statements(statement: ast.AST) -> list[ast.Import | ast.ImportFrom]:
    return [node for node in ast.walk(statement) if isinstance(node, ast.Import | ast.ImportFrom)]


def _only_imports(statement: ast.stmt) -> bool:
    """Such as `if TYPE_CHECKING:`"""
    return all(isinstance(inner, ast.Import | ast.ImportFrom) for inner in _blocks(statement))


def _add_imports(module: Module, statement: ast.Import | ast.ImportFrom) -> None:
    for name, target in imported(statement, module):
        if name == "*":
            module.star_imports.append(target.module)
        else:
            module.imports[name] = target


def imported(statement: ast.Import | ast.ImportFrom, module: Module) -> Iterator[tuple[str, Target]]:
    """(name it binds, what that stands for); the name `*` for all that a module has."""
    for alias in statement.names:
        if isinstance(statement, ast.Import):
            yield (alias.asname, Target(alias.name)) if alias.asname else _top(alias.name)
        else:
            yield alias.asname or alias.name, Target(_origin(statement, module), alias.name)


def _top(name: str) -> tuple[str, Target]:
    top = name.split(".")[0]
    return top, Target(top)


def _origin(statement: ast.ImportFrom, module: Module) -> str:
    if not statement.level:
        return statement.module or ""
    is_package = module.path.name == "__init__.py"
    package = module.name if is_package else module.name.rpartition(".")[0]
    return importlib.util.resolve_name("." * statement.level + (statement.module or ""), package)


def names_in(nodes: Iterable[ast.AST], module: Module) -> Names:
    """Everything that `nodes` mention; the types of arguments, results and variables apart from the rest."""
    found = Names()
    visitor = _Mentions(found, module)
    for node in nodes:
        visitor.visit(node)
    return found


class _Mentions(ast.NodeVisitor):
    def __init__(self, found: Names, module: Module) -> None:
        self._found = found
        self._module = module
        self._target = found.used

    def visit_Name(self, node: ast.Name) -> None:
        self._target.add((node.id,))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        attributes: list[str] = []
        value: ast.expr = node
        while isinstance(value, ast.Attribute):
            attributes.insert(0, value.attr)
            value = value.value
        if isinstance(value, ast.Name):
            self._target.add((value.id, *attributes))
        else:
            self.visit(value)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self._found.strings.add(node.value)
            if self._target is self._found.annotations:
                self._visit_quoted(node.value)

    def visit_Import(self, node: ast.Import) -> None:
        self._found.imports.update(imported(node, self._module))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self._found.imports.update(imported(node, self._module))

    def visit_arg(self, node: ast.arg) -> None:
        self._visit_annotation(node.annotation)

    def visit_FunctionDef(self, node: Function) -> None:
        self._visit_annotation(node.returns)
        for part in (*node.decorator_list, node.args, *node.body):
            self.visit(part)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._visit_annotation(node.annotation)
        self.visit(node.target)
        if node.value is not None:
            self.visit(node.value)

    def _visit_annotation(self, annotation: ast.expr | None) -> None:
        if annotation is not None:
            outer, self._target = self._target, self._found.annotations
            self.visit(annotation)
            self._target = outer

    def _visit_quoted(self, text: str) -> None:
        try:
            expression = ast.parse(text, mode="eval")
        except SyntaxError:
            return  # a Literal's text
        self.visit(expression.body)


def normalised(nodes: Iterable[ast.AST], bindings: dict[str, str], *, in_class: bool = False) -> bytes:
    """The same bytes for code that does the same: no comments, docstrings, layout, imports or types.

    `bindings` say what the imported names in it stand for. `in_class`: the nodes are a class's body, where the
    types of fields stay, since data classes and pydantic act on them.
    """
    return canonical_json([_plain(list(nodes), in_class=in_class), bindings])


def _plain(value: Any, *, in_class: bool) -> Any:
    """Plain data of a syntax tree; empty fields are left out, since Python versions differ in them."""
    if isinstance(value, list):
        return [_plain(item, in_class=in_class) for item in value if not _is_left_out(item, in_class=in_class)]
    if isinstance(value, ast.Constant):
        return ["Constant", type(value.value).__name__, repr(value.value)]
    if not isinstance(value, ast.AST):
        return value
    if isinstance(value, ast.AnnAssign) and not in_class:
        assert value.value is not None  # left out
        value = ast.Assign(targets=[value.target], value=value.value)
    inside = isinstance(value, ast.ClassDef) or (in_class and not isinstance(value, Function))
    fields = {
        name: plain
        for name, item in ast.iter_fields(value)
        if name not in _NOT_CODE
        and not (name == "annotation" and isinstance(value, ast.arg))
        and (plain := _plain(item, in_class=inside)) not in (None, [])
    }
    return [type(value).__name__, fields]


def _is_left_out(node: Any, *, in_class: bool) -> bool:
    only_typed = isinstance(node, ast.AnnAssign) and node.value is None and not in_class
    return only_typed or _is_text(node) or isinstance(node, ast.Import | ast.ImportFrom | ast.Pass)


def _is_text(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
