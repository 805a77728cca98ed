# make lab    open the first notebook in JupyterLab
# make test   everything that must pass: format, lint, types, tests, notebooks, browser tests
# make check  its fast part: format, lint, types
# make test-gpu  the tests that need a CUDA GPU: on the torch of PYTHON where that finds one, else on the pinned torch
# Each sets up .venv on first use, and again only when pyproject.toml or constraints.txt changed.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
FINDS_GPU := -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'
SOURCES := pipelab tests conftest.py docs $(wildcard benchmarks)

.PHONY: lab test check test-gpu programs
.DEFAULT_GOAL := lab

lab: .venv/lab-installed
	$(BIN)/jupyter lab --ServerApp.ip=127.0.0.1 --LabApp.default_url=/lab/tree/notebooks/01_first_pipeline.ipynb \
	  $(if $(filter 0,$(shell id -u)),--allow-root)

test: check programs
	$(BIN)/python -m pytest -m "not alone" -n 3 --dist loadfile --no-loadscope-reorder --nbmake --nbmake-timeout=300
	$(BIN)/python -m pytest -m alone

check: .venv/test-installed
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy

# Two GPUs or more run all of it; what one cannot run is skipped, and says so.
test-gpu:
	@if $(PYTHON) $(FINDS_GPU) 2>/dev/null; then environment=.venv-gpu; else environment=.venv; fi; \
	$(MAKE) --no-print-directory $$environment/test-installed && \
	{ $$environment/bin/python $(FINDS_GPU) || { \
	  echo "torch finds no CUDA GPU on this machine (torch $$($$environment/bin/python -c \
	    'import torch; print(torch.__version__)')), so none of these tests can run."; exit 1; }; } && \
	$$environment/bin/python -m pytest -m gpu tests/launch

# A machine with a GPU often has a torch that fits its driver: it is kept, whatever its version.
.venv-gpu/test-installed: pyproject.toml constraints.txt
	@echo "Installing pipelab and the test tools into .venv-gpu, beside the torch of $(PYTHON) (once; some minutes)"
	@$(PYTHON) -m venv --system-site-packages .venv-gpu || { rm -rf .venv-gpu; exit 1; }
	@grep -v '^torch==' constraints.txt > .venv-gpu/constraints.txt
	.venv-gpu/bin/python -m pip install --quiet --disable-pip-version-check -c .venv-gpu/constraints.txt -e '.[test]'
	@touch $@

.venv/lab-installed: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing pipelab and JupyterLab into .venv (once; some minutes, most of it PyTorch)"
	$(PIP) -e '.[lab]'
	@touch $@

.venv/test-installed: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing pipelab, JupyterLab and the test tools into .venv (once; some minutes, most of it PyTorch)"
	$(PIP) --quiet -e '.[test]'
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
