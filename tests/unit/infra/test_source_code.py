"""What changes the digest of a function's source, and what does not."""

import importlib
from collections.abc import Callable
from textwrap import dedent

import pytest

from infra import source_modules
from infra.source_code import closure, source_digest

Project = Callable[..., dict[str, str]]

MAIN = """
    from toy.math import double
    def run(x):
        return double(x)
"""
MATH = """
    FACTOR = 2
    def double(x):
        return x * FACTOR
    def unused(x):
        return x
"""


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Write a package `toy` of the given files; the closure of `toy.main:run`."""

    def write(**files: str) -> dict[str, str]:
        root = tmp_path_factory.mktemp("project")
        for name, text in {"__init__": "", **files}.items():
            path = root / "toy" / (name if "." in name else f"{name}.py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(text), encoding="utf-8")
        monkeypatch.syspath_prepend(root)
        importlib.invalidate_caches()
        source_modules.package_folder.cache_clear()
        source_modules.read_module.cache_clear()
        return closure("toy.main:run", ["toy"])

    return write


def changed(old: dict[str, str], new: dict[str, str]) -> set[str]:
    return {name for name in {*old, *new} if old.get(name) != new.get(name)}


def test_names_are_followed_through_modules_and_no_further(project: Project) -> None:
    assert set(project(main=MAIN, math=MATH)) == {"toy.main.run", "toy.math.double", "toy.math.FACTOR"}


@pytest.mark.parametrize(
    "same",
    [
        "def run(x):  # twice\n    # of x\n    return double(x)",
        'def run(x):\n    """Twice."""\n    return double(x)',
        "def run(\n    x,\n):\n    return (double(\n        x))",
        "def run(x: int) -> 'int':\n    return double(x)",
        "def run(x):\n    y: int\n    return double(x)",
        "def run(x):\n    from toy.math import double\n    return double(x)",
        "OTHER = 3\ndef run(x):\n    return double(x)",
        '"""Docs."""\nimport sys\ndef run(x):\n    return double(x)\ndef more():\n    return sys.path',
    ],
    ids=["comment", "docstring", "layout", "types", "declaration", "local import", "constant", "elsewhere"],
)
def test_what_does_nothing_does_not_count(project: Project, same: str) -> None:
    before = project(main=MAIN, math=MATH)
    assert project(main=f"from toy.math import double\n{same}\n", math=MATH) == before


@pytest.mark.parametrize(
    "main, math, names",
    [
        (MAIN.replace("double(x)", "double(x + 0)"), MATH, {"toy.main.run"}),
        (MAIN.replace("(x):", "(x=1):"), MATH, {"toy.main.run"}),
        (MAIN, MATH.replace("FACTOR = 2", "FACTOR = 3"), {"toy.math.FACTOR"}),
        (MAIN, MATH.replace("FACTOR = 2", "FACTOR = '2'"), {"toy.math.FACTOR"}),
        (MAIN, MATH.replace("FACTOR = 2", "FACTOR = True"), {"toy.math.FACTOR"}),
        (MAIN, MATH.replace("x * FACTOR", "FACTOR * x"), {"toy.math.double"}),
        (MAIN, MATH + "\n    print('imported')\n", {"toy.math"}),
        (MAIN, MATH + "\n    FACTOR += 1\n", {"toy.math"}),
        (MAIN, MATH.replace("def double", "@print\n    def double"), {"toy.math.double"}),
        (MAIN.replace("double(x)", "unused(x)").replace("import double", "import unused"), MATH, None),
    ],
    ids=["body", "default", "constant", "text", "truth", "order", "import", "assign", "decorator", "other"],
)
def test_what_does_something_counts_under_its_name(
    project: Project, main: str, math: str, names: set[str] | None
) -> None:
    before = project(main=MAIN, math=MATH)
    after = project(main=main, math=math)
    expected = {"toy.main.run", "toy.math.double", "toy.math.FACTOR", "toy.math.unused"} if names is None else names
    assert changed(before, after) == expected
    assert source_digest(before) != source_digest(after)


def test_the_same_name_of_another_library_counts(project: Project) -> None:
    code = "from {} import sqrt\ndef run(x):\n    return sqrt(x)\n"
    assert changed(project(main=code.format("math")), project(main=code.format("numpy"))) == {"toy.main.run"}


@pytest.mark.parametrize(
    "main",
    [
        "import toy.math\ndef run(x):\n    return toy.math.double(x)",
        "import toy.math as m\ndef run(x):\n    return m.double(x)",
        "from toy import math\ndef run(x):\n    return math.double(x)",
        "from . import math\ndef run(x):\n    return math.double(x)",
        "from .math import double as d\ndef run(x):\n    return d(x)",
        "from toy.again import double\ndef run(x):\n    return double(x)",
        "from toy.inner import double\ndef run(x):\n    return double(x)",
        "from toy.star import double\ndef run(x):\n    return double(x)",
        "from toy.math import *\ndef run(x):\n    return double(x)",
        "def run(x):\n    import toy.math\n    return toy.math.double(x)",
        "try:\n    from toy.math import double as d\nexcept ImportError:\n    pass\ndef run(x):\n    return d(x)",
        "from toy.math import double\nTABLE = {'d': double}\ndef run(x):\n    return TABLE['d'](x)",
        "from toy.math import double\ndef outer(f):\n    return double\n@outer\ndef run(x):\n    return x",
    ],
)
def test_every_way_of_importing_is_followed(project: Project, main: str) -> None:
    files = {
        "again": "from toy.math import double\n",
        "star": "from toy.math import *\n",
        "inner/__init__": "from toy.math import double\n",
        "inner/double": "",
    }
    before = project(main=main, math=MATH, **files)
    after = project(main=main, math=MATH.replace("FACTOR = 2", "FACTOR = 3"), **files)
    assert "toy.math.FACTOR" in changed(before, after)


def test_a_module_that_is_handed_around_counts_as_a_whole(project: Project) -> None:
    main = "from toy import math\ndef run(name):\n    return getattr(math, name)"
    assert "toy.math.unused" in project(main=main, math=MATH)


def test_a_name_that_a_module_makes_up_takes_the_whole_module(project: Project) -> None:
    lazy = "def __getattr__(name):\n    from toy.math import double\n    return double\n"
    main = "from toy.lazy import anything\ndef run(x):\n    return anything(x)"
    assert {"toy.lazy.__getattr__", "toy.math.double"} <= project(main=main, math=MATH, lazy=lazy).keys()


CLASSES = """
    from dataclasses import dataclass
    from toy.math import double
    class Base:
        def help(self):
            return double(1)
    @dataclass
    class Tool(Base):
        size: int = 1
        def use(self):
            return self.size
