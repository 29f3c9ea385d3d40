# Every target sets up what it needs, in .venv. PYTHON may name another interpreter (3.11 or later).
PYTHON ?= python3
SECONDS ?= 5
BIN := .venv/bin
PLUGINS := -e ./kernel -e ./plugins/aws -e ./plugins/sandbox
MANIFESTS := pyproject.toml kernel/pyproject.toml plugins/aws/pyproject.toml plugins/sandbox/pyproject.toml constraints.txt

.PHONY: help demo test check bench fuzz docs format clean

help:
	@echo "make demo    the main job, on a small cloud of its own"
	@echo "make test    the tests"
	@echo "make check   ruff, mypy, pyright, import-linter"
	@echo "make bench   the benchmarks, against their budgets"
	@echo "make fuzz    the parsers, with random input, for SECONDS each"
	@echo "make docs    the documentation, in site/"

demo: .venv/.runtime
	@$(BIN)/mooring sandbox demo

test: .venv/.dev
	$(BIN)/python -m pytest

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: .venv/.dev
	$(BIN)/python benchmarks/compare.py

fuzz: .venv/.dev
	$(BIN)/python tests/fuzz/run.py --seconds $(SECONDS)

docs: .venv/.docs
	$(BIN)/mkdocs build --strict --quiet

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv site

.venv/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mooring needs Python 3.11 or later; name one with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@touch $@

.venv/.runtime: .venv/.python $(MANIFESTS)
	@echo "installing mooring and its plugins into .venv ..." >&2
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt $(PLUGINS)
	@touch $@

.venv/.dev: .venv/.runtime
	@echo "installing the tools for tests and checks into .venv ..." >&2
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --group test --group check
	@touch $@

.venv/.docs: .venv/.runtime
	@echo "installing the tools for the documentation into .venv ..." >&2
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --group docs
	@touch $@
