# Everything runs from a fresh clone: the first target that needs the virtual environment makes it.
.DEFAULT_GOAL := help
.PHONY: help demo tutorial notebooks test test-slow test-browser docs check format bench clean

# The first Python of 3.11 or newer that really starts (a version manager's stub may exist and refuse).
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
PYTEST ?=
DEMO ?= demo
DEMO_VENV ?= .venv-demo
DEMO_INSTALLED := $(DEMO_VENV)/installed
TUTORIAL ?= tutorial
NOTEBOOKS ?= notebooks/executed
FLICKR8K ?=

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The stamp is touched last: an interrupted installation is repeated, a finished one costs nothing.
$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer was not found. Name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# As a user has it: Showtell without extras. Of the two packages after it only the photographs inside are wanted, not what
# they depend on, so this environment is for nothing else.
$(DEMO_INSTALLED): pyproject.toml $(shell find src -type f -not -path "*/__pycache__/*")
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer was not found. Name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(DEMO_VENV)
	$(DEMO_VENV)/bin/python -m pip install --quiet --disable-pip-version-check .
	$(DEMO_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps scikit-image scikit-learn
	@touch $@

demo: $(DEMO_INSTALLED)  ## captions real photographs and shows where each word came from (seconds)
	$(DEMO_VENV)/bin/python -m showtell demo --output $(DEMO)

tutorial: $(INSTALLED)  ## trains a small captioner on drawn scenes and shows it at work (three minutes)
	$(BIN)/python -m showtell tutorial --output $(TUTORIAL)

notebooks: $(INSTALLED)  ## executes the notebooks; on Flickr8k: make notebooks FLICKR8K=/path/to/it SHOWTELL_WEIGHTS=/path/to/them
	$(BIN)/python notebooks/execute.py --output $(NOTEBOOKS) $(if $(FLICKR8K),--flickr8k $(FLICKR8K))

# Two processes, a file's tests in one of them, so that what they share is made once.
test: $(INSTALLED)  ## the fast tests; more options: make test PYTEST="-k beam -x"
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile $(PYTEST)

test-slow: $(INSTALLED)  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow $(PYTEST)

# Debian's chromium, because the browsers that Playwright downloads are from no package source. Others: CHROMIUM=/path/to/it
CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser)
export CHROMIUM

test-browser: $(INSTALLED)  ## the tests of the service's page, in chromium, which it installs where it may
	@test -n "$(CHROMIUM)" || test "$$(id -u)" = 0 || { echo "chromium was not found. Install it (apt-get install chromium), or name one: make test-browser CHROMIUM=/path/to/it" >&2; exit 1; }
	@test -n "$(CHROMIUM)" || { apt-get update -q && apt-get install -q -y --no-install-recommends chromium; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[browser]'
	CHROMIUM="$${CHROMIUM:-$$(command -v chromium)}" $(BIN)/python -m pytest -m "browser and not slow" $(PYTEST)

docs: $(INSTALLED)  ## the documentation as a site, every link checked; prints where it is
	@$(BIN)/python docs/build.py

check: $(INSTALLED)  ## formatter, linter, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(INSTALLED)  ## rewrites the files as `make check` wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)  ## the benchmarks
	$(BIN)/python -m benchmarks

clean:  ## removes the virtual environments, caches, the demo, the tutorial, executed notebooks and the documentation's site
	rm -rf .venv .venv-demo demo tutorial notebooks/executed build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
