# make help lists what there is. Everything runs in .venv, which is made on the first use.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
# stages are started as 'python -m ...' by dvc, and that python must be the environment's
RUN := PATH="$(CURDIR)/$(BIN):$$PATH"
NEEDED_GB := 5

.PHONY: help setup repro test test-fast bench lint deps tour format clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 18

setup: .venv/.installed  ## make .venv with the exact versions of constraints.txt

# one pip call, so that torch stays the pinned one
.venv/.installed: pyproject.toml constraints.txt
	@command -v git >/dev/null || { echo "error: git is missing: install it (Debian: apt install git)" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "error: Python 3.11 or newer is missing: install it, or run make with PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "error: $(PYTHON) -m venv is missing: install it (Debian: apt install python3-venv)" >&2; exit 2; }
	@free=$$(df -Pk . | awk 'NR == 2 { print int($$4 / 1048576) }'); [ -d .venv ] || [ "$$free" -ge $(NEEDED_GB) ] || \
		{ echo "error: $$free GB free on this disk, $(NEEDED_GB) GB are needed for .venv: free some space" >&2; exit 2; }
	@echo "installing the pinned packages into .venv (a few minutes, once)"
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[gptq,test]'
	@touch $@

repro: setup  ## run the pipeline: whatever is out of date, on the embedded default or params.yaml as it is
	@$(RUN) python -m pipeline.params
	@$(RUN) dvc repro

# files in their order: by number of tests, which is xdist's own, the few slow ones under DVC would come last and alone
test: setup  ## run the whole test suite, two files at a time
	@$(RUN) python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-fast: setup  ## run the tests of single parts, without DVC and a browser (a minute)
	@$(RUN) python -m pytest -n 2 --dist loadfile -m 'not slow' tests/unit

bench: setup  ## measure speed and memory beside other libraries (minutes)
	@$(RUN) python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench,gptq,test]'
	@$(RUN) python -m bench.extract
	@$(RUN) python -m bench.extract --memory
	@$(RUN) python -m bench.probes
	@[ -x .venv-bench/bin/python ] || $(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 -e '.[bench-sae]'
	@.venv-bench/bin/python -m pip uninstall --quiet --yes torchvision
	@.venv-bench/bin/python -m bench.sae

lint: setup  ## check format, style and types
	@$(RUN) ruff format --check .
	@$(RUN) ruff check .
	@$(RUN) mypy

tour: setup  ## run examples/tour.ipynb on the run that is here, and keep its outputs
	@$(RUN) python -m tools.tour

deps: setup  ## write code lists and plots of dvc.yaml, docs/reruns.md, and the defaults that the report knows
	@$(RUN) python -m tools.deps

format: setup  ## format the code
	@$(RUN) ruff format .
	@$(RUN) ruff check --fix .

clean:  ## remove the environments; data, models and DVC's cache stay
	rm -rf .venv .venv-bench
