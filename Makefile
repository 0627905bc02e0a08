# `make` prints this help. Everything happens in .venv; `make clean` removes what was built.
PYTHON ?= $(firstword $(shell command -v python3.11 python3 2>/dev/null) python3)
PIP_FLAGS ?=
JOBS ?= 2
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt
SOURCES := pyproject.toml constraints.txt CMakeLists.txt $(wildcard csrc/*) $(wildcard csrc/coding/*)
PEERS := $(wildcard benchmarks/peers.txt)
# Modules under benchmarks/ with a `main`; the others there are their parts, or need data (mcu, tflm) or .venv-litert (litert).
BENCHMARKS := coders import_time prune_time prune_models fpgm_resnet50 resnet18_latency calibration_memory int8 kernels binary_gemm block_sparse mcu_kernels mcu_exact agreement static8 \
              transforms mixed language prune_language post_training_vit slim_vit latency_budget halved diffusion torchvision80 fashion

.DEFAULT_GOAL := help
.PHONY: help install demo test test-litert check bench bench-quantize bench-prune docs clean
.DELETE_ON_ERROR:

help:
	@echo "make demo     install into .venv, then train, prune, distil, quantize and export a small network"
	@echo "make test     install into .venv, then run the tests"
	@echo "make test-litert   the tests of LiteRT files, in .venv-litert: its converter weighs gigabytes"
	@echo "make check    ruff, mypy, import-linter, C warnings, generated files"
	@echo "make bench    run every benchmark, peers in .venv-peers; tables go to benchmarks/results"
	@echo "make bench-quantize   every quantization method on ResNet-8; the table is benchmarks/QUANTIZE.md"
	@echo "make bench-prune      every pruning method on ResNet-8; the table is benchmarks/PRUNE.md"
	@echo "make docs     build the site into site/"
	@echo "make clean    remove .venv, .venv-peers, .venv-litert and everything built"
	@echo
	@echo "PYTHON=python3.12   the interpreter that .venv is made from (3.11 or later)"
	@echo "PIP_FLAGS=...       further options to pip; for the small CPU-only torch where PyPI's brings CUDA along:"
	@echo "                    PIP_FLAGS='--extra-index-url https://download.pytorch.org/whl/cpu'"
	@echo "JOBS=2              parallel test processes"

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Lilliput needs Python 3.11 or later: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "no venv module: install python3-venv"; exit 1; }
	@touch $@

# The build tools first and pinned, so that the C library is built without an isolated, unpinned environment.
$(VENV)/.installed: $(VENV)/.made $(SOURCES)
	$(PIP) scikit-build-core nanobind cmake ninja
	$(PIP) --no-build-isolation -e '.[dev]'
	@touch $@

# torchvision is for tests and benchmarks alone. Its wheels name a CUDA build of torch, so its dependencies stay out.
$(VENV)/.tests: $(VENV)/.installed
	$(PIP) --no-deps torchvision==0.29.2
	@touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(PIP) --no-build-isolation -e '.[docs]'
	@touch $@

.venv-peers/.installed: $(VENV)/.made $(PEERS)
	@$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) $(addprefix -r ,$(PEERS))
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --no-deps torchvision==0.29.2
	@touch $@

# An environment of its own: the converter brings JAX and much else, which no other test needs, in versions of its own choice.
LITERT := .venv-litert/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS)
.venv-litert/.installed: $(SOURCES)
	@$(PYTHON) -m venv .venv-litert
	$(LITERT) scikit-build-core nanobind cmake ninja
	$(LITERT) --no-build-isolation -C build-dir=build/litert -e '.[litert]' 'pytest>=8' 'hypothesis>=6.100'
	@touch $@

install: $(VENV)/.installed

demo: $(VENV)/.installed
	$(VENV)/bin/lilliput demo

test: $(VENV)/.tests
	$(PY) -m pytest -q -n $(JOBS) --dist worksteal

test-litert: .venv-litert/.installed
	.venv-litert/bin/python -m pytest -q tests/deploy/test_litert.py tests/deploy/tflite tests/deploy/c/test_beside.py

check: $(VENV)/.installed
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports
	$(CC) -std=c11 -O2 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -fsyntax-only csrc/*.c csrc/coding/*.c
	$(CC) -std=c99 -O2 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -fsyntax-only csrc/mcu/*.c
	$(CC) -std=c99 -DLP_PORTABLE_ONLY -O2 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -fsyntax-only csrc/*.c csrc/coding/*.c
	$(PY) -m lilliput.methods.table --check docs/methods.md

bench: $(VENV)/.tests $(if $(PEERS),.venv-peers/.installed)
	@mkdir -p benchmarks/results
	@set -e; for name in $(BENCHMARKS); do \
	  echo "== benchmarks.$$name"; $(PY) -m benchmarks.$$name --json benchmarks/results/$$name.json; done
	@$(PY) -m benchmarks.table

# One result file to a row; a few hours in all, and it resumes.
bench-quantize: $(VENV)/.tests
	@$(PY) -m benchmarks.quantize_family

bench-prune: $(VENV)/.tests
	@$(PY) -m benchmarks.prune_family

docs: $(VENV)/.docs
	$(PY) -m mkdocs build --strict

clean:
	rm -rf $(VENV) .venv-peers .venv-litert build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
