# Two commands do everything on a fresh machine: `make demo` and `make test`.

SHELL := /bin/bash
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
CODE := mlx_rerank tests benchmarks recipes examples packaging convert.py

# Dependency groups need pip 25.1.
GROUP = $(BIN)/python -m pip install --quiet 'pip>=25.1' && $(BIN)/pip install --quiet --editable . --group

.PHONY: demo test test-cpu test-kernels mutants check lint types smoke installs wheel tagged release docs blas browser clean

demo: $(VENV)/runtime
	$(BIN)/mlx-rerank rank "What do pandas eat?" examples/passages.jsonl --top-n 8

# Two processes, a file in one of them. With a BLAS thread more than there are cores, products would wait for each other.
# What Python compiles is kept, whatever the environment says: the tests start some hundred processes.
test: $(VENV)/dev
	PYTHONDONTWRITEBYTECODE= OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# The same where the GPU is not to be relied on, as in a virtual Mac: each process of the tests computes on the CPU.
test-cpu: export PYTHONPATH := $(CURDIR)/tests/support/cpu
test-cpu: test

# The numeric tests again, with every kernel of OpenBLAS that the processor has, and without OpenBLAS.
test-kernels: $(VENV)/dev
	$(BIN)/python tests/support/kernels.py

# Whether the tests notice changes of the code, drawn at random: an hour. Others are drawn with make mutants ARGS='--seed 2'.
mutants: $(VENV)/dev
	$(BIN)/python tests/support/mutants.py $(ARGS)

check: lint types test

lint: $(VENV)/dev
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	! [ -x $(BIN)/zizmor ] || $(BIN)/zizmor --offline --quiet .github  # for Python 3.11 and newer

types: $(VENV)/dev
	$(BIN)/pyright --pythonpath $(BIN)/python

# Whether this machine computes what it should: each check is a process of its own, which a GPU may end.
smoke: $(VENV)/runtime
	$(BIN)/mlx-rerank doctor --json

# Each extra alone in an empty environment, with the newest packages; with the oldest: make installs ARGS=--oldest
installs: $(VENV)/build
	$(BIN)/python tests/support/installs.py $(ARGS)

# What is released, in dist/: the sdist, the wheel built from it and, where the public address is set, the Homebrew formula.
wheel: $(VENV)/build
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python packaging/formula.py dist/*.tar.gz

# Whether a tag is the version's: make tagged TAG=v1.2.3
tagged:
	@version=$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' mlx_rerank/version.py); \
	[ "$$TAG" = "v$$version" ] || { echo "the tag is $$TAG, and the version $$version: name it v$$version"; exit 1; }

# Publish what `make wheel` wrote, as the tag's release on GitHub.
release: tagged
	gh release create "$$TAG" dist/* --verify-tag --generate-notes

# The documentation, as pages in site/, whose links are then checked.
docs: $(VENV)/docs
	$(BIN)/zensical build --strict --clean
	$(BIN)/lychee --offline --include-fragments --no-progress --root-dir "$$PWD/site" site

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "mlx-rerank needs Python 3.10 or newer: install one, or name it with make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/runtime: pyproject.toml | $(VENV)/bin/python blas
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/dev: pyproject.toml | $(VENV)/bin/python blas browser
	$(GROUP) dev
	@touch $@ $(VENV)/runtime

$(VENV)/build: pyproject.toml | $(VENV)/bin/python blas
	$(GROUP) $(@F)
	@touch $@ $(VENV)/runtime

# What builds the documentation reads the code without importing it.
$(VENV)/docs: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet 'pip>=25.1'
	$(BIN)/pip install --quiet --group docs
	@touch $@

# Linux only: MLX's wheel there bundles a slow BLAS, and an optimised one on the system takes its place.
blas:
	@if [ "$$(uname)" = Linux ] && ! ldconfig -p 2>/dev/null | grep -q 'libopenblas\.so\.0'; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    (apt-get update -qq && apt-get install -y -qq libopenblas0) >/dev/null \
	      || echo "warning: libopenblas0 could not be installed: scoring on the CPU will be slow"; \
	  else \
	    echo "warning: no OpenBLAS found: scoring on the CPU will be slow; install libopenblas0, or pip install mkl"; \
	  fi; \
	fi

# Linux only: a browser for the tests of the server's page, which are skipped where there is none.
browser:
	@if [ "$$(uname)" = Linux ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! command -v chromium >/dev/null; then \
	  (apt-get update -qq && apt-get install -y -qq chromium) >/dev/null \
	    || echo "warning: chromium could not be installed: the tests of the page are skipped"; \
	fi

clean:
	rm -rf $(VENV) site
