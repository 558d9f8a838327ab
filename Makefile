# Two commands do everything on a fresh machine: `make demo` and `make test`.
# PYTHON may name any CPython from 3.10 on; everything is installed into .venv.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/.installed
# Test files that run at once.
WORKERS ?= 2

.PHONY: demo test test-all bench lint clean

demo: $(INSTALLED)
	$(BIN)/p2pmarket demo $(ARGS)

test: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile $(ARGS)

# Also the tests that take minutes, such as 100,000 mutations.
test-all: $(INSTALLED)
	$(BIN)/python -m pytest -q -m "not gpu" $(ARGS)

bench: $(INSTALLED)
	$(BIN)/python -m pytest -q -m slow
	$(BIN)/python -m benchmarks.transfer $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/mypy

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo,research,test]'
	@touch $(INSTALLED)

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache
