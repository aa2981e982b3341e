# `make` sets everything up and trains, evaluates and draws the first agent; `make test` checks the whole project.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install -qq --disable-pip-version-check -c constraints.txt

.PHONY: run test lint clean

run: .venv/ok
	$(BIN)/volition train ram:laptop --run runs/ram
	$(BIN)/volition evaluate runs/ram
	$(BIN)/volition watch runs/ram
	$(BIN)/volition table ram

test: .venv/ok-dev lint
	$(BIN)/pytest

lint: .venv/ok-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyrefly check

.venv/ok: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) -e .
	touch $@

.venv/ok-dev: .venv/ok
	$(PIP) -e '.[dev]'
	touch $@

clean:
	rm -rf .venv runs
