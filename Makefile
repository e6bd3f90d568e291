# nfs-provisioner: `make` lists what can be done. Each target sets up what it needs, on a fresh machine too.
SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.up-to-date
# The first Python that is new enough; PYTHON=… on the command line overrides it.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# What `make test` runs, when only a part is wanted.
TESTS ?=
PYTEST_FLAGS ?=
# Tests mostly wait for servers: a second process halves the time on two processors.
PARALLEL ?= 2
# Which tests of a suite: those that rarely find what others do not are for `make test-all`.
MARKED ?= not thorough
# pip takes exactly what the lock names: no dependency is resolved, and nothing is built from source with unpinned tools.
INSTALL := install --quiet --disable-pip-version-check --no-deps
LOCKED := --require-hashes --only-binary :all:
LOCK := uv pip compile pyproject.toml --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-strip-extras --no-header --no-annotate --no-emit-index-url

.PHONY: help setup testbed demo test test-all unit e2e image manifests pictures check docs format bench lock clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv with everything pinned, and the project in it
	@:

$(STAMP): requirements-dev.txt pyproject.toml testbed/pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer on PATH: install one, or say make PYTHON=/path/to/python3"; exit 1; }
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
	  package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing $$package, without which there are no virtual environments"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$package >/dev/null; \
	  else echo "$(PYTHON) cannot make virtual environments; run: sudo apt-get install $$package"; exit 1; fi; fi
	@$(BIN)/python -c 'import os, pip, sys; sys.exit(os.path.realpath(sys.prefix) != os.path.realpath("$(VENV)"))' 2>/dev/null \
	  || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing the packages of requirements-dev.txt into $(VENV): a minute, several on a busy machine"
	@$(BIN)/python -m pip $(INSTALL) $(LOCKED) -r requirements-dev.txt
	@PYTHONWARNINGS='ignore:Editable installation' $(BIN)/python -m pip $(INSTALL) --no-build-isolation -e . -e ./testbed
	@problems=$$($(BIN)/python -m pip --disable-pip-version-check check) || { echo "$$problems"; exit 1; }
	@touch $@

testbed: $(STAMP) ## prepare the control plane and Helm (built once, 8 to 45 minutes) and the NFS server for tests
	@$(BIN)/python -m testbed build >/dev/null
	@$(BIN)/python -m testbed install || echo "the tests that need what is missing will be skipped"

demo: $(STAMP) ## see it work on a real control plane on this machine; KEEP=1 leaves it running
	@$(BIN)/python -m demo $(KEEP:%=--keep)

test: testbed ## unit, simulation, contract and integration tests; PARALLEL=0 runs them in one process
	@$(if $(TESTS),,$(MAKE) unit)
	@$(BIN)/pytest $(or $(TESTS),tests/contract tests/integration tests/simulation) -m "$(MARKED)" \
	  -n $(PARALLEL) --dist loadfile --no-loadscope-reorder $(PYTEST_FLAGS)

test-all: ## test and e2e whole: every driver and version of NFS, more histories of the simulation, every story on nodes
	@SIMULATION_SEEDS=$${SIMULATION_SEEDS:-500} SIMULATION_FULL=1 $(MAKE) test MARKED=
	@$(MAKE) e2e MARKED=

unit: $(STAMP) ## the tests that need no server; every branch of every rule must be taken
	@$(BIN)/pytest tests/unit --cov=provisioner.core --cov-branch --cov-report=term --cov-fail-under=100 \
	  -n $(PARALLEL) --dist loadfile $(PYTEST_FLAGS)

image: $(STAMP) ## build the image, and that of an NFS server for tests; root gets a docker of its own where none runs
	@$(BIN)/python -m testbed.docker bash -ec 'docker/build.sh $(BIN)/python; \
	  echo "building nfs-server:dev"; docker build --quiet --tag nfs-server:dev docker/nfs-server'

e2e: testbed ## the image and the chart as they are deployed; skipped, with the reason, where there can be no docker
	@$(BIN)/python -m testbed.docker --or-skip bash -ec '$(MAKE) image; \
	  $(BIN)/python -m tests.e2e.nodes.image; $(BIN)/pytest tests/e2e -m "$(MARKED)" $(PYTEST_FLAGS)'

manifests: testbed ## write deploy/base from the chart
	@$(BIN)/python -m deploy.manifests

pictures: testbed ## write docs/pictures from what really runs, a quarter of an hour; takes root
	@$(BIN)/python -m pictures

check: $(STAMP) ## lint, format, types, the direction of imports, and the documentation
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(MAKE) docs

docs: $(STAMP) ## build the documentation into build/site; a link that leads nowhere fails it
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: $(STAMP) ## format, and mend what can be mended by itself
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: testbed ## measure: claims a second, restarts, deletions
	@$(BIN)/python -m tests.bench $(BENCH_FLAGS)
	@$(BIN)/python -m tests.bench.direct

lock: $(STAMP) ## pin the newest dependencies, with hashes
	@$(BIN)/pip install --quiet --disable-pip-version-check uv
	@$(BIN)/$(LOCK) --output-file requirements.txt
	@$(BIN)/$(LOCK) --extra dev --output-file requirements-dev.txt

clean: ## remove what the other targets made here; the cached control plane stays
	rm -rf $(VENV) build dist htmlcov .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache *.egg-info testbed/*.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
