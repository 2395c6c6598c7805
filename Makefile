# make demo      a virtual environment, then `decathlete demo`
# make test      a virtual environment, then style, types, import contracts and tests
# make test-full also the tests that are long or need large packages
# make robustness all malformed inputs, kills and faults (about an hour); outcomes in robustness-results/
# make docs      the documentation site, in site/
# make fake-cuda a separate environment with torch's CUDA build (4.7 GB), and the tests of CUDA that need no GPU
# make viewers   the client of MONAI Label that 3D Slicer uses, and its OHIF, in .viewers (for make test-full)
# make triton    an environment of its own with Triton Inference Server (nvidia-pytriton, 370 MB), for `decathlete triton`
# make peers     an environment of its own with the programs that Decathlete is compared with
# make debian-packages  programs that tests run, by apt-get (needs root). Tests are skipped that need a missing one: of the
#                page and of OHIF (chromium), of the DICOM node with an archive (orthanc, orthanc-dicomweb), and of structure
#                sets that another program reads (plastimatch). Triton's server needs libpython. test-full lists missing ones
PYTHON ?= python3
VENV ?= .venv
PEERS ?= .venv-peers
FAKE_CUDA ?= .venv-cuda
VIEWERS ?= .viewers
TRITON ?= .venv-triton
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# One more than two processors: tests wait now and then.
WORKERS ?= 3
DEBIAN_PACKAGES := chromium orthanc orthanc-dicomweb plastimatch

.PHONY: demo test test-full robustness fake-cuda triton check docs venv peers viewers debian-packages clean

venv: $(VENV)/.installed

# The demo and the tests share one environment, made again when the requirements change.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -c constraints.txt torch==2.13.0
	$(PIP) install --quiet -c constraints.txt -e ".[demo,tensorboard,cluster,dicom,serve,triton,tiff,test,docs]"
	touch $@

peers: $(PEERS)/.installed

$(PEERS)/.installed: benchmarks/peers/requirements.txt constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt torch==2.13.0
	$(PEERS)/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt \
		-r benchmarks/peers/requirements.txt
	touch $@

viewers: $(VIEWERS)/.downloaded

# The wheel is only unpacked: it would install another web server and MONAI.
$(VIEWERS)/.downloaded: | venv
	mkdir -p $(VIEWERS)
	$(PIP) download --quiet --no-deps --only-binary=:all: --python-version 3.12 -d $(VIEWERS) monailabel==0.8.5
	$(BIN)/python -m zipfile -e $(VIEWERS)/monailabel-0.8.5*.whl $(VIEWERS)
	touch $@

fake-cuda: $(FAKE_CUDA)/.installed
	$(FAKE_CUDA)/bin/pytest -n $(WORKERS) tests/fake_cuda

# Without pip's own configuration, which may name a CPU build of torch.
$(FAKE_CUDA)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(FAKE_CUDA)
	PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS= PIP_EXTRA_INDEX_URL= \
		$(FAKE_CUDA)/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt torch==2.13.0
	$(FAKE_CUDA)/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt -e ".[test]"
	$(FAKE_CUDA)/bin/python -c "import sys, torch; torch.backends.cuda.is_built() or sys.exit('torch has no CUDA')"
	touch $@

# Without constraints.txt: nvidia-pytriton needs an older numpy. Only the server's files are used; models compute in
# $(VENV), whose Python must have a shared library (Debian's libpython3.11, for example).
triton: $(TRITON)/.installed

$(TRITON)/.installed:
	$(PYTHON) -m venv $(TRITON)
	$(TRITON)/bin/python -m pip --disable-pip-version-check install --quiet nvidia-pytriton==0.7.0 "numpy<2"
	touch $@

# libpython only if Debian has the version of $(PYTHON); other Pythons bring their own. The tests start an Orthanc of their
# own: `systemctl disable --now orthanc` ends the one that Debian starts.
debian-packages:
	apt-get update
	library=$$($(PYTHON) -c "import sys; print('libpython%d.%d' % sys.version_info[:2])"); \
	apt-get install -y --no-install-recommends $(DEBIAN_PACKAGES) $$(apt-cache pkgnames $$library | grep -x $$library)

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

# Tests start many processes, which would compile every module again where PYTHONDONTWRITEBYTECODE is set.
test: check
	$(BIN)/python -m compileall -q src
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not full"

# With DECATHLETE_PEERS or DECATHLETE_TRITON, the environment named there is used as it is. The tests of CUDA without a
# GPU run where `make fake-cuda` has made their environment.
test-full: check viewers $(if $(DECATHLETE_PEERS),,peers) $(if $(DECATHLETE_TRITON),,triton) \
		$(if $(wildcard $(FAKE_CUDA)/.installed),fake-cuda)
	$(PIP) install --quiet -c constraints.txt -e ".[test-full,dali,openvino,onnx,int8,slurm]"
	status=0; DECATHLETE_PEERS=$(abspath $(or $(DECATHLETE_PEERS),$(PEERS))) \
		DECATHLETE_TRITON=$(abspath $(or $(DECATHLETE_TRITON),$(TRITON))) $(BIN)/pytest -n $(WORKERS) --dist worksteal \
		--hypothesis-profile random || status=$$?; \
	$(BIN)/python tests/external_programs.py; exit $$status

# Their work is heavy, or counts seconds.
test-full robustness: WORKERS = 2

# Each part prints a table of outcomes and fails if there was a fault; the others run all the same.
robustness: venv
	mkdir -p robustness-results
	status=0; for part in fuzz kill fault; do \
		$(BIN)/python -m tests.robustness.run $$part --workers $(WORKERS) --json robustness-results/$$part.json || status=1; \
	done; exit $$status

clean:
	rm -rf $(VENV) $(PEERS) $(FAKE_CUDA) $(VIEWERS) $(TRITON) .pytest_cache .mypy_cache .ruff_cache
