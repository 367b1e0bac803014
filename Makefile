# make run    train a small real model under measurement and print its joules-to-train
# make test   lint, type-check and run the tests
# make test-machine   run the tests that need modules of the kernel, under a Debian kernel in an emulated machine
# make docs   make a site of docs/ in build/docs, which needs no network
# Both make their own virtual environment in .venv; all they need is Python 3.10 or newer. With gcc (or cc) the tests
# also read simulated GPUs; without one those are skipped. Without a GPU, this fetches less:
#     make run TORCH='torch --index-url https://download.pytorch.org/whl/cpu'

PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin
DEMO := .venv/demo-installed
TEST := .venv/test-installed
DOCS := .venv/docs-installed
# Other tools, to be measured beside ours, in an environment of their own; without: make bench PEERS_PYTHON=
PEERS_PYTHON ?= .venv/peers/bin/python

# Compiling all modules beforehand takes longer than compiling those that are used.
export PIP_NO_COMPILE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run test test-long test-machine lint bench docs clean

run: $(DEMO)
	$(BIN)/power-director run --label digits --idle 5 --mllog power-sessions/digits.mllog -- \
		$(BIN)/python -m power_agent.demos.train_digits --mllog power-sessions/digits.mllog

test: lint
	$(BIN)/python -m pytest -n auto --dist loadfile

test-long: $(TEST)
	$(BIN)/python -m pytest -n auto --dist loadfile -m "long or not long"

test-machine: $(TEST)
	$(BIN)/python tests/kernel_machine.py -- $(BIN)/python -m pytest -m machine \
		$$(grep -rl --include='test_*.py' mark.machine tests)

lint: $(TEST)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(TEST) $(PEERS_PYTHON)
	$(BIN)/python benchmarks/all.py --peers-python=$(PEERS_PYTHON)

.venv/peers/bin/python: | $(BIN)/python
	$(PYTHON) -m venv .venv/peers
	.venv/peers/bin/python -m pip install --quiet zeus==0.16.0 codecarbon==3.3.2 || { rm -rf .venv/peers; exit 1; }

docs: $(DOCS)
	$(BIN)/python -m sphinx -q -E -W --keep-going -d build/doctrees docs build/docs
	@echo build/docs/index.html

$(DOCS): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or newer is needed; name one with: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "venv is missing: sudo apt install python3-venv"; rm -rf .venv; exit 1; }

$(DEMO): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	@touch $@

$(TEST): pyproject.toml $(DEMO)
	$(BIN)/python -m pip install --quiet --editable '.[demo,integrations,test,lint,bench,docs]'
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info
