PYTHON ?= python3
BIN := .venv/bin

.PHONY: help setup demo test test-slow test-all test-cluster docs lint format lock clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/.installed  ## create .venv with the locked dependencies

# The marker file is touched last, so that an interrupted installation is repeated. Libraries are compiled to bytecode
# here: where Python may not write bytecode later, every start would compile thousands of files (15 s instead of 5).
.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "soundfold needs Python 3.11 to 3.13; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.9"
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python \
		--require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

demo: setup  ## cross-validate a small model on rendered sounds: minutes on two CPU cores
	$(BIN)/python scripts/train.py experiment=demo

lint: setup  ## ruff (lint and format), mypy and the contract between packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: setup  ## apply ruff's fixes and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# One thread per process, and no spinning while it waits: otherwise two processes on two cores are slower than one.
test test-slow test-all test-cluster docs: export OMP_NUM_THREADS ?= 1
test test-slow test-all test-cluster docs: export OMP_WAIT_POLICY ?= PASSIVE
# the commands that tests start would otherwise compile the package's modules each time
test test-slow test-all test-cluster docs: export PYTHONDONTWRITEBYTECODE :=

test: lint  ## lint, types and the test suite without its slow tests
	$(BIN)/python -m pytest

test-slow: setup  ## only the tests marked slow
	$(BIN)/python -m pytest -m slow

test-all: lint  ## lint, types and all tests
	$(BIN)/python -m pytest -m ""

test-cluster: setup  ## sweeps on a real SLURM of one node, as root; installs Debian's packages
	PYTHONPATH=tests $(BIN)/python -m cluster.install
	$(BIN)/python -m pytest --numprocesses 0 --durations 0 --durations-min 1 -rs tests/cluster

docs: setup  ## the site, into docs/_build/html; needs no network
	$(BIN)/python -m sphinx -W --keep-going -q -d docs/_build/doctrees docs docs/_build/html

lock:  ## resolve the version ranges of pyproject.toml to exact, hashed versions for every platform
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--no-annotate --extra dev pyproject.toml -o requirements.lock

clean:  ## remove the environment, but not data and outputs
	rm -rf .venv
