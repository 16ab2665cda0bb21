# `make demo` and `make test` set everything up themselves, in .venv, and can be run again at no cost.
PYTHON ?= python3
VENV ?= .venv
DATA ?=
HEAD ?= actionformer
VIDEO ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test test-portable lint types docs clean

install: $(STAMP)

# torch comes first, so that extensions are built against the very torch that runs them
$(STAMP): pyproject.toml setup.py constraints.txt $(wildcard csrc/*)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed (PYTHON=... chooses it)")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip "setuptools>=77" wheel
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch numpy
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable ".[dev]"
	touch $@

demo: $(STAMP)
	$(BIN)/python $(if $(VIDEO),tools/demo_video.py,tools/demo.py --head $(HEAD) $(if $(DATA),--data $(DATA)))

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

# the tests that compare two computations, on a processor that rounds differently
test-portable: $(STAMP)
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE $(BIN)/python -m pytest -m two_paths

lint: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP)
	$(BIN)/mypy

# the API reference, from the docstrings; the pages of docs/ read as they are
docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pdoc
	$(BIN)/pdoc --output-directory build/docs libs '!libs._C' '!libs._C_cuda' actionformer_nt
	@echo "build/docs/index.html"

clean:
	rm -rf $(VENV) build dist *.egg-info demo/runs demo/data
