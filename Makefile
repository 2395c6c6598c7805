# make demo      a virtual environment, then a brain cohort made, trained on and reported
# make test      a virtual environment, then the checks and the tests that decide (under 15 minutes)
# make test-full what is long or needs big packages, too
# make docs      the documentation site, in site/
# make peers     an environment of its own with the programs that Decathlete is compared with
PYTHON ?= python3
VENV ?= .venv
PEERS ?= .venv-peers
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
WORKERS ?= 2

.PHONY: demo test test-full check docs venv peers clean

venv: $(VENV)/.installed

# The demo and the tests share one environment, made again when the requirements change.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -c constraints.txt torch==2.13.0
	$(PIP) install --quiet -c constraints.txt -e ".[demo,tensorboard,test,docs]"
	touch $@

peers: $(PEERS)/.installed

$(PEERS)/.installed: benchmarks/peers/requirements.txt constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt torch==2.13.0
	$(PEERS)/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt \
		-r benchmarks/peers/requirements.txt
	touch $@

demo: venv
	$(BIN)/decathlete demo --folder demo

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# NO_MKDOCS_2_WARNING silences a notice about other programs.
docs: venv
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

test: check
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not full"

# With DECATHLETE_PEERS, the environment named there is taken as it is.
test-full: check $(if $(DECATHLETE_PEERS),,peers)
	$(PIP) install --quiet -c constraints.txt -e ".[test-full,dali,openvino,onnx,int8]"
	DECATHLETE_PEERS=$(abspath $(or $(DECATHLETE_PEERS),$(PEERS))) $(BIN)/pytest -n $(WORKERS) --dist worksteal

clean:
	rm -rf $(VENV) $(PEERS) .pytest_cache .mypy_cache .ruff_cache
