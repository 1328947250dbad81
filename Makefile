# `make help` lists the targets. Requires only Python 3.11 or newer and make.
#
# The shell expands variables of the caller ("$${PYTHON:-python3}"), not make ($(PYTHON)), so that a quote in
# a value stays a quote and never becomes a command.

VENV := .venv
BIN := $(VENV)/bin

# Read a file of settings (and run nothing of it); variables of the environment take precedence.
LOAD = settings=$$($(BIN)/python -m shared.env_file $(1)) || exit; eval "$$settings";
LOAD_ENV = $(call LOAD,.env)

# Deployments read a file of their own, so that no development setting is deployed.
DEPLOY = $(call LOAD,$${PRODUCTION:+--required} -- "$${PRODUCTION:-.env.production}") set -f; UNDER_MAKE=1 $(BIN)/python -m deploy

.DEFAULT_GOAL := help
.PHONY: help doctor dev test test-quick test-long soak lint format bench clean export neon-driver newer-pgbouncer postgres-versions snapshot smoke deploy deploy-setup rollback \
  mail-deliver migrate migrate-backup migrate-dry-run migrate-invite migrate-reconcile migrate-rollback migrate-schema \
  migrate-schema-plan migrate-schema-status migrate-status migrate-verify

# Test files that run side by side; by themselves those with few tests, which are the longest, came last.
SIDE_BY_SIDE = -n "$${WORKERS:-4}" --dist loadfile --no-loadscope-reorder

# Asserts are rewritten once, and not by each worker in each run, also where Python is to cache nothing.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest

# Without the rooms whose tests need a database or a server.
QUICK = tests/formats tests/model tests/credentials tests/observe tests/rules tests/database tests/test_settings.py

# Beside the wheel's 17 and Debian's 15; they have no TLS, without which only SQL can be tried.
POSTGRES_VERSIONS := 14.23.0-beta.17 15.18.0-beta.17 16.14.0-beta.17 18.4.0-beta.17

# The migration from USERS_FILE to DATABASE_URL takes options in ARGS: make migrate ARGS='--yes'
# ARGS is split at spaces and not expanded otherwise (`set -f`: no * either).
TRANSFER = $(LOAD_ENV) set -f; UNDER_MAKE=1 $(BIN)/python -m shared.transfer

# Before what writes, or shows what would be written: tell what that would not tell itself, and go on.
LOOK = UNDER_MAKE=1 $(BIN)/python -m shared.doctor --brief || true;
CAREFUL_TRANSFER = $(LOAD_ENV) $(LOOK) set -f; UNDER_MAKE=1 $(BIN)/python -m shared.transfer

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-21s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

doctor: $(VENV)/.runtime ## Look at settings, .env, database, files and port; say what is wrong and what to do
	@set -f; UNDER_MAKE=1 $(BIN)/python -m shared.doctor $$ARGS

dev: $(VENV)/.runtime ## Serve the API on http://localhost:8080, restarting on change
	@$(LOAD_ENV) \
	$(BIN)/python -c 'import main; from shared.web import listening; \
	  listening.addresses("localhost", main.applications.own.settings.web.port)' || exit 1; \
	$(LOOK) \
	[ -n "$${APPLICATIONS:-}" ] || $(BIN)/python -m shared.transfer reconcile --offer || true; \
	exec $(BIN)/watchmedo auto-restart --no-restart-on-command-exit --ignore-directories \
	  --patterns '**/*.py;**/*.sql' -d . \
	  $$(find functions shared migrations -type d ! -name __pycache__ -exec printf -- '-d %s ' {} +) -- \
	  $(BIN)/functions-framework --target api --host localhost

test: $(VENV)/.dev ## Run all tests, on real PostgreSQL over TLS; some: make test ARGS='-m database'
	@echo 'All tests take six to eight minutes on two cores; make test-quick takes one.'
	set -f; $(PYTEST) $(SIDE_BY_SIDE) --durations 10 --durations-min 1 $$ARGS

test-quick: $(VENV)/.dev ## Run in a minute what needs neither a database nor a server
	set -f; $(PYTEST) $(SIDE_BY_SIDE) -m 'not database' $(QUICK) $$ARGS

test-long: $(VENV)/.dev ## Run 2,000 random histories of outages, the longest imports, and what is marked long
	TMPDIR=$${TMPDIR:-/tmp} HISTORIES=$${HISTORIES:-2000} $(PYTEST) -n 2 tests/store/test_histories.py \
	  tests/transfer/long_imports.py
	$(PYTEST) -n 2 --dist loadfile -m long

