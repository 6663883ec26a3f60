PYTHON ?= python3
BIN := .venv/bin

.PHONY: help setup demo test test-all lint format lock clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: .venv/.installed  ## create .venv with the locked dependencies

# The mark is touched last, so an installation cut short is done again. Libraries are compiled once, here: else every
# start of Python compiles thousands of files where it may not keep them, and takes 15 s instead of 5.
.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "soundfold needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.9"
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python \
		--require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

demo: setup  ## cross-validate a small model on sounds rendered here: minutes on two CPU cores
	$(BIN)/python scripts/train.py experiment=demo

lint: setup  ## ruff (lint and format), mypy and the contract between packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: setup  ## let ruff rewrite the sources
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# One thread a process, and none that waits by spinning: else two processes on two cores are slower than one.
test test-all: export OMP_NUM_THREADS ?= 1
test test-all: export OMP_WAIT_POLICY ?= PASSIVE

test: lint  ## lint, types and the test suite
	$(BIN)/python -m pytest

test-all: lint  ## the suite with its slow tests
	$(BIN)/python -m pytest -m ""

lock:  ## resolve the ranges of pyproject.toml anew: exact, hashed, for every platform
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--no-annotate --extra dev pyproject.toml -o requirements.lock

clean:  ## remove the environment; data and outputs stay
	rm -rf .venv
