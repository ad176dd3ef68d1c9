PYTHON ?= python3
BIN := .venv/bin

.PHONY: venv extras demo test lint format

# the environment: .venv with simulsa, its synthesiser and its test tools
venv: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# the packages of the extras whose parts are tested, on top of it
extras: .venv/.extras

.venv/.extras: .venv/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,datasets,lhotse,ray,quantization,serve]'
	touch $@

# the whole method on the embedded model and bundled speech; look at demo-out/report.html
demo: venv
	$(BIN)/simulsa demo --out demo-out

# (one thread for each of the two processes: more would wait for each other)
test: venv extras lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
