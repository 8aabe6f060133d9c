# Everything runs from a fresh clone: the first target that needs the virtual environment makes it.
.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check format bench clean

# The first Python of 3.11 or newer that really starts (a version manager's stub may exist and refuse).
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
PYTEST ?=
DEMO ?= demo

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The stamp is touched last: an interrupted installation is repeated, a finished one costs nothing.
$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer was not found. Name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(INSTALLED)  ## trains a small captioner on drawn scenes and shows it at work (three minutes)
	$(BIN)/python -m showtell demo --output $(DEMO)

test: $(INSTALLED)  ## the fast tests; more options: make test PYTEST="-k beam -x"
	$(BIN)/python -m pytest -m "not slow" $(PYTEST)

test-slow: $(INSTALLED)  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow $(PYTEST)

check: $(INSTALLED)  ## formatter, linter, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(INSTALLED)  ## rewrites the files as `make check` wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)  ## the benchmarks
	$(BIN)/python -m benchmarks

clean:  ## removes the virtual environment, caches and the demo
	rm -rf .venv demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
