# nfs-provisioner: `make` lists the targets. Each target sets up what it needs, also on a fresh machine.
SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.up-to-date
# The first Python on PATH that is new enough; PYTHON=… on the command line overrides it.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# TESTS=… runs only these tests; PYTEST_FLAGS=… passes flags to pytest.
TESTS ?=
PYTEST_FLAGS ?=
# Tests mostly wait for servers: four processes keep two CPU cores busy.
PARALLEL ?= 4
# Tests marked `thorough` rarely find what others do not: only `make test-all` runs them.
MARKED ?= not thorough
# pip installs exactly what the lock names: it resolves no dependency and builds nothing from source with unpinned tools.
INSTALL := install --quiet --disable-pip-version-check --no-deps
LOCKED := --require-hashes --only-binary :all:
LOCK := uv pip compile pyproject.toml --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-strip-extras --no-header --no-annotate --no-emit-index-url

.PHONY: help setup testbed demo test test-all unit e2e image manifests release pictures check docs format conformance \
	conformance-docs bench bench-growth bench-smoke bench-docs lock clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: $(STAMP) ## create .venv with pinned packages, and install the project and the testbed into it
	@:

$(STAMP): requirements-dev.txt pyproject.toml testbed/pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer on PATH: install one, or run make PYTHON=/path/to/python3"; exit 1; }
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
	  package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing $$package, which provides virtual environments"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$package >/dev/null; \
	  else echo "$(PYTHON) cannot create virtual environments: run sudo apt-get install $$package"; exit 1; fi; fi
	@$(BIN)/python -c 'import os, pip, sys; sys.exit(os.path.realpath(sys.prefix) != os.path.realpath("$(VENV)"))' 2>/dev/null \
	  || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing the packages of requirements-dev.txt into $(VENV): takes a minute, several on a busy machine"
	@$(BIN)/python -m pip $(INSTALL) $(LOCKED) -r requirements-dev.txt
	@PYTHONWARNINGS='ignore:Editable installation' $(BIN)/python -m pip $(INSTALL) --no-build-isolation -e . -e ./testbed
	@problems=$$($(BIN)/python -m pip --disable-pip-version-check check) || { echo "$$problems"; exit 1; }
	@touch $@

testbed: $(STAMP) ## prepare the control plane, Helm and the snapshot-controller (built once, 15 to 60 minutes) and the NFS server for tests
	@$(BIN)/python -m testbed build >/dev/null
	@$(BIN)/python -m testbed install || echo "tests that need a missing program will be skipped"

demo: $(STAMP) ## show the daemon at work on a real control plane on this machine; KEEP=1 leaves it running
	@$(BIN)/python -m demo $(KEEP:%=--keep)

test: testbed ## run unit, simulation, contract and integration tests; PARALLEL=0 runs them in one process
	@$(if $(TESTS),,$(MAKE) unit)
	@$(BIN)/pytest $(or $(TESTS),tests/contract tests/integration tests/simulation) -m "$(MARKED)" \
	  -n $(PARALLEL) --dist loadfile --no-loadscope-reorder $(PYTEST_FLAGS)

test-all: ## run test and e2e in full: every driver and NFS version, more simulated histories, every story on nodes
	@SIMULATION_SEEDS=$${SIMULATION_SEEDS:-500} SIMULATION_FULL=1 $(MAKE) test MARKED=
	@$(MAKE) e2e MARKED=

# The rules and the ledger decide who gets which data: a branch without a test of its promise fails the target.
QUOTA_RULES := $(foreach part,book ids rules wishes,--cov=provisioner.quota.$(part))
unit: $(STAMP) ## run the tests that need no server; they must cover every branch of core/, ledger/ and the agent's rules
	@$(BIN)/pytest tests/unit --cov=provisioner.core --cov=provisioner.ledger $(QUOTA_RULES) --cov-branch --cov-report=term \
	  --cov-fail-under=100 -n $(PARALLEL) --dist loadfile $(PYTEST_FLAGS)

image: $(STAMP) ## build the image, and an NFS server image for tests; as root it starts a Docker daemon where none runs
	@$(BIN)/python -m testbed.docker bash -ec 'docker/build.sh $(BIN)/python; \
	  echo "building nfs-server:dev"; docker build --quiet --tag nfs-server:dev docker/nfs-server'

e2e: testbed ## test the image and the chart as deployed; skipped, with the reason, where Docker cannot run
	@$(BIN)/python -m testbed.docker --or-skip bash -ec '$(MAKE) image; \
	  $(BIN)/python -m tests.e2e.nodes.image; $(BIN)/python -m tests.conformance.suite; \
	  $(BIN)/pytest tests/e2e -m "$(MARKED)" $(PYTEST_FLAGS)'

# FAULTS=leader kills the leader every two minutes, FAULTS=server one of two NFS servers. ONLY=… runs specs by their names.
conformance: testbed ## run Kubernetes' own storage tests on real nodes; takes an hour; FAULTS=leader,server adds faults
	@$(BIN)/python -m testbed.docker --or-skip bash -ec '$(MAKE) image; \
	  $(BIN)/python -m tests.conformance --faults "$(FAULTS)" --only "$(ONLY)"'

conformance-docs: $(STAMP) ## write the results of build/conformance into docs/development/conformance.md
	@$(BIN)/python -m tests.conformance.page --take

manifests: testbed ## render deploy/base from the chart, and the values in its README
	@$(BIN)/python -m deploy.manifests
	@$(BIN)/python -m deploy.chart_readme

release: testbed ## write wheel, chart, manifests and SBOM of the tag at HEAD into dist/release; TAG=v1.2.3 names another tag
	@$(BIN)/python -m deploy.release $(TAG:%=--tag=%)

pictures: testbed ## write docs/pictures from real runs; takes a quarter of an hour and root
	@$(BIN)/python -m pictures

check: $(STAMP) ## check lint, format, types, import direction and documentation
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(MAKE) docs

docs: $(STAMP) ## build the documentation into build/site; a broken link fails the build
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: $(STAMP) ## format the code and apply automatic fixes
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: testbed ## compare speed, CPU and memory with a provisioner on the Go library, and NFS with a local directory
	@$(BIN)/python -m tests.benchmarks $(BENCH_FLAGS)

bench-growth: testbed ## measure how speed, memory and CPU grow from 1,000 to 100,000 volumes
	@$(BIN)/python -m tests.benchmarks.growth $(BENCH_FLAGS)
	@$(BIN)/python -m tests.benchmarks.sizes
	@$(BIN)/python -m tests.benchmarks.nfs_client

bench-smoke: testbed ## fail if a figure falls by half; takes a minute
	@$(BIN)/python -m tests.benchmarks.smoke $(BENCH_FLAGS)

bench-docs: $(STAMP) ## write the figures of build/bench into docs/performance.md, with plots
	@$(BIN)/python -m tests.benchmarks.page --take

lock: $(STAMP) ## pin the newest dependencies with hashes
	@$(BIN)/pip install --quiet --disable-pip-version-check uv
	@$(BIN)/$(LOCK) --output-file requirements.txt
	@$(BIN)/$(LOCK) --extra dev --output-file requirements-dev.txt

clean: ## remove the output of the other targets; the cached control plane stays
	rm -rf $(VENV) build dist htmlcov .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache *.egg-info testbed/*.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
