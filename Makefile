# One virtual environment, built once in the checkout; every target but help and clean needs it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# The stamp is written last, so that a half-made environment never counts; it is named after the checkout's path,
# because the environment of a copied checkout would still run the original's code.
STAMP := $(VENV)/installed-$(shell pwd | cksum | cut -d ' ' -f 1)

.DEFAULT_GOAL := help
.PHONY: help demo test lint typecheck bench clean

help:  ## print this list
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' Makefile | awk -F ': ' '{ printf "make %-10s %s\n", $$1, $$2 }'

demo: $(STAMP)  ## fit, compare and report on a simulated recording, into demo/
	$(BIN)/whatwhere demo --out demo --overwrite

test: $(STAMP)  ## run the tests and the doctests
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(STAMP)  ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(STAMP)  ## check the types of src
	$(BIN)/mypy src

bench: $(STAMP)  ## time the workloads of benchmarks/
	$(BIN)/python benchmarks/run.py

clean:  ## remove outputs, builds and caches; .venv stays
	rm -rf demo build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -prune -exec rm -rf {} +

# The build backend comes from the same pinned set, hence no build isolation: an offline reinstall works too.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "whatwhere needs Python 3.11 or\
 newer, and '$(PYTHON)' is not: name another, for example make test PYTHON=python3.12" >&2; exit 1; }
	test -e $@ || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt setuptools
	$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e ".[dev]"
	@touch $@
