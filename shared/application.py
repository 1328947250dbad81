"""What lives as long as the process: one of each, made when first needed.

Nothing here opens a connection before a request does, because functions-framework loads the
functions before its server forks. Imports wait as well: a probe needs no password hasher.
"""

from __future__ import annotations

import functools
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from shared.errors import StoreUnavailable, StoreUnreachable
from shared.observe import log
from shared.settings import Settings

if TYPE_CHECKING:
    from shared.credentials.id_tokens import IdTokens, SignInTokens
    from shared.credentials.passwords import PasswordHasher
    from shared.credentials.session_tokens import SessionTokens
    from shared.observe.alerts import Alerts
    from shared.observe.metrics import Gauge
    from shared.rules.gate import Gate
    from shared.store import Store

CLEAN_UP_SECONDS = 60.0
"""Between two deletions of what has expired, of one instance."""

_making = threading.Lock()
_cleaning = threading.Lock()
_next_clean_up = float("-inf")


@functools.cache
def settings() -> Settings:
    """Read the environment. Raises InvalidSettings."""
    return Settings.from_env()


def store() -> Store:
    """Give the one store: two of them would hold twice the connections."""
    with _making:
        return _store()


@functools.cache
def _store() -> Store:
    from shared.store import open_store

    return open_store(settings())


def tell_of_pending() -> None:
    """Say, when the process starts, that sign-ups wait to be brought to Postgres."""
    told = settings()
    if not told.use_database or not told.users_file.exists():
        return
    from shared import files
    from shared.store.json_file.store import JsonFileStore
    from shared.store.json_file.users_file import PENDING

    try:
        # To read all users of a large file takes seconds, and most have nobody who is pending.
        with suppress(OSError):
            if f'"{PENDING}"'.encode() not in files.read(told.users_file)[0]:
                return
        waiting = len(JsonFileStore(told).pending())
    except StoreUnavailable as error:
        log.write("ERROR", "The users file is of no use in an outage", cause=str(error))
        return
    if waiting:
        sentence = (
            f"{waiting} sign-ups are pending: `make migrate-reconcile` brings them to Postgres"
        )
        log.write("WARNING", sentence, pending=waiting)


def clean_up() -> None:
    """Delete what has expired, now and then, after an answer that nobody waits for any more."""
    global _next_clean_up
    now = time.monotonic()
    if now < _next_clean_up or not _cleaning.acquire(blocking=False):
        return
    try:
        _next_clean_up = now + CLEAN_UP_SECONDS
        with suppress(StoreUnreachable):  # The log has it already.
            if store().clean_up():
                _next_clean_up = now
    finally:
        _cleaning.release()


def gauges() -> list[Gauge]:
    """Tell how the store does right now, without asking it anything."""
    from shared.observe.metrics import STARTED_AT, Gauge

    found = [Gauge("process_start_time_seconds", "When this process started.", STARTED_AT)]
    callers = gate().bulkhead.counts()
    found += [
        Gauge("password_places_held", "Callers that have a place to hash in.", callers.held),
        Gauge("password_places_waiting", "Callers that wait for one.", callers.waiting),
    ]
    pool, fallback = store().pool(), store().fallback()
    if pool is not None:
        found += [
            Gauge("db_client_connections", "Open connections to the database.", pool.total),
            Gauge("db_client_connections_idle", "Those that nobody uses.", pool.idle),
            Gauge("db_client_pending_requests", "Who waits for a connection.", pool.waiting),
        ]
    if fallback is not None:
        is_away = fallback.since is not None
        found += [
            Gauge("db_client_away", "Whether the database is away: 1 or 0.", is_away),
            Gauge("fallback_pending_sign_ups", "Whom Postgres lacks still.", fallback.pending),
            Gauge(
                "fallback_snapshot_timestamp_seconds",
                "When it was taken; 0 if there is none.",
                fallback.snapshot or 0,
            ),
        ]
    return found


@functools.cache
def alerts() -> Alerts:
    """Give the one judge of this process's last minutes."""
    from shared.observe.alerts import Alerts

    return Alerts(settings().alerts)


def check_alerts() -> None:
    """See, now and then, whether something is wrong, after an answer that nobody waits for."""
    alerts().check(seconds_away(), settings().alert_webhook, time.monotonic())


def seconds_away() -> float | None:
    """Tell for how long the database has been away, if it is, without asking it."""
    # A process that was only probed has no store, and needs none for this.
    fallback = store().fallback() if _store.cache_info().currsize else None
    return fallback.away if fallback else None


@functools.cache
def tokens() -> SessionTokens:
    """Give the issuer and reader of session tokens."""
    from shared.credentials.session_tokens import SessionTokens

    return SessionTokens(settings().session_secrets, settings().session_keys)


def hasher() -> PasswordHasher:
    """Give the one password hasher: two of them would compute twice as many hashes at once."""
    with _making:
        return _hasher()


@functools.cache
def _hasher() -> PasswordHasher:
    from shared.credentials.passwords import PasswordHasher

    return PasswordHasher(settings().bcrypt_rounds, concurrency=settings().hash_concurrency)


def gate() -> Gate:
    """Give the one gate: two of them would let in twice as many callers."""
    with _making:
        return _gate()


@functools.cache
def _gate() -> Gate:
    from shared.rules.bulkhead import Bulkhead
    from shared.rules.gate import Gate

    return Gate(Bulkhead.of(settings().hash_concurrency, settings().threads))


@functools.cache
def google_id_tokens() -> IdTokens:
    """Give the verifier of Google's ID tokens, with its certificates."""
    from shared.credentials import id_tokens

    return id_tokens.IdTokens(id_tokens.GOOGLE)


def sign_in_tokens() -> SignInTokens:
    """Give the one verifier of users' ID tokens: two of them would fetch certificates twice.

    Where no provider is configured (`settings().has_google`) it refuses every token.
    """
    with _making:
        return _sign_in_tokens()


@functools.cache
def _sign_in_tokens() -> SignInTokens:
    from shared.credentials.id_tokens import SignInTokens

    told = settings()
    return SignInTokens(google_id_tokens(), told.google_client_ids, told.firebase_project_id)
