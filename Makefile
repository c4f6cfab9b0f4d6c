# make demo    trains on digits and prints likelihoods beside yardsticks
# make test    runs all checks
# make bench   measures the speed, beside PyTorch and Pyro in .venv-benchmarks
# Each makes the virtual environment .venv from requirements.txt when it is missing or old.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test bench lint format

demo: $(VENV)/installed
	$(BIN)/python -m training demo

test: lint
	$(BIN)/python -m pytest -n 2

bench: $(VENV)/installed $(VENV)-benchmarks/installed
	$(BIN)/python -m benchmarks

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/installed: requirements.txt
$(VENV)-benchmarks/installed: benchmarks/requirements.txt
$(VENV)/installed $(VENV)-benchmarks/installed:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11.")'
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@
