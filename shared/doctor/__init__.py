"""Looks at settings, database and machine, and says in plain words what is wrong and what to do.

Changes nothing. The command is `python -m shared.doctor`, or `make doctor`.
"""
