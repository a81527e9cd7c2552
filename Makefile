# Everything happens in a virtual environment in the checkout (.venv); nothing outside it is touched.
#   make demo    what Certes does, on real weights
#   make test    everything that continuous integration runs

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
INSTALL := $(PIP) install --no-build-isolation --constraint constraints.txt
INPUTS := pyproject.toml constraints.txt
WORKERS ?= 2

# The tests and the benchmark count on one thread per process; more would only fight over the cores.
export OPENBLAS_NUM_THREADS ?= 1
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo test lint format docs bench experiments constraints clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

demo: $(VENV)/.run ## start the service, certify the example networks, check every certificate offline
	@$(BIN)/python examples/demo.py

# Compiled first: the tests start hundreds of processes, and PYTHONDONTWRITEBYTECODE may keep each from leaving it to the next.
test: lint ## everything CI runs: lint, types, tests with a sample of the slow ones (CERTES_SLOW=all: every slow one)
	@$(BIN)/python -m compileall -q solvers service clients
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

lint: $(VENV)/.dev ## ruff (rules and format) and mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/.dev ## rewrite the sources in the house format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(VENV)/.dev ## build the documentation as a site, in build/site; a warning is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict  # --quiet would hide warnings from --strict too

bench: $(VENV)/.run ## measure; prints a table, writes JSON
	@$(BIN)/python -m benchmarks

experiments: $(VENV)/.run ## train certified assemblies; writes the table in docs/training.md
	@$(BIN)/python -m benchmarks.experiments

constraints: $(VENV)/.dev ## write constraints.txt anew from what is installed
	@{ sed '/^[^#]/d' constraints.txt; \
	   $(BIN)/python -m pip freeze --all --exclude-editable | grep -v '^pip==' | sed 's/+cpu$$//'; } > $(VENV)/constraints.txt
	@mv $(VENV)/constraints.txt constraints.txt

clean: ## remove the environment and everything that was generated
	@rm -rf $(VENV) build dist *.egg-info solvers/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find solvers service clients tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# Three stamps: the bare environment, what the demo needs, what the tests need on top. Each is made anew when the
# inputs change; the environment is thrown away only when the interpreter behind it is gone.
$(VENV)/.bare: $(INPUTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Certes needs Python 3.11 or newer, and '$(PYTHON)' is not. Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "'$(PYTHON)' cannot make virtual environments. On Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "Preparing $(VENV) ..."
	@test -x $(BIN)/python && $(BIN)/python -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@$(PIP) install --constraint constraints.txt setuptools wheel
	@touch $@

$(VENV)/.run: $(VENV)/.bare
	@echo "Installing certes with the extras service, sdp, exact, train (torch: this can take some minutes) ..."
	@$(INSTALL) --editable '.[service,sdp,exact,train]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@echo "Installing what the tests need ..."
	@$(INSTALL) --editable '.[dev]'
	@touch $@
