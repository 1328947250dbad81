"""What the Postgres store says to count users and events.

Events are counted by the hour, once: `ROLL_UP` writes an hour's counts when it has been over for a
while, and anew when a trigger has marked it, because an event came late, changed late, or was
deleted. `STATISTICS` reads those counts and, of hours that have none or are marked, the events
themselves: together they are always what counting all events would give.

No lock is needed. A mark stands until a count is written that has seen it, and with it the event;
and a count takes the place only of the one that it has seen, so that whoever was overtaken gives
way. What leaves no mark was written within ten minutes of its time, and no transaction that writes
an event takes the rest of the two hours after which its hour is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from typing import TYPE_CHECKING, Any

from shared.database.pool import Database
from shared.database.session import Row
from shared.database.statement import Statement
from shared.formats.timestamps import to_iso
from shared.model.statistics import MAX_DAYS, MONTH, WEEK, Events, Statistics, Window
from shared.store.postgres.rows import parse_json

if TYPE_CHECKING:
    from shared.database.replica import Replica

MAX_HOURS = 24
"""That are counted at once; fewer, where that took longer than a statement may."""

# 'unknown' is the provider of logins of a time when it was not written down.
_COUNTS = """(
    SELECT coalesce(jsonb_agg(jsonb_build_array(kind, detail, n)), '[]') FROM (
        SELECT kind, CASE kind
            WHEN 'login' THEN coalesce(provider, 'unknown')
            WHEN 'login_throttled' THEN 'too_many_attempts'
            WHEN 'login_failed' THEN
                CASE WHEN user_id IS NULL THEN 'unknown_account' ELSE 'wrong_password' END
            END AS detail, count(*) AS n
        FROM auth_events WHERE at >= h.hour AND at < h.hour + interval '1 hour' GROUP BY 1, 2
    ) counted
)"""
_NEXT = "(SELECT max(hour) + interval '1 hour' FROM event_hours)"
# Before the first event there is nothing to look for, hour by hour.
_FIRST_UNCOUNTED = f"""coalesce(
        {_NEXT}, (SELECT date_trunc('hour', min(at), 'UTC') FROM auth_events), :end::timestamptz)"""
# Nothing before the days that can be asked for is of use. The hours are in order, so that no two
# roll-ups wait for each other in a circle.
ROLL_UP = Statement(
    "roll_up",
    f"""
WITH bounds AS (
    SELECT CURRENT_TIMESTAMP - interval '3 hours' AS latest, date_trunc('hour',
            greatest(next, CURRENT_TIMESTAMP - interval '{MAX_DAYS * 24} hours'), 'UTC') AS next
    FROM (SELECT coalesce({_NEXT}, (SELECT min(at) FROM auth_events)) AS next) found
    WHERE next IS NOT NULL
), due AS (
    SELECT hour FROM changed_hours, bounds WHERE hour <= latest
    UNION SELECT generate_series(next, latest, '1 hour') FROM bounds
    ORDER BY hour LIMIT :hours::int
), counted AS (
    INSERT INTO event_hours AS e (hour, version, counts)
    SELECT h.hour, coalesce(version, 0) + 1, {_COUNTS}
    FROM due h LEFT JOIN event_hours seen ON seen.hour = h.hour ORDER BY h.hour
    ON CONFLICT (hour) DO UPDATE SET version = excluded.version, counts = excluded.counts
        WHERE e.version = excluded.version - 1
    RETURNING hour
), settled AS (
    DELETE FROM changed_hours USING counted WHERE changed_hours.hour = counted.hour
)
SELECT count(*) FROM due
""",
    is_prepared=False,
)
# All users are counted by the index on their providers, a thirtieth of the table, of which only
# those are read who came lately. In timestamps a day is an hour longer now and then, where the
# session's time zone has it so; '1 day' of date_bin() is not.
STATISTICS = Statement(
    "statistics",
    f"""
