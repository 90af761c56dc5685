"""Coverage-guided fuzzing of what reads files of others: rows, manifests, commits, recipes.

`targets` says what must hold for any bytes, `child` lets libFuzzer (through atheris) look for bytes for which it
does not, `measure` runs that for a while and counts. What was found stays in the tests.
"""
