"""Settings that the sessions of a role or a database begin with."""

from __future__ import annotations

from tests.support.postgres import Server

HOSTILE = {
    "intervalstyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "standard_conforming_strings": "off",
    "backslash_quote": "off",
    "client_encoding": "LATIN1",
    "transform_null_equals": "on",
    "array_nulls": "off",
    "quote_all_identifiers": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "lc_time": "C",
    "xmlbinary": "hex",
    "check_function_bodies": "off",
    "exit_on_error": "on",
    "timezone_abbreviations": "Australia",
    "statement_timeout": "3s",
    "lock_timeout": "3s",
    "idle_in_transaction_session_timeout": "1s",
    "client_min_messages": "debug5",
    "lc_numeric": "C",
    "lc_monetary": "C",
    "default_text_search_config": "pg_catalog.english",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "join_collapse_limit": "1",
    "work_mem": "64kB",
    "gin_fuzzy_search_limit": "1",
    "synchronize_seqscans": "off",
    "xmloption": "document",
    "track_activities": "off",
}
"""What an owner may have set for other purposes, but for time zones and styles of dates."""


def set_defaults(server: Server, whose: str, **settings: str) -> None:
    """Set the defaults of a database's, or a role's, sessions."""
    server.run(
        "; ".join(f"ALTER {whose} SET {name} TO {_quoted(settings[name])}" for name in settings)
    )


def _quoted(value: str) -> str:
    """Quote a list word by word, or it would be one word."""
    return ", ".join(f"'{word}'" for word in value.split(", "))
