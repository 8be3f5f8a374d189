PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
C_SOURCES := $(wildcard $(foreach folder,src tests fuzz bench examples,runtime/$(folder)/*.[ch]) \
  $(foreach folder,runtime/src/main/cpp native/include host,android_demo/$(folder)/*.[ch]))

# larq_zoo limits TensorFlow's version, so it has its own environment.
ZOO_VENV := .venv-zoo
ZOO_INSTALLED := $(ZOO_VENV)/installed

# Beside TensorFlow for the benchmarks only: where LiteRT is installed, it is the interpreter of the delegate.
LITERT := build/litert

.PHONY: demo test test-all test-arm test-android lint format bench ablation docs install clean

demo: install  ## train, convert, verify and time the networks on real images
	$(BIN)/python examples/demo.py

# Without a compiler, everything but the delegate works.
install: $(INSTALLED)
	-$(MAKE) -s -C runtime

$(INSTALLED): setup.py runtime/setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --progress-bar on --disable-pip-version-check -e runtime -e ".[dev]"
	touch $@

test: install
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow"
	@echo "Left out: full-size networks (make test-all, which also installs the LiteRT of the tests of CompiledModel)," \
	  "64-bit ARM (make test-arm), and the Android app's build, screens and runs (make test-android)."

test-all: install $(ZOO_INSTALLED)
	$(BIN)/pytest -n 2 --dist loadfile
	$(ZOO_VENV)/bin/pytest -n 2 tests/zoo/test_larq_zoo.py runtime/tests/test_larq_zoo.py

$(ZOO_INSTALLED): setup.py runtime/setup.py
	test -x $(ZOO_VENV)/bin/python || $(PYTHON) -m venv $(ZOO_VENV)
	$(ZOO_VENV)/bin/pip install --progress-bar on --disable-pip-version-check -e runtime -e ".[dev,zoo]"
	touch $@

test-arm: install  ## the delegate on emulated 64-bit ARM; installs Debian's compiler and emulator if they are missing
	command -v aarch64-linux-gnu-gcc && command -v qemu-aarch64-static || \
	  apt-get install -y gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static
	$(BIN)/pytest -n 0 runtime/tests/test_arm.py

# Two calls: the second one's Makefile looks for what the first installs.
test-android: install  ## builds the Android app and tests it; installs the Debian packages that are missing
	$(MAKE) -C android_demo packages
	$(MAKE) -C android_demo test

docs: $(ZOO_INSTALLED)  ## count all networks again, and write zoo/forms.json, zoo/layers.json and docs/zoo.md
	$(ZOO_VENV)/bin/python -m larq_rep.zoo.catalog

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(C_SOURCES)
	$(MAKE) -s -C runtime BUILD=build/strict WERROR=-Werror build/strict/liblarq_rep_delegate.so
	MYPYPATH=runtime $(BIN)/mypy -p larq_rep -p larq_rep_cli -p larq_rep_runtime

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(C_SOURCES)

$(LITERT)/installed:
	$(BIN)/pip install -q --no-deps --target $(LITERT) "ai-edge-litert>=2.2" backports.strenum
	touch $@

bench: install $(ZOO_INSTALLED) $(LITERT)/installed
	$(BIN)/python benchmarks/bench.py
	$(ZOO_VENV)/bin/python benchmarks/sizes.py
	PYTHONPATH=$(LITERT) $(BIN)/python benchmarks/runtime.py
	$(BIN)/python benchmarks/int8.py
	$(ZOO_VENV)/bin/python benchmarks/runtime.py QuickNet
	$(BIN)/python benchmarks/floor.py
	$(BIN)/python benchmarks/training.py
	$(MAKE) -C runtime bench

ablation: install  ## the papers' comparisons in miniature; continues where it was stopped
	$(BIN)/lqr ablate --out build/ablation --write docs/ablation.md

clean:
	$(MAKE) -C runtime clean
	test ! -d android_demo/build || $(MAKE) -C android_demo clean
	rm -rf build dist $(VENV) $(ZOO_VENV) *.egg-info runtime/*.egg-info
