# Three commands matter: `make serve`, `make chat` and `make test`. All work on a fresh machine with Python 3.11+ and make.
PYTHON ?= python3
VENV   ?= .venv
PROMPT ?=
ARGS   ?=
PIP     = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help serve chat test test-all test-clients lint types format clean

help:            ## show this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

serve: $(VENV)/.base  ## set up, fetch the default model, serve API and studio (ARGS="MODEL --port 9000")
	@$(VENV)/bin/deepseek serve $(ARGS)

chat: $(VENV)/.base  ## set up, fetch the default model, answer PROMPT="..." or open a chat
	@$(VENV)/bin/deepseek chat $(if $(PROMPT),--prompt "$$PROMPT") $(ARGS)

test: lint types  ## set up what tests need, then lint, types and tests (under 15 minutes)
	$(VENV)/bin/python -m pytest -m "not slow" $(ARGS)

test-all: lint types  ## the same with the slow tests
	$(VENV)/bin/python -m pytest $(ARGS)

test-clients: $(VENV)/.base  ## drive real clients against a server (ARGS="codex langchain"; needs npm; tests/clients)
	$(VENV)/bin/python tests/clients/run.py $(ARGS)

lint: $(VENV)/.dev  ## ruff: style and import order
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/.dev  ## mypy, strict
	$(VENV)/bin/mypy

format: $(VENV)/.dev  ## rewrite files in the house style
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:           ## remove the virtual environment and caches (models stay in the cache folder)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache

export PROMPT
# PyTorch's threads spin while they wait, which on a busy machine stops each other (docs/decisions/008).
ifndef OMP_WAIT_POLICY
export OMP_WAIT_POLICY := PASSIVE
export GOMP_SPINCOUNT ?= 1000
endif

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one with PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV) (half a minute the first time) ..."
	$(PIP) -e .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	@echo "Installing what the tests need into $(VENV) ..."
	$(PIP) -e ".[dev]"
	@touch $@ $(VENV)/.base
