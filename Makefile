# Every target makes what it needs: the environment is .venv, built from pyproject.toml and constraints.txt.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-hosts lint fuzz bench studies clean

demo: .venv/train.stamp ## train, export, verify, predict and show it: demo-output/
	$(BIN)/murho demo

test: lint .venv/js.stamp ## all tests
	$(BIN)/python -m pytest -n auto --dist worksteal

test-hosts: .venv/hosts.stamp ## Chromium and C++, which are installed where that is possible
	$(BIN)/python -m pytest -m hosts -n auto --dist loadfile

FUZZ_SECONDS ?= 3600
fuzz: .venv/dev.stamp ## docs/fuzzing.md: each door for FUZZ_SECONDS
	$(BIN)/python tests/fuzz/run.py --seconds $(FUZZ_SECONDS) --write docs/fuzzing.md

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .

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

studies: .venv/dev.stamp ## docs/parity.md and docs/studies.md: some hours
	$(BIN)/python benchmarks/parity.py --write docs/parity.md
	$(BIN)/python benchmarks/uci.py
	$(BIN)/python benchmarks/mnist.py
	$(BIN)/python benchmarks/random_parity.py
	$(BIN)/python benchmarks/coverage_table.py --write docs/coverage.md

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
