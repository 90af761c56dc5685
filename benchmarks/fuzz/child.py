"""One fuzzing process: `python -m benchmarks.fuzz.child TARGET CORPUS [libFuzzer's options]`. It ends itself."""

import sys
from pathlib import Path

import atheris

MODULES = ("forgetting_core.data", "forgetting_core.plain_yaml", "forgetting_core.recipe", "infra", "json", "yaml")
"""Whose branches guide the search; they have to be imported under the instrumentation."""


def main() -> None:
    """Fuzz until the options say stop, or until something does not hold."""
    name, corpus, *options = sys.argv[1:]
    with atheris.instrument_imports(include=list(MODULES)):
        from benchmarks.fuzz.targets import TARGETS, found
    target = TARGETS[name]
    for number, seed in enumerate([*target.seeds(), *found(name).values()]):
        (Path(corpus) / f"seed-{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], *options, corpus], target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
