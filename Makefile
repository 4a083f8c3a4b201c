# make demo: from nothing to the report on the synthesised corpus.  make test: lint and tests.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One thread a test process: two busy threads on two shared cores are slower than one.
TEST_WORKERS ?= 2

.PHONY: demo test lint clean

$(STAMP): setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[synth,export,dev]'
	touch $@

demo: $(STAMP)
	PATH="$(abspath $(BIN)):$$PATH" bash run_distill.sh --corpus synth --size small --preset demo

lint: $(STAMP)
	$(BIN)/ruff check .
	@checker=$$(PATH="$(abspath $(BIN)):$$PATH" command -v shellcheck || true); \
	if [ -n "$$checker" ]; then git ls-files '*.sh' .ci/run | xargs "$$checker" -x; \
	else echo 'shellcheck is not installed: shell scripts were not linted'; fi

test: lint
	OMP_NUM_THREADS=1 PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest -n $(TEST_WORKERS)

clean:
	rm -rf data exp
