"""Migration between a users file and Postgres: plan, backup, apply, verify, rollback, export.

The command is `python -m shared.transfer`; `functions/migrate.py` does the same over HTTP.
"""
