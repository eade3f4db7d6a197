# Everything runs in .venv, which the first command makes: Python 3.11 to 3.13 and the package index are enough.
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python -m

.PHONY: venv demo stamps check test test-all test-again bench fuzz clean

venv: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev,svg,heif,onnx]'
	touch $@

demo: venv
	$(BIN)/mmdata demo demo

stamps: venv
	$(BIN)/python configs/stamps/fetch.py stamps/corpus
	$(RUN) pipelines.end_to_end configs/stamps/end_to_end.yaml
	$(BIN)/mmdata rejects stamps/dataset
	$(BIN)/python configs/stamps/ask.py stamps/dataset stamps

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: venv
	$(RUN) pytest -n 2 --dist loadfile --no-loadscope-reorder

test-all: venv
	$(RUN) pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not gpu and not real" --durations 25

test-again: venv
	$(RUN) pytest --last-failed --last-failed-no-failures none -m "not gpu and not real"

bench: venv
	for script in benchmarks/[a-z]*.py; do $(BIN)/python $$script || exit 1; done

fuzz: venv
	$(BIN)/pip install --quiet -c constraints.txt -e '.[fuzz]'
	$(BIN)/python fuzz/run.py 60

clean:
	rm -rf .venv demo stamps .mypy_cache .ruff_cache .pytest_cache
