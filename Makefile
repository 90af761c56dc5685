# Everything a contributor or CI runs. `make install` needs only python3.11+ with venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test test-e2e check audit format clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	# torch first: whatever else asks for it then takes this version
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: install
	$(BIN)/forgetting run demo

# A process per core, four at most (each starts servers of its own); the tests of a file share theirs, so they stay together.
PYTEST := $(BIN)/python -m pytest -q --numprocesses auto --maxprocesses 4 --dist loadfile

test: install
	$(PYTEST) -m "not slow"

test-e2e: install
	$(PYTEST) -m slow

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Asks the advisories of the package index about everything that is pinned; fails where it cannot ask, too. In an
# environment of its own, so that what it needs is not among what it looks at.
audit:
	test -x .venv/audit/bin/pip-audit || { $(PYTHON) -m venv .venv/audit && .venv/audit/bin/python -m pip install --quiet pip-audit; }
	.venv/audit/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .forgetting
