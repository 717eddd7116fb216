# make demo and make test are all that a fresh machine needs: Python 3.11 to 3.13, make, and a
# package index. Both create .venv from constraints.txt first.

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
ENV := DO_NOT_TRACK=1 DVC_NO_ANALYTICS=1 PREFECT_SERVER_ANALYTICS_ENABLED=false
export UV_PYTHON_DOWNLOADS := never

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast test-e2e test-full lint format docs repro deploy up down purge backup restore lock clean

help: ## Say what there is to make
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(VENV)/installed ## Create .venv from the lock

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python 3.11 to 3.13 is needed, and $(PYTHON) is {v.major}.{v.minor}. Run: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv --constraint constraints.txt
	$(BIN)/uv pip install --python $(BIN)/python --constraint constraints.txt --editable '.[all]'
	@touch $@

demo: install ## The whole workflow on drawn faces, in a few minutes
	@$(ENV) PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m flows.demo

test: install lint ## Everything that CI runs, in two processes (WORKERS=0: in this one)
	@$(ENV) PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n $(WORKERS) --no-loadscope-reorder -m "not e2e"

test-fast: install ## Without the slow tests
	@$(ENV) PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -m "not slow and not e2e"

test-e2e: install ## Whole runs: the demo, DVC with kills, a Prefect server with a worker
	@$(ENV) PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -m e2e

test-full: install ## The registry under 16 processes, 100 kills and 50 cuts
	@$(ENV) PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest --full tests/registry/test_concurrency.py tests/registry/test_faults.py

lint: install ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: install ## Let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: install ## Write the generated parts of docs/
	@$(BIN)/python docs/generate.py

repro: install ## dvc repro; FER_DATA and FER_WEIGHTS name local copies
	@$(ENV) PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc repro

deploy: install ## Pools, limits and the deployments, on the server of PREFECT_API_URL
	@$(ENV) $(BIN)/python -m flows.deploy

up: install ## PostgreSQL, S3, a Prefect server and workers, as processes of this machine
	@$(ENV) PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m flows.local.up

down: install ## Stop what `make up` started; the data stay in build/up
	@$(BIN)/python -m flows.local.up --down

purge: install ## The same, and remove the data
	@$(BIN)/python -m flows.local.up --down --purge

backup: install ## What `make up` keeps, into the new folder TO=...
	@$(BIN)/python -m flows.local.up --backup "$(TO)"

restore: install ## make up with what the backup FROM=... holds, after make purge
	@$(ENV) PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m flows.local.up --restore "$(FROM)"

lock: install ## Resolve constraints.txt anew
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras pyproject.toml --output-file constraints.txt --no-header --no-annotate

clean: ## Remove what demo and tests made
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis
