# `make quickstart`, `make check`, `make test` and `make docs` install what they need into $(VENV).

VENV ?= .venv
PYTHON ?= python3
# embedded: whatever `import detectron2` finds, the embedded engine if nothing is installed.
# detectron2: an installed detectron2, or a clear failure.
ENGINE ?= embedded
WORKERS ?= 2

RUN := $(VENV)/bin/python
# Changed requirements change the name of the stamp, and so cause a new installation.
STAMP := $(VENV)/.installed-$(shell cat requirements.txt pyproject.toml | cksum | cut -d' ' -f1)

# A checkout runs its own code, also with an environment that several checkouts share.
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))

.PHONY: help install quickstart check test test-page lint format types engine docs lock clean

help:
	@echo "make quickstart   train and evaluate on the built-in world; writes output/quickstart/report.html"
	@echo "make check        lint, types, and the unit tests that start no process: about 2 minutes"
	@echo "make test         lint, types and all tests (ENGINE=detectron2: on an installed detectron2)"
	@echo "make test-page    the web page in a browser; needs a Chromium"
	@echo "make docs         the manual, in docs/_build/index.html; warnings are errors"
	@echo "make lock         requirements.lock: all packages of the tested environment with their hashes"
	@echo "make lint | format | types | install | clean"
	@echo "VENV=path uses another virtual environment, PYTHON=path another interpreter"

install: $(STAMP)

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python >= 3.10 is needed, found: $$($(PYTHON) --version 2>&1). Set PYTHON=..."; exit 1; }
	@$(RUN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || \
	  { echo "No virtual environment could be made: install your system's python3-venv"; exit 1; }
	@echo "Installing into $(VENV): several gigabytes the first time, mostly PyTorch"
	$(RUN) -m pip install --disable-pip-version-check --progress-bar on -r requirements.txt
ifeq ($(VENV),.venv)
	$(RUN) -m pip install --disable-pip-version-check --quiet --no-deps --editable .
endif
	@touch $@

quickstart: install
	$(RUN) -m shapes.quickstart

check: install lint types
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(WORKERS) -m "not processes" --durations 10 $(TESTS)

test: install lint types engine
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(WORKERS) $(TESTS)

test-page: install
	$(RUN) -m pip install --disable-pip-version-check --quiet -r requirements-demo.txt
	OMP_NUM_THREADS=1 $(RUN) -m pytest -rs tests/app tests/cli/test_serve.py

lint: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(VENV)/bin/lint-imports

format: install
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

types: install
	$(RUN) -m mypy

engine: install
ifeq ($(ENGINE),detectron2)
	@$(RUN) -c 'import sys, maskclippp; from maskclippp.detectron2_engine import is_embedded; sys.exit(is_embedded())' || \
	  { echo "ENGINE=detectron2, but no detectron2 is installed in $(VENV) (see INSTALL.md)"; exit 1; }
endif
	@$(RUN) -c 'import maskclippp; from maskclippp.detectron2_engine import engine_description as d; print(d())'

# -j would be slower: every process imports torch.
docs: install
	$(RUN) -m sphinx -W --keep-going -q -c docs . docs/_build
	@echo "docs/_build/index.html"

lock: install
	$(RUN) tools/lock.py

clean:
	rm -rf docs/_build build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
