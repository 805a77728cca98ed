# make lab    open the first notebook in JupyterLab
# make test   everything that must pass: format, lint, types, tests, notebooks, browser tests
# make check  its fast part: format, lint, types
# Each sets up .venv on first use, and again only when pyproject.toml or constraints.txt changed.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
SOURCES := pipelab tests conftest.py docs $(wildcard benchmarks)

.PHONY: lab test check programs
.DEFAULT_GOAL := lab

lab: .venv/lab-installed
	$(BIN)/jupyter lab --ServerApp.ip=127.0.0.1 --LabApp.default_url=/lab/tree/notebooks/01_first_pipeline.ipynb \
	  $(if $(filter 0,$(shell id -u)),--allow-root)

test: check programs
	$(BIN)/python -m pytest -m "not alone" -n 2 --dist loadfile
	$(BIN)/python -m pytest -m alone --nbmake --nbmake-timeout=300

check: .venv/test-installed
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy

.venv/lab-installed: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing pipelab and JupyterLab into .venv (once; some minutes, most of it PyTorch)"
	$(PIP) -e '.[lab]'
	@touch $@

.venv/test-installed: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing pipelab, JupyterLab and the test tools into .venv (once; some minutes, most of it PyTorch)"
	$(PIP) -e '.[test]'
	@touch .venv/lab-installed $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "pipelab needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)."; \
	  echo "Install one and name it: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

# The browser tests need Chromium, a figure test the dot program of Graphviz. What is missing is installed where
# that is possible; otherwise the tests that need it are skipped, and this says so.
programs:
	@has() { command -v $$1 >/dev/null || \
	  { [ $$1 = chromium ] && { command -v chromium-browser || command -v google-chrome; } >/dev/null; }; }; \
	missing=""; \
	for program in chromium dot; do has $$program || missing="$$missing $$program"; done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "Installing$$missing"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	    $$(echo "$$missing" | sed 's/dot/graphviz/') >/dev/null || true; \
	fi; \
	for program in $$missing; do \
	  has $$program || echo "Left out: the tests that need $$program, which is not installed."; \
	done
