# make demo: from nothing to the report on the synthesised corpus.  make test: lint and tests.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Tests run with one thread per process: two busy threads on two shared cores are slower than one.
# The tests of one file stay in one process: those that share a run of the recipe make it once.
# Files run in their order, so that the recipe, the longest, begins early.
TEST_WORKERS ?= 2

.PHONY: demo test lint style types shell clean

$(STAMP): setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[synth,dev]'
	touch $@

demo: $(STAMP)
	bash run_distill.sh --corpus synth --size small --base_epochs 4 --teacher_epochs 12 \
	  --student_epochs 12 --num_average 4 --note "A demonstration with few epochs, done in \
	minutes: examples/hi_xiaowen/README.md has the results of longer training."

lint: style types shell

style: $(STAMP)
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

shell: $(STAMP)
	@checker=$$(PATH="$(abspath $(BIN)):$$PATH" command -v shellcheck || true); \
	if [ -n "$$checker" ]; then git ls-files '*.sh' .ci/run | xargs "$$checker" -x; \
	else echo 'shellcheck is not installed: shell scripts were not linted'; fi

test: lint
	OMP_NUM_THREADS=1 PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile \
	  --no-loadscope-reorder

clean:
	rm -rf data exp