postgres-versions: ## Fetch the PostgreSQL versions that only some tests use (needs npm)
	npm install --prefix .venv-postgres --no-save --no-audit --no-fund --silent \
	  $(foreach version,$(POSTGRES_VERSIONS),postgres-$(firstword $(subst ., ,$(version)))@npm:@embedded-postgres/linux-$(if $(filter aarch64,$(shell uname -m)),arm64,x64)@$(version))

newer-pgbouncer: ## Fetch the PgBouncer that only some tests use (needs Debian's apt)
	tests/support/fetch_pgbouncer.sh .venv-pgbouncer

neon-driver: ## Fetch Neon's own driver, which only some tests use (needs npm)
	npm install --prefix .venv-neon --no-save --no-audit --no-fund --silent @neondatabase/serverless@1.2.0

soak: $(VENV)/.dev ## Run under load for ten minutes, with a fault every few seconds
	@set -f; $(BIN)/python -m tests.soak $$ARGS

lint: $(VENV)/.dev ## Check style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev ## Format the code
	$(BIN)/ruff format .

bench: $(VENV)/.dev ## Measure performance against baselines of the same run (takes long, and 10 GB)
	$(BIN)/python -m bench

migrate-dry-run: $(VENV)/.runtime ## Show what migrate would do with each user; write nothing
	@$(CAREFUL_TRANSFER) plan $$ARGS

migrate-backup: $(VENV)/.runtime ## Copy USERS_FILE beside itself, byte for byte
	@$(TRANSFER) backup $$ARGS

migrate: $(VENV)/.runtime ## Import the users of USERS_FILE into DATABASE_URL, verified before the commit
	@$(CAREFUL_TRANSFER) apply $$ARGS

migrate-verify: $(VENV)/.runtime ## Compare every user of USERS_FILE with DATABASE_URL
	@$(TRANSFER) verify $$ARGS

migrate-status: $(VENV)/.runtime ## List imports and rollbacks
	@$(TRANSFER) status $$ARGS

migrate-rollback: $(VENV)/.runtime ## Undo an import: make migrate-rollback BATCH=… (ARGS=--dry-run shows what would happen)
	@$(CAREFUL_TRANSFER) rollback $$ARGS

migrate-reconcile: $(VENV)/.runtime ## Write the sign-ups of an outage to DATABASE_URL
	@$(CAREFUL_TRANSFER) reconcile $$ARGS

migrate-invite: $(VENV)/.runtime ## Invite by mail who has come along without a password (ARGS=--dry-run shows one)
	@$(CAREFUL_TRANSFER) invite $$ARGS

snapshot: $(VENV)/.runtime ## Take a snapshot for logins during an outage, beside USERS_FILE
	@$(TRANSFER) snapshot $$ARGS

export: $(VENV)/.runtime ## Write all users to a new file in the old server's format
	@$(TRANSFER) export $$ARGS

migrate-schema: $(VENV)/.runtime ## Apply pending migrations to DATABASE_URL
	@$(CAREFUL_TRANSFER) schema apply $$ARGS

migrate-schema-status: $(VENV)/.runtime ## List the migrations of DATABASE_URL
	@$(TRANSFER) schema status $$ARGS

migrate-schema-plan: $(VENV)/.runtime ## Print the SQL that migrate-schema would run
	@$(TRANSFER) schema plan $$ARGS

mail-deliver: $(VENV)/.runtime ## Deliver the mails that are due
	@$(LOAD_ENV) $(BIN)/python -m shared.mail.command

deploy-setup: $(VENV)/.runtime ## Create what a deployment needs, once (DRY_RUN=1 prints the commands)
	@$(DEPLOY) setup $$ARGS

deploy: $(VENV)/.runtime ## Check, deploy, smoke-test; FUNCTION=login: only that; DRY_RUN=1 prints the commands
	@$(DEPLOY) apply $$ARGS

rollback: $(VENV)/.runtime ## Return to the previous revision (DRY_RUN=1 prints which)
	@$(DEPLOY) rollback $$ARGS

smoke: $(VENV)/.runtime ## Test a deployment with a temporary user: make smoke URL=…
	@$(DEPLOY) smoke $$ARGS

clean: ## Remove the environment and the caches; keep .data
	rm -rf $(VENV) .venv-bench .venv-neon .venv-postgres .mypy_cache .ruff_cache .pytest_cache .hypothesis .schemathesis

$(VENV)/.runtime: requirements.txt
	@"$${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	@echo 'Installing requirements.txt into $(VENV), once; this takes a minute …' >&2
	"$${PYTHON:-python3}" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.txt requirements-redis.txt
	@echo 'Installing requirements-dev.txt into $(VENV), once; this takes a minute …' >&2
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
