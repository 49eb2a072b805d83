# The two commands of the README are `make run` and `make test`; both set up .venv by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=
.DEFAULT_GOAL := help

.PHONY: help run test lint unit test-interop test-browser test-openapi test-crash bench bench-quick bench-ledger bench-rest bench-needs clean

help:
	@echo "make run           hub, producer and consumer on real candles (ARGS=\"--seconds 30 --speed 150\")"
	@echo "make test          every check that needs no other program: ruff, mypy, import-linter, pytest"
	@echo "make test-interop  real freqtrade bots at both ends (builds .venv-interop, minutes)"
	@echo "make test-browser  the REST of FreqUI from headless Chromium, and FreqUI itself (TRADEWIRE_FREQUI_DIR=its build)"
	@echo "make test-openapi  requests made from the OpenAPI document, valid and broken (installs schemathesis, minutes)"
	@echo "make test-crash    hub, publisher and consumer killed, cut off and damaged under load (minutes)"
	@echo "make bench         fan-out against C, nats-server, uWebSockets, Starlette and freqtrade; writes benchmarks/RESULTS.md (25 minutes)"
	@echo "make bench-quick   has the fan-out become worse? loose bounds against C and Starlette (2 minutes)"
	@echo "make bench-ledger  the ledger against JetStream; make bench-rest: REST against freqtrade's own server (minutes each)"

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "tradewire needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "setting up $(VENV) (once; again when pyproject.toml changes)" >&2
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[demo]" --group dev >&2
	@touch $(STAMP)

run: $(STAMP)
	@$(BIN)/python -m examples.run $(ARGS)

test: lint unit

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(STAMP)
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal $(ARGS)

test-interop: $(STAMP)
	./tests/interop/run.sh $(ARGS)

test-browser: $(STAMP)
	./tests/browser/run.sh $(ARGS)

test-openapi: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group openapi >&2
	$(BIN)/python -m pytest tests/openapi -o addopts= -ra --strict-markers -p no:randomly --timeout=600 $(ARGS)

test-crash: $(STAMP)
	$(BIN)/python -m pytest tests/crash -o addopts= -ra -s --strict-markers -p no:randomly --timeout=600 $(ARGS)

bench: bench-needs
	$(BIN)/python -m benchmarks.fanout $(ARGS)

bench-quick: bench-needs
	$(BIN)/python -m benchmarks.fanout --quick $(ARGS)

bench-ledger: bench-needs
	$(BIN)/python -m benchmarks.ledger $(ARGS)

bench-rest: bench-needs
	$(BIN)/python -m benchmarks.rest $(ARGS)

# A server that is not there is left out, with a word in the results.
bench-needs: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench >&2 || echo "not everything of the group bench could be installed" >&2

clean:
	rm -rf $(VENV) .venv-interop tests/browser/node_modules benchmarks/build
