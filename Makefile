# `make help` lists what there is to do. Only Python 3.11 or newer and make have to be there.
#
# What a caller sets is read by the shell, as "$${PYTHON:-python3}", and not by make, as it would be in
# $(PYTHON): so that a quote in it is a quote, and no command.

VENV := .venv
BIN := $(VENV)/bin

# Read .env as a shell does; a variable that is set outside wins.
LOAD = saved=$$(export -p); if [ -f $(1) ]; then set -a; . ./$(1); set +a; fi; eval "$$saved";
LOAD_ENV = $(call LOAD,.env)

# What is deployed has a file of its own, so that no setting of development gets there.
DEPLOY = $(call LOAD,"$${PRODUCTION:-.env.production}") set -f; $(BIN)/python -m deploy

.DEFAULT_GOAL := help
.PHONY: help dev test test-quick test-long soak lint format bench clean export postgres-versions snapshot smoke deploy deploy-setup rollback \
  migrate migrate-backup migrate-dry-run migrate-reconcile migrate-rollback migrate-schema \
  migrate-schema-plan migrate-schema-status migrate-status migrate-verify

# Test files that run side by side; by themselves those with few tests, which are the longest, came last.
SIDE_BY_SIDE = -n "$${WORKERS:-3}" --dist loadfile --no-loadscope-reorder

# Rooms below the functions.
QUICK = tests/formats tests/model tests/credentials tests/observe tests/rules tests/database tests/test_settings.py

# Beside the wheel's 17 and Debian's 15; they have no TLS, without which only SQL can be tried.
POSTGRES_VERSIONS := 14.23.0-beta.17 15.18.0-beta.17 16.14.0-beta.17 18.4.0-beta.17

# The move, from USERS_FILE to DATABASE_URL; options go into ARGS: make migrate ARGS='--yes'
# They are split at spaces, and a shell does nothing else with them (`set -f`: no * either).
TRANSFER = $(LOAD_ENV) set -f; $(BIN)/python -m shared.transfer

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-21s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

dev: $(VENV)/.runtime ## Serve the API on http://127.0.0.1:8080, restarting on change
	@$(LOAD_ENV) \
	$(BIN)/python -c 'import main' || exit 1; \
	$(BIN)/python -m shared.transfer reconcile --offer || true; \
	echo "Serving on http://127.0.0.1:$${PORT:-8080} (Ctrl-C ends it)"; \
	exec $(BIN)/watchmedo auto-restart --no-restart-on-command-exit --ignore-directories \
	  --patterns '**/*.py;**/*.sql' -d . \
	  $$(find functions shared migrations -type d ! -name __pycache__ -exec printf -- '-d %s ' {} +) -- \
	  $(BIN)/functions-framework --target api --host 127.0.0.1 --port "$${PORT:-8080}"

test: $(VENV)/.dev ## Run all tests, on real PostgreSQL over TLS; some: make test ARGS='-m database'
	@echo 'All tests take about five minutes on two cores; make test-quick takes one.'
	set -f; $(BIN)/python -m pytest $(SIDE_BY_SIDE) --durations 10 --durations-min 1 $$ARGS

test-quick: $(VENV)/.dev ## Run in a minute the rooms below the functions, without a database
	set -f; $(BIN)/python -m pytest $(SIDE_BY_SIDE) -m 'not database' $(QUICK) $$ARGS

test-long: $(VENV)/.dev ## Run 2,000 random histories of outages, the longest imports, and what is marked long
	HISTORIES=$${HISTORIES:-2000} $(BIN)/python -m pytest -n 2 tests/store/test_histories.py \
	  tests/transfer/long_imports.py
	$(BIN)/python -m pytest -n 2 --dist loadfile -m long

postgres-versions: ## Fetch the versions of PostgreSQL on which only some tests run (needs npm)
	npm install --prefix .venv-postgres --no-save --no-audit --no-fund --silent \
	  $(foreach version,$(POSTGRES_VERSIONS),postgres-$(firstword $(subst ., ,$(version)))@npm:@embedded-postgres/linux-$(if $(filter aarch64,$(shell uname -m)),arm64,x64)@$(version))

soak: $(VENV)/.dev ## Serve under load with a fault every few seconds, for ten minutes
	@set -f; $(BIN)/python -m tests.soak $$ARGS

lint: $(VENV)/.dev ## Check style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev ## Format the code
	$(BIN)/ruff format .

bench: $(VENV)/.dev ## Measure against floors of the same run (some minutes)
	$(BIN)/python -m bench

migrate-dry-run: $(VENV)/.runtime ## Tell what migrate would do with each user, and write nothing
	@$(TRANSFER) plan $$ARGS

migrate-backup: $(VENV)/.runtime ## Copy USERS_FILE beside itself, byte for byte
	@$(TRANSFER) backup $$ARGS

migrate: $(VENV)/.runtime ## Bring the users of USERS_FILE to DATABASE_URL, proven before it counts
	@$(TRANSFER) apply $$ARGS

migrate-verify: $(VENV)/.runtime ## Compare every user of USERS_FILE with DATABASE_URL
	@$(TRANSFER) verify $$ARGS

migrate-status: $(VENV)/.runtime ## List what was imported and rolled back
	@$(TRANSFER) status $$ARGS

migrate-rollback: $(VENV)/.runtime ## Take an import back: make migrate-rollback BATCH=…
	@$(TRANSFER) rollback $$ARGS

migrate-reconcile: $(VENV)/.runtime ## Bring who signed up during an outage to DATABASE_URL
	@$(TRANSFER) reconcile $$ARGS

snapshot: $(VENV)/.runtime ## Copy what logins need beside USERS_FILE, for an outage
	@$(TRANSFER) snapshot $$ARGS

export: $(VENV)/.runtime ## Write all users to a new file in the old server's shape
	@$(TRANSFER) export $$ARGS

migrate-schema: $(VENV)/.runtime ## Apply pending migrations to DATABASE_URL by hand
	@$(TRANSFER) schema apply $$ARGS

migrate-schema-status: $(VENV)/.runtime ## Tell which migrations DATABASE_URL has
	@$(TRANSFER) schema status $$ARGS

migrate-schema-plan: $(VENV)/.runtime ## Print the SQL that migrate-schema would run
	@$(TRANSFER) schema plan $$ARGS

deploy-setup: $(VENV)/.runtime ## Make what a deployment needs in the project, once (DRY_RUN=1 shows)
	@$(DEPLOY) setup $$ARGS

deploy: $(VENV)/.runtime ## Check, deploy and try; FUNCTION=login alone; DRY_RUN=1 prints commands
	@$(DEPLOY) apply $$ARGS

rollback: $(VENV)/.runtime ## Serve the previous revision again (DRY_RUN=1 shows which)
	@$(DEPLOY) rollback $$ARGS

smoke: $(VENV)/.runtime ## Try a deployment as a user would, and leave nothing: make smoke URL=…
	@$(DEPLOY) smoke $$ARGS

clean: ## Remove the environment and the caches, but not .data
	rm -rf $(VENV) .venv-bench .venv-postgres .mypy_cache .ruff_cache .pytest_cache .hypothesis .schemathesis

$(VENV)/.runtime: requirements.txt
	@"$${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	"$${PYTHON:-python3}" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