WITH providers AS (
    SELECT provider, count(*) AS n FROM users GROUP BY provider
), registered AS (
    SELECT CASE WHEN created_at >= :start::timestamptz
            THEN date_bin('1 day', created_at, :start::timestamptz) END AS day,
        provider, count(*) AS n,
        count(*) FILTER (WHERE created_at >= :week_ago::timestamptz) AS last_week,
        count(*) FILTER (WHERE created_at >= :month_ago::timestamptz) AS last_month
    FROM users WHERE created_at < :end::timestamptz
    AND created_at >= least(:start::timestamptz, :week_ago::timestamptz, :month_ago::timestamptz)
    GROUP BY 1, 2
), uncounted AS (
    SELECT hour FROM changed_hours WHERE hour >= :start::timestamptz AND hour < :end::timestamptz
    UNION SELECT generate_series(greatest(:start::timestamptz, {_FIRST_UNCOUNTED}),
        :end::timestamptz - interval '1 hour', '1 hour')
), hours AS (
    SELECT hour, counts FROM event_hours
    WHERE hour >= :start::timestamptz AND hour < :end::timestamptz
    AND hour NOT IN (SELECT hour FROM uncounted)
    UNION ALL SELECT hour, {_COUNTS} FROM uncounted h
), events AS (
    SELECT date_bin('1 day', hour, :start::timestamptz) AS day, hour AT TIME ZONE 'UTC' AS hour,
        c->>0 AS kind, c->>1 AS detail, (c->>2)::bigint AS n
    FROM hours, jsonb_array_elements(counts) c
)
SELECT (
    SELECT json_agg(json_build_array(provider, n))::text FROM providers
), (
    SELECT json_agg(json_build_array(
        (day AT TIME ZONE 'UTC')::date, provider, n, last_week, last_month))::text FROM registered
), (
    SELECT json_agg(json_build_array((day AT TIME ZONE 'UTC')::date, kind, detail, n))::text
    FROM (SELECT day, kind, detail, sum(n) AS n FROM events GROUP BY 1, 2, 3) d
), (
    SELECT json_agg(json_build_array(day, hour, n))::text FROM (
        SELECT extract(isodow FROM hour)::int - 1 AS day, extract(hour FROM hour)::int AS hour,
            sum(n) AS n
        FROM events WHERE kind = 'login' GROUP BY 1, 2
    ) w
)
""",
    is_prepared=False,
)


def count(database: Database, replica: Replica | None, window: Window) -> Statistics:
    """Ask the replica, where there is one, or else the primary.

    Raises what the primary does.
    """
    parameters = {
        "start": to_iso(window.start),
        "end": to_iso(window.end),
        "week_ago": to_iso(window.now - WEEK),
        "month_ago": to_iso(window.now - MONTH),
    }
    if replica is not None:
        from shared.database.replica import PassedOver

        with suppress(PassedOver), replica.reading("statistics") as (connection, as_of):
            (row,) = connection.execute(STATISTICS, **parameters)
            return _read(row, as_of)
    (row,) = database.execute(STATISTICS, **parameters)
    return _read(row)


def _read(row: Row, as_of: float | None = None) -> Statistics:
    """Make of the row of STATISTICS what it says."""
    providers, registered, events, hours = map(parse_json, row)
    found = Statistics(events=_events(events, hours), as_of=as_of)
    for provider, number in providers:
        found.users[provider or "local"] += number  # As everywhere.
    for day, provider, number, last_week, last_month in registered:
        found.users_last_week += last_week
        found.users_last_month += last_month
        if day is not None:
            found.registrations[date.fromisoformat(day), provider or "local"] += number
    return found


def _events(events: Sequence[Any], hours: Sequence[Any]) -> Events:
    found = Events()
    for day, kind, detail, number in events:
        found.outcomes[kind] += number
        if kind == "login":
            found.logins[date.fromisoformat(day), detail] += number
        elif detail is not None:
            found.login_failures[detail] += number
            found.failed_logins[date.fromisoformat(day)] += number
    for day, hour, number in hours:
        found.login_hours[day, hour] = number
    return found
