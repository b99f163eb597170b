# People and CI run the same targets. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
FRAUD_HOME ?= .fraud
JOBS ?= 2
ARGS ?=

# Compiled Python files are worth their disk here: without them every start parses a thousand modules again.
unexport PYTHONDONTWRITEBYTECODE
export DO_NOT_TRACK := true
export MLFLOW_DISABLE_TELEMETRY := true
export DAGSTER_DISABLE_TELEMETRY := yes

INSTALLED := $(VENV)/.installed
WARM := $(VENV)/.warm
KERNELS := $(wildcard fraud_pipeline/domain/feature_*.py fraud_pipeline/domain/*kernel*.py)

.PHONY: help install demo test dev serve fuzz lint format types bench bento stack-test docs requirements clean clean-home distclean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sort | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

install: $(WARM) ## make .venv, install everything, compile the kernels (done by the other targets when needed)

demo: $(WARM) ## simulate 120 days of payments, train, judge and promote a champion
	@$(BIN)/fraud run

test: $(WARM) ## all tests; ARGS="-k name" for some of them, JOBS=1 for one process
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

dev: $(WARM) ## the Dagster UI with its daemon, on the embedded home
	@$(BIN)/fraud dev

serve: $(WARM) ## the scoring service, on the embedded home (needs a champion: make demo)
	@$(BIN)/fraud serve

fuzz: $(WARM) ## 100,000 odd bodies through a running service; ARGS="--bodies N"
	@$(BIN)/python -m fraud_pipeline_tests.serving.fuzz $(ARGS)

lint: $(INSTALLED) ## ruff: rules and format
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

format: $(INSTALLED) ## let ruff mend what it can
	@$(BIN)/ruff check --fix --exit-zero
	@$(BIN)/ruff format

types: $(INSTALLED) ## mypy, strict on our own code
	@$(BIN)/mypy

bench: $(WARM) ## the benchmarks that need no data but their own; numbers to compare are in docs/benchmarks.md
	@for name in features decision pipeline rest swap; do \
	  [ -f benchmarks/$$name.py ] || continue; echo "== benchmarks.$$name"; $(BIN)/python -m benchmarks.$$name $(ARGS); \
	done

bento: $(INSTALLED) ## pack the scoring service with its pins (bentoml build); ARGS="--version 1.2" names it
	@$(BIN)/bentoml build $(ARGS)

stack-test: $(INSTALLED) ## docker-compose.yml on a real Docker engine, which it installs and starts where there is none (as root); ARGS="--keep"
	@$(BIN)/python -m fraud_pipeline_tests.stack_test $(ARGS)

docs: $(INSTALLED) ## write the generated pages and .env.example again
	@$(BIN)/python -m fraud_pipeline.settings_reference
	@$(BIN)/python -m fraud_pipeline.feature_docs

# The locks name versions only: no addresses, so every registry or mirror can serve them. base.txt is what scoring needs; pipeline, serving,
# stream and mlflow are the images' (serving is the bento's too). Kafka's and Redis' clients are in all that know the log or the state view.
COMPILE = $(BIN)/uv pip compile --system-certs --quiet --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links --no-header --no-annotate
requirements: $(INSTALLED) ## resolve the pins anew where pyproject.toml changed (ARGS=--upgrade: all of them)
	@$(COMPILE) $(ARGS) --all-extras pyproject.toml -o requirements/dev.txt
	@$(COMPILE) $(ARGS) -c requirements/dev.txt --extra pipeline --extra streaming --extra postgres pyproject.toml -o requirements/pipeline.txt
	@$(COMPILE) $(ARGS) -c requirements/dev.txt --extra serving --extra streaming --extra postgres pyproject.toml -o requirements/serving.txt
	@$(COMPILE) $(ARGS) -c requirements/dev.txt --extra streaming --extra postgres pyproject.toml -o requirements/stream.txt
	@$(COMPILE) $(ARGS) -c requirements/dev.txt requirements/mlflow.in -o requirements/mlflow.txt
	@$(COMPILE) $(ARGS) -c requirements/dev.txt pyproject.toml -o requirements/base.txt
	@wc -l requirements/*.txt

clean: ## remove caches and build output
	@rm -rf $(WARM) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	@find fraud_pipeline serving fraud_pipeline_tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

clean-home: ## remove the embedded home: data, models, ledger, Dagster's history
	@rm -rf $(FRAUD_HOME)

distclean: clean clean-home ## everything that make ever made, .venv too
	@rm -rf $(VENV)

# Each candidate is run, not only looked up: version managers leave shims on the PATH that name versions which are not there.
$(BIN)/python:
	@for candidate in $(PYTHON) python3.11 python3.12 python3.13 python3 python; do \
	  if "$$candidate" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then found="$$candidate"; break; fi; \
	done; \
	if [ -z "$${found:-}" ]; then \
	  echo "make: no Python 3.11, 3.12 or 3.13 with venv found. Install one (on Debian and Ubuntu: python3 and python3-venv)," >&2; \
	  echo "      or name it: make PYTHON=/path/to/python3.11" >&2; exit 2; \
	fi; \
	echo "Making $(VENV) with $$("$$found" --version)"; \
	"$$found" -m venv $(VENV)

# The lock is complete, so nothing is resolved. Certificates are the system's, as pip takes them: uv's own fail behind a proxy.
# uv shows progress to a person; to a log it would list every package.
INSTALL = $(BIN)/uv pip install $$([ -t 2 ] || echo --quiet) --system-certs --python $(BIN)/python --no-deps
$(INSTALLED): requirements/dev.txt pyproject.toml | $(BIN)/python
	@echo "Installing $$(wc -l < requirements/dev.txt) pinned packages (the first time takes a few minutes, later ones seconds)"
	@[ -x $(BIN)/uv ] || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(INSTALL) -r requirements/dev.txt || { \
	  echo "uv could not; trying pip, which has its own certificates and index settings"; \
	  $(BIN)/python -m pip install --disable-pip-version-check --no-deps -r requirements/dev.txt; }
	@$(INSTALL) -q -e . || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

$(WARM): $(INSTALLED) $(KERNELS)
	@$(BIN)/fraud --help >/dev/null
	@$(BIN)/fraud warm
	@touch $@
