# Every target sets up what it needs, in .venv. PYTHON may name another interpreter (3.11 or later).
PYTHON ?= python3
SECONDS ?= 5
BIN := .venv/bin
TESTS ?=
DISTRIBUTIONS := kernel $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml))
MANIFESTS := pyproject.toml constraints.txt $(DISTRIBUTIONS:%=%/pyproject.toml)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# With -j too: two pips must not write into one .venv.
.NOTPARALLEL:
.PHONY: help demo test check bench fuzz docs format wheels test-wheels kube-assets registry-assets engine-assets clean

help:
	@echo "make demo         the main job, on a small cloud of its own"
	@echo "make test         the tests, or some: make test TESTS=tests/kernel"
	@echo "make check        ruff, mypy, pyright, import-linter"
	@echo "make bench        the benchmarks, against their budgets"
	@echo "make fuzz         the parsers, with random input, for SECONDS each"
	@echo "make docs         the documentation, in site/"
	@echo "make kube-assets  kube-apiserver and etcd for the tests of Kubernetes; from MOORING_KUBE_CACHE, or built: ten minutes"
	@echo "make wheels       every distribution, as a wheel and an sdist in dist/"
	@echo "make registry-assets  docker-registry and skopeo for the tests, unpacked from Debian's packages (no root)"
	@echo "make engine-assets  dockerd, docker and podman likewise; their tests need root"
	@echo "make test-wheels  the tests against the wheels, outside of the workspace: make test-wheels PYTHON=python3.12"

demo: .venv/.runtime
	@$(BIN)/mooring sandbox demo

test: .venv/.dev
	$(BIN)/python -m pytest $(TESTS)

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

kube-assets:
	@tests/equipment/kube_assets.sh $(KUBEBUILDER_ASSETS)

docs: .venv/.docs
	$(BIN)/mkdocs build --strict --quiet

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheels: .venv/.wheels
	@rm -rf dist
	@set -e; for each in $(DISTRIBUTIONS); do \
		$(BIN)/python -m build --quiet --no-isolation --outdir dist "$$each"; \
	done
	@ls dist

test-wheels: wheels
	$(PYTHON) tests/packaging/outside.py

registry-assets:
	@tests/plugins/docker/assets.sh registry

engine-assets:
	@tests/plugins/docker/assets.sh engine

clean:
	rm -rf .venv site dist

.venv/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mooring needs Python 3.11 or later; name one with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	@$(PIP) --upgrade "pip>=25.1"
	@touch $@

.venv/.runtime: .venv/.python $(MANIFESTS)
	@echo "installing mooring and its plugins into .venv ..." >&2
	@$(PIP) --constraint constraints.txt $(DISTRIBUTIONS:%=-e ./%) "s3fs>=2026.1"
	@touch $@

.venv/.dev: .venv/.runtime
	@echo "installing the tools for tests and checks into .venv ..." >&2
	@$(PIP) --constraint constraints.txt --group test --group rivals --group check --group wheels
	@touch $@

.venv/.docs: .venv/.runtime
	@echo "installing the tools for the documentation into .venv ..." >&2
	@$(PIP) --constraint constraints.txt --group docs
	@touch $@

.venv/.wheels: .venv/.python pyproject.toml constraints.txt
	@echo "installing the tools that build into .venv ..." >&2
	@$(PIP) --constraint constraints.txt --group wheels
	@touch $@
