# make creates the environment .venv, with the project installed in it
# make demo trains on digits and prints likelihoods next to baselines
# make test    runs all checks, as CI does
# make check lint, types and the quick tests, in two minutes
# make bench measures the speed, compared with PyTorch and Pyro in .venv-benchmarks
# make docs    builds the documentation site in build/docs
# make report  makes the tables and plots of docs/estimators.md from the committed results
# Each first creates .venv from requirements.txt, or updates it if it is out of date.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := -m pip --quiet --disable-pip-version-check
BENCHMARKS := .venv-benchmarks

.PHONY: install demo test check bench report docs lint format

install: $(VENV)/installed

demo: $(VENV)/installed
	$(BIN)/rws-keras demo

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not fuzz and not processes"

bench: $(VENV)/installed $(BENCHMARKS)/installed
	$(BIN)/python -m benchmarks

report: $(VENV)/installed
	$(BIN)/python -m benchmarks.report

docs: $(VENV)/installed
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --conf-dir docs . build/docs

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The commands and the version that pip knows are those of the last installation.
$(VENV)/installed: requirements.txt pyproject.toml rws_keras/version.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11.")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) install --requirement requirements.txt
	$(BIN)/python $(PIP) install --no-deps --no-build-isolation --editable .
	touch $@

$(BENCHMARKS)/installed: benchmarks/requirements.txt
	$(PYTHON) -m venv $(BENCHMARKS)
	$(BENCHMARKS)/bin/python $(PIP) install --requirement $<
	touch $@
