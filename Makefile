# Every target makes what it needs: the environment is .venv, built from pyproject.toml and constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
TESTS ?= # files of tests/; all where it is empty
PYTEST := -m pytest -n auto --dist worksteal
UV := $(BIN)/python -m uv

.PHONY: demo test test-hosts test-versions lint wheel constraints fuzz bench studies clean

demo: .venv/train.stamp ## train, export, verify, predict and show it: demo-output/
	$(BIN)/python -m murho demo

test: lint .venv/js.stamp ## all tests
	$(BIN)/python $(PYTEST) $(TESTS)

test-hosts: .venv/hosts.stamp ## Chromium and C++, which are installed where that is possible
	$(BIN)/python -m pytest -m hosts -n auto --dist loadfile

FUZZ_SECONDS ?= 3600
fuzz: .venv/dev.stamp ## docs/fuzzing.md: each door for FUZZ_SECONDS
	$(BIN)/python tests/fuzz/run.py --seconds $(FUZZ_SECONDS) --write docs/fuzzing.md

VERSIONS := 3.11 3.12 3.13
test-versions: $(VERSIONS:%=test-base-%) $(VERSIONS:%=test-newest-%) test-oldest-3.11 ## one wheel with all that it may meet

test-base-%: wheel ## the wheel alone, and what a machine without a compiler makes, from an empty folder
	$(call fresh,base-$*,$*)
	$(UV) pip install --quiet --python .venv/base-$* dist/*.whl
	$(call answers_as,base-$*,onnxruntime + compiled)
	CC=false $(UV) pip install --quiet --no-cache --python .venv/base-$* --no-deps --reinstall-package murho dist/*.tar.gz
	$(call answers_as,base-$*,onnxruntime)

test-newest-%: wheel ## all tests, with the newest of everything that pyproject.toml allows
	$(call fresh,newest-$*,$*)
	$(call test_wheel,newest-$*,--upgrade)

test-oldest-%: wheel ## and with the oldest
	$(call fresh,oldest-$*,$*)
	$(call test_wheel,oldest-$*,--resolution lowest-direct)

# Environment NAME of a Python VERSION; PYTHON_3.12=… and the like say where it is, if uv does not find it.
fresh = $(UV) venv --quiet --clear --python $(or $(PYTHON_$(2)),$(2)) .venv/$(1)

answers_as = mkdir -p .venv/empty && cd .venv/empty && export PYTHONWARNINGS=error && \
	../$(1)/bin/python ../../benchmarks/murho_host.py ../../tests/conformance > ../$(1).json && \
	../$(1)/bin/python -c "import murho; e = murho.load('../../tests/conformance/lstm.onnx').engine; assert e == '$(2)', e" && \
	../$(1)/bin/python -m murho --version

define test_wheel
	$(UV) pip install --quiet --python .venv/$(1) $(2) -r pyproject.toml --extra dev
	$(UV) pip install --quiet --python .venv/$(1) --no-deps dist/*.whl
	.venv/$(1)/bin/python $(PYTEST) $(TESTS)
endef

wheel: .venv/dev.stamp ## dist/; with URL=, the address of the repository, its metadata names that
	$(BIN)/python .ci/package.py $(URL)

constraints: .venv/dev.stamp ## constraints.txt: all packages of .venv
	{ sed -n '/^#/p' constraints.txt; \
	  $(BIN)/python -m pip freeze --all --exclude pip --exclude-editable | sed 's/+[a-z0-9]*$$//' | sort -f; } > .venv/constraints.txt
	mv .venv/constraints.txt constraints.txt

lint: .venv/dev.stamp
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	mkdir -p .venv/src && ln -sfn ../.. .venv/src/murho # mypy names a package by its folder, which may be called as it likes
	cd .venv/src && ../bin/python -m mypy --config-file ../../pyproject.toml -p murho

bench: .venv/dev.stamp ## docs/benchmark.md, with the README's figures of speed, cold start and memory: an hour
	$(BIN)/python benchmarks/latency.py --write docs/benchmark.md --png docs/benchmark.png
	$(BIN)/python benchmarks/cold_start.py --write docs/benchmark.md
	$(BIN)/python benchmarks/memory.py --write docs/benchmark.md
	$(BIN)/python benchmarks/instructions.py --write docs/benchmark.md
	$(BIN)/python benchmarks/stream.py --write docs/benchmark.md
	$(BIN)/python benchmarks/session_options.py --write docs/benchmark.md
	$(BIN)/python benchmarks/service_load.py --write docs/benchmark.md
	$(BIN)/python benchmarks/hosts.py --latency --all --write docs/embedding.md
	$(BIN)/python benchmarks/convolution.py
	$(BIN)/python benchmarks/honest_cost.py

studies: .venv/dev.stamp ## docs/parity.md, docs/studies.md, docs/will-my-network-work.md and the study in docs/generator.md: some hours
	$(BIN)/python benchmarks/parity.py --write docs/parity.md
	$(BIN)/python benchmarks/zoo_page.py --write docs/will-my-network-work.md
	$(BIN)/python benchmarks/uci.py
	$(BIN)/python benchmarks/mnist.py
	$(BIN)/python benchmarks/random_parity.py
	$(BIN)/python benchmarks/coverage_table.py --write docs/coverage.md
	$(BIN)/python benchmarks/generator_study.py --write docs/generator.md

clean:
	rm -rf .venv build dist *.egg-info runtime/js/node_modules

.venv/js.stamp: runtime/js/package.json | .venv/dev.stamp
	command -v npm >/dev/null || { echo "npm is missing: the tests of JavaScript will be skipped"; exit 0; }; \
	npm install --prefix runtime/js --ignore-scripts --loglevel=error && touch $@

.venv/hosts.stamp: .venv/js.stamp
	test -x "$${CHROMIUM:-/usr/bin/chromium}" -a -e /usr/include/nlohmann/json.hpp || \
	{ apt-get update -qq && apt-get install -y -qq chromium cmake g++ nlohmann-json3-dev; }
	touch $@

.venv/%.stamp: pyproject.toml constraints.txt $(wildcard runtime/compiled/*)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$*]"
	touch $@
