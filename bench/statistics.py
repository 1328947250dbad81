"""Statistics of many users and events of the last 30 days, against psql's bare count of them."""

from __future__ import annotations

import time
from functools import partial

from bench.imports import psql
from bench.load import Side, get, in_turns, milliseconds
from bench.report import Measurement
from bench.servers import ours, running
from shared.database.settings import DatabaseSettings
from shared.database.url import DatabaseUrl
from shared.store.postgres.preparation import bring_up_to_date
from tests.support.postgres import USER, Server
from tests.support.stores import opened_store

EVENTS_A_USER = 10

_ADMIN_TOKEN = "YmVuY2htYXJrcyBvbmx5LCBhbmQgbm93aGVyZSBlbHNlIGF0IGFsbA"
_DATABASE = "statistics"
# In the order of their ids and without the index on users, or a load takes five times as long.
_LOAD = """
SET timezone = 'UTC';
ALTER TABLE users DISABLE TRIGGER USER;
INSERT INTO users (id, email, email_key, password, provider, created_at)
SELECT lpad(to_hex(n), 32, '0')::uuid, address, address, repeat('x', 60),
    (ARRAY['local', 'local', 'google', 'firebase-google'])[1 + n % 4],
    now() - n * interval '30 days' / {users}
FROM generate_series(1, {users}) n, concat('user', n, '@example.com') address;
ALTER TABLE users ENABLE TRIGGER USER;
ALTER TABLE auth_events DISABLE TRIGGER USER;
DROP INDEX idx_auth_events_user_id;
INSERT INTO auth_events (id, at, kind, user_id, client, provider)
SELECT lpad(to_hex(n), 32, '0')::uuid, now() - ({events} - n) * interval '30 days' / {events},
    (ARRAY['login', 'login', 'login', 'logout', 'login_failed', 'login_throttled'])[1 + n % 6],
    CASE WHEN n % 12 <> 4 THEN lpad(to_hex(1 + n::bigint * 7919 % {users}), 32, '0')::uuid END,
    '203.0.113.0/24', (ARRAY['local', 'google'])[1 + n % 2]
FROM generate_series(1, {events}) n;
CREATE INDEX idx_auth_events_user_id ON auth_events (user_id, at);
ALTER TABLE auth_events ENABLE TRIGGER USER;
VACUUM ANALYZE users;
VACUUM ANALYZE auth_events
"""
_COUNT = "SELECT count(*) FROM users; SELECT count(*) FROM auth_events"


def measure(server: Server, events: int, rounds: int) -> list[Measurement]:
    """Load, count the hours as an instance does after its answers, and ask for the statistics."""
    server.run(f"CREATE DATABASE {_DATABASE} OWNER {USER}")
    users, url = events // EVENTS_A_USER, server.url(_DATABASE)
    bring_up_to_date(DatabaseUrl.parse(url), DatabaseSettings(), report=lambda _: None)
    for statement in _LOAD.format(users=users, events=events).split(";"):
        psql(server, _DATABASE, statement)
    counting = _count_hours(url)
    with running(ours(url, 4, ADMIN_TOKEN=_ADMIN_TOKEN)) as (api,):
        side = Side(api.port, partial(get, "/api/stats", bearer=_ADMIN_TOKEN))
        floor, seconds = in_turns(
            rounds, partial(psql, server, _DATABASE, _COUNT), partial(_seconds, side)
        )
    name = f"/api/stats, {users:,} users, {events:,} events"
    return [
        Measurement(name=name, unit="s", ours=seconds, at_most=2),
        Measurement(
            name="/api/stats / psql's count(*) of both",
            unit="s",
            floor=floor,
            ours=seconds,
            comparison="ratio",
            at_most=1,
        ),
        Measurement(
            name=f"clean-up that counts {events:,} events at first",
            unit="events/s",
            ours=[round(events / counting)],
        ),
    ]


def _count_hours(url: str) -> float:
    """Clean up until nothing is left to do, and give the seconds that this took."""
    store = opened_store(DATABASE_URL=url, FALLBACK="off")
    started = time.perf_counter()
    while store.clean_up():
        pass
    seconds = time.perf_counter() - started
    store.close()
    return seconds


def _seconds(side: Side) -> float:
    (answered,) = milliseconds(side, 1)
    return answered / 1000
