"""Migration between a users file and Postgres: plan, backup, apply, verify, rollback, export.

Also what comes to Postgres after an outage. The command is `python -m shared.transfer`;
`functions/migrate.py` does over HTTP what needs no file here.
"""
