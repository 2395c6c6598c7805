# make demo      a virtual environment, then a brain cohort made, trained on and reported
# make test      a virtual environment, then the checks and the tests that decide (under 15 minutes)
# make test-full what is long or needs big packages, too
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
WORKERS ?= 2

.PHONY: demo test test-full check venv clean

venv: $(VENV)/.installed

# The demo and the tests share one environment, made again when the requirements change.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -c constraints.txt torch==2.13.0
	$(PIP) install --quiet -c constraints.txt -e ".[demo,tensorboard,test]"
	touch $@

demo: venv
	$(BIN)/decathlete demo --folder demo

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not full"

test-full: check
	$(PIP) install --quiet -c constraints.txt -e ".[test-full,dali]"
	$(BIN)/pytest -n $(WORKERS) --dist worksteal

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
