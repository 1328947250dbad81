# `make help` lists what there is to do. Only Python 3.11 or newer and make have to be there.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Read .env as a shell does; a variable that is set outside wins.
LOAD_ENV = saved=$$(export -p); if [ -f .env ]; then set -a; . ./.env; set +a; fi; eval "$$saved";

.DEFAULT_GOAL := help
.PHONY: help dev test lint format bench migrate-schema migrate-schema-status migrate-schema-plan clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-21s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

dev: $(VENV)/.runtime ## Serve the API on http://127.0.0.1:8080, restarting on change
	@$(LOAD_ENV) \
	$(BIN)/python -c 'import main' || exit 1; \
	echo "Serving on http://127.0.0.1:$${PORT:-8080} (Ctrl-C ends it)"; \
	exec $(BIN)/watchmedo auto-restart --no-restart-on-command-exit --ignore-directories \
	  --patterns '**/*.py;**/*.sql' -d . -d functions -d shared -d shared/store -d migrations -- \
	  $(BIN)/functions-framework --target api --host 127.0.0.1 --port "$${PORT:-8080}"

test: $(VENV)/.dev ## Run all tests, on real PostgreSQL over TLS
	$(BIN)/python -m pytest

lint: $(VENV)/.dev ## Check style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev ## Format the code
	$(BIN)/ruff format .

bench: $(VENV)/.dev ## Measure against floors of the same run (some minutes)
	$(BIN)/python -m bench

migrate-schema: $(VENV)/.runtime ## Apply pending migrations to DATABASE_URL by hand
	@$(LOAD_ENV) $(BIN)/python -m shared.schema_command apply

migrate-schema-status: $(VENV)/.runtime ## Tell which migrations DATABASE_URL has
	@$(LOAD_ENV) $(BIN)/python -m shared.schema_command status

migrate-schema-plan: $(VENV)/.runtime ## Print the SQL that migrate-schema would run
	@$(LOAD_ENV) $(BIN)/python -m shared.schema_command plan

clean: ## Remove the environment and the caches, but not .data
	rm -rf $(VENV) .venv-bench .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/.runtime: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
