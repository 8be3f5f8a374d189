PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: demo test test-all lint format bench install clean

demo: install  ## train, convert, verify and time the networks on real images
	$(BIN)/python examples/demo.py

install: $(INSTALLED)

$(INSTALLED): setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --progress-bar on --disable-pip-version-check -e ".[dev]"
	touch $@

test: install
	$(BIN)/pytest -n 2 -m "not slow"

test-all: install
	$(BIN)/pytest -n 2

# mypy cannot follow setup.py's package_dir, so it sees the packages as they are installed.
lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/types && mkdir -p build/types
	cp -r larq_rep larq_rep_cli build/types && cp -r zoo converters build/types/larq_rep
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p larq_rep -p larq_rep_cli

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install
	$(BIN)/python benchmarks/bench.py

clean:
	rm -rf build dist $(VENV) *.egg-info
