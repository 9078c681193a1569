# make test    the whole gate: what is needed to run it, the checks, the tests (JOBS=2 at a time)
# make demo    index and backfill the sample in examples/, and show candles
# make cluster-demo   the same on a real standalone Flink cluster, started here; needs Java and Maven
# make check   ruff and mypy alone
# make bench   build the benchmark's data once, then time candlebeam beside its peers
# make bench-cluster   time it on Flink clusters of this machine, and what a large run is made of
# make bench-stream   stream at a rate: whether it keeps up, how soon candles are there
# make lock    resolve requirements/*.lock anew (LOCK_ARGS= keeps the pins that still fit)
# make dist    build the sdist and the wheel into dist/
# make clean   remove what make made, except the benchmark's data

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
PYTEST_ARGS ?=
BENCH_ARGS ?=
LOCK_ARGS ?= --upgrade

BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH_VENV := build/bench-venv
BENCH_READY := $(BENCH_VENV)/.ready
DEMO := build/demo
UV_VENV := build/uv
UV_VERSION := 0.13.9
INSTALL := -m pip --disable-pip-version-check install --quiet --no-deps
FROM_LOCK := $(INSTALL) --only-binary :all: --require-hashes
COMPILE = $(UV_VENV)/bin/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes \
	--only-binary :all: --no-header --no-emit-index-url --no-emit-find-links $(LOCK_ARGS) pyproject.toml

.PHONY: test check demo cluster-demo bench bench-cluster bench-stream dist lock clean

# A module's tests stay together: what starts a cluster starts it once.
test: check
	$(BIN)/python -m tests.compiled
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

demo: $(READY)
	@rm -rf $(DEMO)
	mkdir -p $(DEMO)
	run() { echo; echo "\$$ $$*"; PATH="$(BIN):$$PATH" "$$@"; }
	run candlebeam index examples/archive --db $(DEMO)/index.sqlite
	run candlebeam backfill --db $(DEMO)/index.sqlite --out $(DEMO)/candles
	run candlebeam show $(DEMO)/candles/RAM/BINANCE/btcusdt.bin --head 10
	run candlebeam show $(DEMO)/candles/PI/KRAKEN/XBT-USDT.bin --head 10

cluster-demo: $(READY)
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m clusters.demo

# The list of sources that setuptools keeps would bring back what has been removed since.
dist: $(READY)
	@rm -rf dist build/lib build/bdist.* candlebeam.egg-info
	$(BIN)/python -m build --no-isolation --outdir dist .
	ls -l dist

bench: $(BENCH_READY)
	$(BENCH_VENV)/bin/python -m benchmarks.run $(BENCH_ARGS)

# In the environment of the gate, which has an object store to count requests to.
bench-cluster: $(READY)
	$(BIN)/python -m benchmarks.cluster $(BENCH_ARGS)

bench-stream: $(READY)
	$(BIN)/python -m benchmarks.stream $(BENCH_ARGS)

$(READY): pyproject.toml requirements/dev.lock
	@command -v "$(PYTHON)" >/dev/null || { echo "make: no $(PYTHON) here; say which Python: make PYTHON=python3.12" >&2; exit 1; }
	"$(PYTHON)" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "make: $(PYTHON) is $$("$(PYTHON)" -V 2>&1); Candlebeam needs Python 3.10 to 3.13: make PYTHON=python3.12" >&2; exit 1; }
	"$(PYTHON)" -c 'import ensurepip, venv' || { \
	  echo "make: $(PYTHON) has no venv; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	echo "Setting up $(VENV) with $$("$(PYTHON)" -V): this takes a minute or two"
	"$(PYTHON)" -m venv --clear $(VENV)
	$(BIN)/python $(FROM_LOCK) -r requirements/dev.lock
	$(BIN)/python $(INSTALL) --no-build-isolation --editable .
	touch $@

# An environment of its own: what is timed is what a user has, without the tools of the gate.
$(BENCH_READY): $(READY) requirements/bench.lock
	@echo "Setting up $(BENCH_VENV)"
	"$(PYTHON)" -m venv --clear $(BENCH_VENV)
	$(BENCH_VENV)/bin/python $(FROM_LOCK) -r requirements/bench.lock
	$(BENCH_VENV)/bin/python $(INSTALL) --no-build-isolation --editable .
	touch $@

lock: $(UV_VENV)/bin/uv
	$(COMPILE) --extra pandas --extra databento --extra s3 --group dev --output-file requirements/dev.lock
	$(COMPILE) --constraints requirements/dev.lock --extra s3 --output-file requirements/runtime.lock
	$(COMPILE) --extra bench --group build --constraints requirements/dev.lock --output-file requirements/bench.lock

$(UV_VENV)/bin/uv:
	@"$(PYTHON)" -m venv --clear $(UV_VENV)
	$(UV_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --only-binary :all: uv==$(UV_VERSION)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find candlebeam tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
