# bayesbragg: make demo | test | test-all | check | bench | docs | dist | clean
# The tools live in a virtual environment of this checkout, made on first use. PYTHON=... picks the interpreter,
# VENV=... uses another environment, JOBS=... sets the number of test processes.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
BIN := $(VENV)/bin
STAMP := $(VENV)/.bayesbragg-installed
PIP_LOG := $(VENV)/pip.log
PYTEST := $(BIN)/python -m pytest

.PHONY: help install demo test test-all check format bench docs dist clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 20

install: $(STAMP)  ## the environment with bayesbragg (editable) and the tools of a developer

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "bayesbragg needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing bayesbragg and its tools into $(VENV) (a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' > $(PIP_LOG) 2>&1 \
	  || { tail -n 20 $(PIP_LOG) | sed -E 's#((https?|file)://|host=.)[^ ]*#(package index)#g'; exit 1; }
	@touch $@

demo: $(STAMP)  ## refine the bundled shots, print offsets before and after, draw a picture
	$(BIN)/bayesbragg demo

test: $(STAMP)  ## all tests but the slow ones
	$(PYTEST) -m "not slow" -n $(JOBS) --dist loadfile --max-worker-restart 0 -q

test-all: $(STAMP)  ## every test
	$(PYTEST) -n $(JOBS) --dist loadfile --max-worker-restart 0 -q

check: $(STAMP)  ## style, types, who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy bayesbragg
	$(BIN)/lint-imports

format: $(STAMP)  ## put style in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## speed and memory: ratios and throughputs
	$(BIN)/python benchmarks/run.py

docs: $(STAMP)  ## the documentation in site/, without warnings
	@$(BIN)/python -c 'import mkdocs, mkdocstrings, latex2mathml' 2>/dev/null \
	  || $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]' >> $(PIP_LOG) 2>&1 \
	  || { echo "the tools of the documentation could not be installed; see $(PIP_LOG)"; exit 1; }
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet --site-dir site

dist: $(STAMP)  ## source distribution and wheel in dist/
	$(BIN)/python -m build --no-isolation --outdir dist .

clean:  ## remove what tools have made, but not the environment
	rm -rf build dist site demo_output .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
