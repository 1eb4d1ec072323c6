# Everything a person types here. `make` alone lists it.
#
# All that is installed goes into .venv, all that runs keeps its data in .mintmark; delete either to start afresh.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Nothing here depends on the user's own Python settings. Without bytecode beside them the libraries alone take 5 s of a
# core to import instead of 2, in each of four processes.
unexport PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE VIRTUAL_ENV

.DEFAULT_GOAL := help
.PHONY: help install demo test test-schemas lint up down schemas bench-events bench-registrations bench-road bench-comparison bench-rows bench-gateway bench-importing bench-ingest bench-prompts bench-streams bench-lineage bench-registry bench-starting \
	test-kubernetes clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/.stamp-run ## Install what running needs into .venv (PYTHON=python3.11 chooses the interpreter)

demo: $(VENV)/.stamp-run ## Start everything and walk two real models down the whole road
	$(BIN)/mintmark up
	@eval "$$($(BIN)/mintmark env)" && $(BIN)/python examples/census/demo.py

test: $(VENV)/.stamp-dev ## Run every test that needs no cluster
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not kubernetes and not containers" tests

test-schemas: $(VENV)/.stamp-dev ## Send 1,000 requests to every operation of registry and prompts (half an hour)
	MINTMARK_TEST_CASES=1000 $(BIN)/python -m pytest -p no:cacheprovider -n 2 -q tests/schemas

lint: $(VENV)/.stamp-dev ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/mypy

up: $(VENV)/.stamp-run ## Start everything on this machine
	$(BIN)/mintmark up

down: $(VENV)/.stamp-run ## Stop it; the data stay
	$(BIN)/mintmark down

schemas: $(VENV)/.stamp-dev ## Write the JSON Schemas and examples of all events
	$(BIN)/python -m shared.events.documents

bench-events: $(VENV)/.stamp-dev ## Measure event hop, throughput and a deep outbox
	$(BIN)/python -m bench.events

bench-road: $(VENV)/.stamp-dev ## Measure 1,000 assets through the whole chain
	$(BIN)/python -m bench.road

bench-registrations: $(VENV)/.stamp-dev ## Measure registering versions by MLflow's route beside MLflow's server
	$(BIN)/python -m bench.registrations

bench-comparison: $(VENV)/.stamp-dev ## Measure the comparative view over 10 million rows
	$(BIN)/python -m bench.comparison

bench-rows: $(VENV)/.stamp-dev ## Measure browsing and searching 10 million rows
	$(BIN)/python -m bench.rows

bench-starting: $(VENV)/.stamp-dev ## Measure what each process takes until it can begin
	$(BIN)/python -m bench.starting

bench-gateway: $(VENV)/.stamp-dev ## Measure the gateway beside HAProxy, Envoy, TensorZero and LiteLLM
	$(BIN)/python -m bench.gateway

bench-lineage: $(VENV)/.stamp-dev ## Measure walks through a lineage of 100,000 nodes
	$(BIN)/python -m bench.lineage

bench-registry: $(VENV)/.stamp-dev ## Measure searching 1,000,000 versions beside MLflow's server
	$(BIN)/python -m bench.registry

bench-streams: $(VENV)/.stamp-dev ## Measure the gateway with 2,000 streams open at once
	$(BIN)/python -m bench.streams

bench-prompts: $(VENV)/.stamp-dev ## Measure fetching prompts at a steady rate
	$(BIN)/python -m bench.prompts

bench-importing: $(VENV)/.stamp-dev ## Measure importing an MLflow server with 200 models, twice
	$(BIN)/python -m bench.importing

bench-ingest: $(VENV)/.stamp-dev ## Measure the shipper beside a bare COPY loop
	$(BIN)/python -m bench.ingest

test-kubernetes: $(VENV)/.stamp-dev ## Install the chart on the cluster of KUBECONFIG and use it
	$(BIN)/python -m pytest -m kubernetes -v tests/kubernetes

clean: ## Remove .venv and caches (not .mintmark, where the data are)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

# A stamp says which lock is installed; it is newer than that lock or made again. The development lock contains the
# other one, so a checkout that has it is not installed a second time for `make demo`.
$(VENV)/.stamp-venv: requirements-bootstrap.lock
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
	  echo "make: $(PYTHON) is not there: install Python 3.11 or newer, or name it with PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: $$($(PYTHON) -V 2>&1) is too old: name Python 3.11 or newer with PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "make: $(PYTHON) cannot make virtual environments: install its venv package (Debian: apt install python3-venv)" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bootstrap.lock
	@touch $@

$(VENV)/.stamp-run: $(VENV)/.stamp-venv requirements.lock pyproject.toml sdk/pyproject.toml
	@if [ -e $(VENV)/.stamp-dev ] && [ $(VENV)/.stamp-dev -nt requirements-dev.lock ]; then :; else \
	  echo "Installing what running needs into $(VENV) …"; \
	  VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements.lock; fi
	@$(MAKE) --no-print-directory $(VENV)/.stamp-own
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-venv requirements-dev.lock pyproject.toml sdk/pyproject.toml
	@echo "Installing what running and testing needs into $(VENV) …"
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements-dev.lock
	@$(MAKE) --no-print-directory $(VENV)/.stamp-own
	@touch $@

$(VENV)/.stamp-own: $(VENV)/.stamp-venv pyproject.toml sdk/pyproject.toml
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e . -e sdk
	@touch $@