"""


def test_of_a_class_that_is_used_everything_counts(project: Project) -> None:
    main = "from toy.classes import Tool\ndef run(x):\n    return Tool()"
    before = project(main=main, classes=CLASSES, math=MATH)
    assert {"toy.classes.Tool.use", "toy.classes.Base.help", "toy.math.double"} <= before.keys()
    after = project(main=main, classes=CLASSES.replace("return self.size", "return 0"), math=MATH)
    assert changed(before, after) == {"toy.classes.Tool.use"}
    after = project(main=main, classes=CLASSES.replace("size: int", "size: float"), math=MATH)
    assert changed(before, after) == {"toy.classes.Tool"}


def test_of_a_class_that_is_handed_in_only_the_methods_count(project: Project) -> None:
    main = "from toy.classes import Tool\ndef run(x: Tool):\n    return x.use()"
    before = project(main=main, classes=CLASSES, math=MATH)
    assert {"toy.classes.Tool.use", "toy.classes.Base.help", "toy.math.double"} <= before.keys()
    after = project(main=main, classes=CLASSES.replace("size: int = 1", "size: float = 2.0"), math=MATH)
    assert after == before


def test_templates_count_by_their_bytes(project: Project) -> None:
    main = "def run(x):\n    return open('page.html.j2')"
    before = project(main=main, **{"page.html.j2": "a", "part.j2": "b"})
    after = project(main=main, **{"page.html.j2": "a", "part.j2": "c"})
    assert changed(before, after) == {"toy/part.j2"}


def test_a_function_that_is_not_there_is_an_error(project: Project) -> None:
    project(main=MAIN, math=MATH)
    with pytest.raises(LookupError, match=r"toy\.main:walk"):
        closure("toy.main:walk", ["toy"])
