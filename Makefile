# One virtual environment, built once in the checkout; every target but help and clean needs it. Other libraries have
# an environment of their own, which bench-peers alone needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers

# The stamp is written last, so that a half-made environment never counts; it is named after the checkout's path,
# because the environment of a copied checkout would still run the original's code.
INSTALLED := installed-$(shell pwd | cksum | cut -d ' ' -f 1)
STAMP := $(VENV)/$(INSTALLED)
DOCS_STAMP := $(VENV)/docs-$(INSTALLED)
PEERS_STAMP := $(PEERS)/$(INSTALLED)

.DEFAULT_GOAL := help
.PHONY: help demo test lint typecheck docs bench bench-peers clean

help:  ## print this list
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' Makefile | awk -F ': ' '{ printf "make %-11s %s\n", $$1, $$2 }'

demo: $(STAMP)  ## fit, compare and report on a simulated recording, into demo/
	$(BIN)/whatwhere demo --out demo --overwrite

test: $(STAMP)  ## run the tests and the doctests
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

lint: $(STAMP)  ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(STAMP)  ## check the types of src
	$(BIN)/mypy src

docs: $(DOCS_STAMP)  ## build the documentation, into docs/_build/html
	$(BIN)/python -m sphinx -b html -W --keep-going docs docs/_build/html

bench: $(STAMP)  ## time the workloads of benchmarks/
	$(BIN)/python benchmarks/run.py

bench-peers: $(PEERS_STAMP)  ## time them beside neuralpredictors and openretina
	$(PEERS)/bin/python benchmarks/run_peers.py

clean:  ## remove outputs, builds and caches; .venv and .venv-peers stay
	rm -rf demo build dist docs/_build docs/gallery src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -path ./$(PEERS) -prune -o -name __pycache__ -prune -exec rm -rf {} +

# $(call install,folder,package): the package and what it needs, of the pinned versions, into an environment there.
# The build backend comes from the same pinned set, hence no build isolation: an offline reinstall works too.
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "whatwhere needs Python 3.11 or\
 newer, and '$(PYTHON)' is not: name another, for example make test PYTHON=python3.12" >&2; exit 1; }
	test -e $@ || $(PYTHON) -m venv --clear $(1)
	$(1)/bin/python -m pip install -q -c constraints.txt setuptools
	$(1)/bin/python -m pip install -q -c constraints.txt --no-build-isolation -e $(2)
endef

$(STAMP): pyproject.toml constraints.txt
	$(call install,$(VENV),".[dev]")
	@touch $@

# Into the same environment: the examples run with what the tests run with.
$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e ".[docs]"
	@touch $@

# The other libraries come without what they ask for, which would pull another torch: whatwhere's is theirs, too.
$(PEERS_STAMP): pyproject.toml constraints.txt benchmarks/peers/requirements.txt
	$(call install,$(PEERS),.)
	$(PEERS)/bin/python -m pip install -q --no-deps -r benchmarks/peers/requirements.txt
	@touch $@
