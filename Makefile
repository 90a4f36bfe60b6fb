# Every target makes what it needs, .venv included. The choices: PYTHON=/path/to/python and TORCH=another-torch-version.
.DEFAULT_GOAL := help
.PHONY: help demo test lint venv clean

PYTHON ?=
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
# Named and installed first, where pip left to itself may fetch gigabytes for GPUs; elsewhere setup.cfg decides.
TORCH ?= $(if $(filter Linux-x86_64,$(shell uname -sm | tr ' ' '-')),torch==2.13.0)

DEMO := demo/band_groove_300s

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(BIN)/.midiex ## extend examples/band_groove.mid to five minutes: MIDI, audio and a picture in demo/
	@.ci/prepare libfluidsynth
	mkdir -p demo
	$(BIN)/midiex extend examples/band_groove.mid --seconds 300 --seed 1 \
		-o $(DEMO).mid --audio $(DEMO).ogg --plot $(DEMO).png
	@echo "Listen to $(DEMO).ogg"

test: lint ## lint, types and tests, with the development packages
	@.ci/prepare libfluidsynth || echo "midiex: going on without; the tests that render audio are skipped." >&2
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

lint: $(BIN)/.midiex-dev ## ruff and mypy alone
	$(BIN)/ruff check --quiet
	$(BIN)/mypy --no-error-summary

venv: $(BIN)/.midiex ## .venv with midiex in it, ready to use

clean: ## remove what was built and the demo; .venv stays (rm -rf .venv takes it away)
	rm -rf build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find midiex tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# The stamps say which setup.cfg .venv was last filled by.
$(BIN)/.midiex: setup.cfg pyproject.toml
	@PYTHON="$(PYTHON)" .ci/prepare venv
	$(if $(TORCH),$(PIP) $(TORCH))
	$(PIP) --editable '.[fast]' || $(PIP) --editable . # not every machine has what makes it fast
	@touch $@

$(BIN)/.midiex-dev: $(BIN)/.midiex
	$(PIP) --editable '.[dev]'
	@touch $@
