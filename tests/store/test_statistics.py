"""Users and events as operators are told of them: always what counting everything would give."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.database.statement import Statement
from shared.model.statistics import DAY, Events, Statistics, Window
from shared.model.user_record import parse
from shared.model.users import ExternalIdentity, User
from shared.store.contract import Store
from shared.store.janitor import Janitor
from shared.store.json_file.store import JsonFileStore
from shared.store.postgres.statements import CLEAN_UP, MAX_DELETED
from shared.store.postgres.statistics import MAX_HOURS, ROLL_UP, STATISTICS
from shared.store.postgres.store import PostgresStore
from shared.store.settings import StoreSettings
from shared.transfer import pending_sign_ups
from tests.support.postgres import Server
from tests.support.stores import CLIENT, id_token, opened_store, postgres_store, stored
from tests.support.transfers import user
from tests.support.waiting import until

LEAP_DAY = datetime(2024, 2, 29, tzinfo=UTC)
KINDS = ("signup", "login", "login_failed", "login_throttled", "logout", "password_changed")
GOOGLE = ExternalIdentity("https://accounts.google.com", "1")
ELSEWHERE = "America/St_Johns"
"""Half an hour off the whole hours, and with summer time."""
Event = tuple[datetime, str, uuid.UUID | None, str | None]


def _user(email: str, provider: str = "local") -> User:
    return User(str(uuid.uuid4()), email, None, provider)


def test_users_are_counted_by_provider_and_by_the_day_they_came(store: Store) -> None:
    for number, provider in enumerate(("local", "local", "google", "firebase-google")):
        store.create_user(_user(f"user{number}@example.com", provider), None)
    found = store.statistics(Window(2, time.time()))
    assert found.users == {"local": 2, "google": 1, "firebase-google": 1}
    assert (found.users_last_week, found.users_last_month) == (4, 4)
    by_provider: Counter[str] = Counter()
    for (_, provider), number in found.registrations.items():
        by_provider[provider] += number
    assert by_provider == found.users
    assert (found.events is None) == isinstance(store, JsonFileStore)


def test_nobody_of_a_time_to_come_is_new(store: Store) -> None:
    store.create_user(_user("ada@example.com"), None)
    found = store.statistics(Window(2, time.time() - 3 * DAY))
    assert (found.users_last_week, found.users_last_month) == (0, 0)
    assert found.users.total() == 1


CREATED = (
    "2024-02-01T00:00:00Z",
    "2024-02-28T23:59:59.999999Z",
    "2024-02-29T00:00:00Z",
    "2024-02-29T23:59:59.999Z",
    "2024-03-01T01:30:00+02:00",
    "2024-03-01T12:00:00.000001Z",
    "2024-03-02T00:00:00Z",
    "2023-01-01T00:00:00Z",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    None,
)
NOW = datetime(2024, 3, 1, 12, tzinfo=UTC).timestamp()


def _straightforward_users() -> Statistics:
    """Count whom `_with_users` stores."""
    found = Statistics()
    week, month = (datetime.fromtimestamp(NOW, UTC) - timedelta(days=days) for days in (7, 30))
    for number, text in enumerate(CREATED):
        provider = ("local", "google")[number % 2]
        found.users[provider] += 1
        if text is None:
            continue
        created = datetime.fromisoformat(text).astimezone(UTC)
        end = LEAP_DAY + timedelta(days=2)
        found.users_last_week += week <= created < end
        found.users_last_month += month <= created < end
        if LEAP_DAY <= created < end:
            found.registrations[created.date(), provider] += 1
    return found


def test_of_users_in_postgres_every_border_is_in_utc(postgres: Server, database: str) -> None:
    postgres.run(f"ALTER DATABASE {database} SET timezone = '{ELSEWHERE}'")
    for number, text in enumerate(CREATED):
        # NULL and '' are local, as everywhere.
        provider = ("NULL", "'google'", "''", "'google'")[number % 4]
        at = "NULL" if text is None else f"'{text}'"
        postgres.run(
            "INSERT INTO users (email, provider, created_at)"
            f" VALUES ('{number}@x.org', {provider}, {at})",
            database,
        )
    store = opened_store(DATABASE_URL=postgres.url(database))
    found = store.statistics(Window(2, NOW))
    store.close()
    expected = _straightforward_users()
    expected.events = Events()
    assert found == expected


def test_infinitely_old_and_young_users_are_counted(postgres: Server, database: str) -> None:
    for number, at in enumerate(("-infinity", "infinity")):
        postgres.run(
            f"INSERT INTO users (email, created_at) VALUES ('{number}@x.org', '{at}')", database
        )
    store = opened_store(DATABASE_URL=postgres.url(database))
    found = store.statistics(Window(366, time.time()))
    store.close()
    assert (found.users["local"], found.users_last_week) == (2, 0)
    assert found.registrations == {}


def test_of_users_in_a_file_it_is_the_same(tmp_path: Path) -> None:
    file = tmp_path / "users.json"
    records = [
        {
            "id": str(uuid.uuid4()),
            "email": f"{number}@x.org",
            "provider": ("local", "google")[number % 2],
        }
        | ({"createdAt": text} if text else {"createdAt": "last summer"})
        for number, text in enumerate(CREATED)
    ]
    file.write_text(json.dumps(records))
    store = JsonFileStore(StoreSettings(users_file=file))
    assert store.statistics(Window(2, NOW)) == _straightforward_users()


class Audit:
    """Events of a time long ago, in a database whose sessions are somewhere else."""

    def __init__(self, server: Server, database: str) -> None:
        server.run(f"ALTER DATABASE {database} SET timezone = '{ELSEWHERE}'")
        self.server, self.database = server, database
        self.stores: list[PostgresStore] = []

    def open(self, **settings: str) -> PostgresStore:
        variables = {"DATABASE_URL": self.server.url(self.database), "AUDIT_DAYS": "3650"}
        self.stores.append(postgres_store(**variables | settings))
        return self.stores[-1]

    def run(self, sql: str) -> list[list[Any]]:
        return self.server.run(sql, self.database)

    def insert(self, *events: Event, on_time: bool = False) -> None:
        """Write events; one on time is one that the triggers leave alone."""
        rows = ", ".join(
            f"('{at.isoformat()}', '{kind}', {_sql(user)}, {_sql(provider)})"
            for at, kind, user, provider in events
        )
        insert = f"INSERT INTO auth_events (at, kind, user_id, provider) VALUES {rows}"
        role = "BEGIN; SET LOCAL session_replication_role = replica;"
        self.run(f"{role} {insert}; COMMIT" if on_time else insert)

    def count(self, window: Window) -> Events:
        """Read every event, and count those of the window."""
        found = Events()
        rows = self.run("SELECT at AT TIME ZONE 'UTC', kind, user_id, provider FROM auth_events")
        for naive, kind, user_id, provider in rows:
            at = naive.replace(tzinfo=UTC)
            if not window.start <= at.timestamp() < window.end:
                continue
            found.outcomes[kind] += 1
            found.failed_logins[at.date()] += kind in ("login_failed", "login_throttled")
            if kind == "login":
                found.logins[at.date(), provider or "unknown"] += 1
                found.login_hours[at.weekday(), at.hour] += 1
            elif kind == "login_failed":
                reason = "wrong_password" if user_id else "unknown_account"
                found.login_failures[reason] += 1
            elif kind == "login_throttled":
                found.login_failures["too_many_attempts"] += 1
        found.failed_logins = +found.failed_logins
        return found

    def check(self, store: Store, now: float, *days: int) -> None:
        for each in days or (1, 7, 366):
            window = Window(each, now)
            assert store.statistics(window).events == self.count(window)

    def marks(self) -> int:
        ((count,),) = self.run("SELECT count(*) FROM changed_hours")
        return int(count)


def _sql(value: object) -> str:
    return "NULL" if value is None else f"'{value}'"


@pytest.fixture
def audit(postgres: Server, database: str) -> Iterator[Audit]:
    made = Audit(postgres, database)
    yield made
    for store in made.stores:
        store.close()


def _event(chance: random.Random, at: datetime) -> Event:
    user = chance.choice([None, uuid.UUID(int=chance.getrandbits(128))])
    return at, chance.choice(KINDS), user, chance.choice([None, "local", "google"])


def _clean_up(store: PostgresStore, now: float) -> bool:
    """Do what cleaning up does, at that time by the database's clock."""
    seconds = store._audit_seconds
    ((most,),) = store.database.execute(_at(now, CLEAN_UP), audit_seconds=seconds)
    ((hours,),) = store.database.execute(_at(now, ROLL_UP), hours=MAX_HOURS)
    return int(most) == MAX_DELETED or int(hours) == MAX_HOURS


def _at(now: float, statement: Statement) -> Statement:
    assert "CURRENT_TIMESTAMP" in statement.sql
    moment = datetime.fromtimestamp(now, UTC).isoformat()
    sql = statement.sql.replace("CURRENT_TIMESTAMP", f"'{moment}'::timestamptz")
    return Statement(statement.name, sql, is_prepared=statement.is_prepared)


def _rolling_up(now: float) -> str:
    """Write the roll-up for a connection of the test's own."""
    return _at(now, ROLL_UP).text.replace("$1", str(MAX_HOURS))


def _roll_up(store: PostgresStore, now: float) -> None:
    while _clean_up(store, now):
        pass


@pytest.mark.parametrize("seed", range(4))
def test_whatever_comes_changes_and_goes_in_whatever_order_the_events_are_counted_right(
    audit: Audit, seed: int
) -> None:
    chance = random.Random(seed)
    store = audit.open()
    now = LEAP_DAY - timedelta(days=2)
    borders = [now + timedelta(hours=h) for h in (0, 24, 48, 72)]
    borders += [border - timedelta(microseconds=1) for border in borders]
    for _ in range(50):
        now += timedelta(minutes=chance.choice((1, 30, 60, 200)))
        step = chance.randrange(8)
        if step < 2:
            soon = [now - timedelta(seconds=chance.uniform(0, 600)) for _ in range(5)]
            audit.insert(*(_event(chance, at) for at in soon), on_time=True)
        elif step == 2:
            late = [now - timedelta(hours=chance.expovariate(0.1)) for _ in range(5)]
            audit.insert(*(_event(chance, at) for at in (*late, chance.choice(borders))))
        elif step == 3:
            kind = chance.choice(KINDS)
            audit.run(f"UPDATE auth_events SET kind = '{kind}' WHERE random() < 0.1")
        elif step == 4:
            audit.run("DELETE FROM auth_events WHERE random() < 0.1")
        elif step == 5:
            _roll_up(store, now.timestamp())
        else:
            _clean_up(store, now.timestamp())
        audit.check(store, now.timestamp(), chance.choice((1, 7, 366)))
    _roll_up(store, now.timestamp())
    audit.check(store, now.timestamp())


def _fill(audit: Audit, days: int = 3) -> float:
    """Write an event for each minute from the leap day on, and give a time after all of them."""
    audit.run(
        "INSERT INTO auth_events (at, kind, user_id, provider) SELECT at,"
        " CASE WHEN extract(minute FROM at)::int % 3 = 0 THEN 'login_failed' ELSE 'login' END,"
        " CASE WHEN extract(minute FROM at)::int % 2 = 0 THEN gen_random_uuid() END, 'local'"
        f" FROM generate_series('2024-02-29 00:00Z'::timestamptz,"
        f" '2024-02-29 00:00Z'::timestamptz + interval '{days * 24} hours', '1 minute') at"
    )
    return LEAP_DAY.timestamp() + (days + 1) * DAY


def test_an_hour_that_has_been_counted_is_not_counted_again(audit: Audit) -> None:
    store, now = audit.open(), _fill(audit)
    _roll_up(store, now)
    assert audit.marks() == 0
    before = store.statistics(Window(7, now))
    audit.run("SET session_replication_role = replica; DELETE FROM auth_events")
    assert store.statistics(Window(7, now)) == before
    assert before.events is not None
    assert before.events.outcomes.total() == 3 * 24 * 60 + 1


def test_only_hours_that_have_been_over_for_two_hours_are_counted_for_good(audit: Audit) -> None:
    store = audit.open()
    audit.insert((LEAP_DAY, "login", None, "local"))
    for hours, counted in ((0, []), (2, []), (2.99, []), (3, [LEAP_DAY])):
        _clean_up(store, LEAP_DAY.timestamp() + hours * 3600)
        found = [hour.replace(tzinfo=UTC) for (hour,) in audit.run(_HOURS)]
        assert found == counted, hours


_HOURS = "SELECT hour AT TIME ZONE 'UTC' FROM event_hours ORDER BY hour"


def test_a_login_marks_no_hour_and_its_success_none(audit: Audit) -> None:
    store, now = audit.open(), time.time()
    user = store.create_user(_user("ada@example.com"), "hash")
    store.end_login(store.begin_login(user.email, CLIENT))
    store.begin_login(user.email, CLIENT)
    store.begin_login("nobody@example.com", CLIENT)
    assert audit.marks() == 0
    events = store.statistics(Window(2, now)).events
    assert events is not None
    assert events.logins.total() == 1
    assert events.login_failures == {"wrong_password": 1, "unknown_account": 1}


def test_a_login_counts_for_the_provider_of_that_time_also_when_the_user_is_gone(
    audit: Audit,
) -> None:
    store, now = audit.open(), time.time()
    by_google = store.create_user(_user("eve@example.com", "google"), None, [GOOGLE])
    assert store.find_external([GOOGLE], by_google.email, id_token(), CLIENT)
    by_password = store.create_user(_user("ada@example.com"), "hash")
    store.end_login(store.begin_login(by_password.email, CLIENT))
    audit.run("UPDATE users SET provider = 'firebase-google' WHERE email = 'eve@example.com'")
    attempt, found = stored(store, by_password)
    assert store.delete_user(attempt, found)
    events = store.statistics(Window(2, now)).events
    assert events is not None
    assert {provider: n for (_, provider), n in events.logins.items()} == {"google": 1, "local": 1}
    assert events.outcomes["account_deleted"] == 1


def test_what_the_audit_no_longer_keeps_is_no_longer_counted(audit: Audit) -> None:
    now = _fill(audit, days=4)
    store = audit.open(AUDIT_DAYS="3")
    _roll_up(audit.open(), now)
    for _ in range(6):
        _clean_up(store, now)
        audit.check(store, now, 7)
    _roll_up(store, now)
    assert audit.marks() == 0
    audit.check(store, now)
    ((oldest,),) = audit.run("SELECT min(at) AT TIME ZONE 'UTC' FROM auth_events")
    assert oldest.replace(tzinfo=UTC).timestamp() > now - 3 * DAY


def test_an_event_is_counted_that_was_committed_long_after_its_hour_was(
    postgres: Server, audit: Audit
) -> None:
    store, now = audit.open(), _fill(audit)
    with closing(postgres.connect(audit.database)) as other:
        other.run("BEGIN; INSERT INTO auth_events (at, kind) VALUES ('2024-02-29 12:30Z', 'login')")
        _roll_up(store, now)
        other.run("COMMIT")
    audit.check(store, now)
    _roll_up(store, now)
    assert audit.marks() == 0
    audit.check(store, now)


def test_a_sign_up_of_an_outage_counts_for_its_day_though_that_was_counted_before(
    audit: Audit,
) -> None:
    store, now = audit.open(), _fill(audit)
    _roll_up(store, now)
    record = parse(user(1, createdAt=LEAP_DAY.isoformat()))
    with store.database.direct_connection(time.monotonic() + 10) as connection:
        connection.run_script("BEGIN")
        assert pending_sign_ups.apply(connection, str(uuid.uuid4()), record) == "created"
    events = store.statistics(Window(7, now)).events
    assert events is not None
    assert events.outcomes["signup"] == 1
    _roll_up(store, now)
    assert audit.marks() == 0
    audit.check(store, now)


def test_a_count_that_was_overtaken_by_a_later_one_gives_way(
    postgres: Server, audit: Audit
) -> None:
    store, now = audit.open(), _fill(audit)
    _roll_up(store, now)
    audit.insert((LEAP_DAY, "login", None, "google"))
    with closing(postgres.connect(audit.database)) as later, ThreadPoolExecutor(1) as thread:
        later.run("BEGIN; SELECT FROM event_hours FOR UPDATE")
        earlier = thread.submit(_clean_up, store, now)
        _wait_for_waiting(audit)
        audit.insert((LEAP_DAY, "login", None, "firebase-google"))
        later.run(f"{_rolling_up(now)}; COMMIT")
        earlier.result()
    assert audit.marks() == 0
    audit.check(store, now)


def test_a_count_that_gave_way_leaves_the_marks_that_it_has_seen(
    postgres: Server, audit: Audit
) -> None:
    store, now = audit.open(), _fill(audit)
    _roll_up(store, now)
    audit.insert((LEAP_DAY, "login", None, "google"))
    with closing(postgres.connect(audit.database)) as earlier, ThreadPoolExecutor(1) as thread:
        earlier.run(f"BEGIN; {_rolling_up(now)}")
        audit.insert((LEAP_DAY, "login", None, "firebase-google"))
        later = thread.submit(_clean_up, store, now)
        _wait_for_waiting(audit)
        earlier.run("COMMIT")
        later.result()
    assert audit.marks() == 1
    audit.check(store, now)
    _roll_up(store, now)
    assert audit.marks() == 0
    audit.check(store, now)


def _wait_for_waiting(audit: Audit) -> None:
    waiting = (
        f"SELECT FROM pg_stat_activity WHERE datname = '{audit.database}' AND"
        " wait_event_type = 'Lock'"
    )
    until(lambda: audit.run(waiting))


def test_several_instances_that_count_at_once_while_events_come_and_go_are_right(
    audit: Audit,
) -> None:
    now, first = _fill(audit), "'2024-02-29 00:00Z'::timestamptz"
    stores = [audit.open() for _ in range(4)]
    seeds = range(8)

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(15):
            at = LEAP_DAY + timedelta(minutes=chance.randrange(3 * 24 * 60))
            if seed < len(stores):
                _clean_up(stores[seed], now)
            elif chance.random() < 0.7:
                audit.insert(*[_event(chance, at)] * 3)
            else:
                hour = f"interval '{chance.randrange(72)} hours'"
                audit.run(f"DELETE FROM auth_events WHERE at = {first} + {hour}")

    with ThreadPoolExecutor(len(seeds)) as threads:
        list(threads.map(work, seeds))
    audit.check(stores[0], now)
    _roll_up(stores[0], now)
    assert audit.marks() == 0
    audit.check(stores[0], now)
    assert "deadlock detected" not in audit.server.log()


def test_after_years_of_silence_counting_begins_with_what_a_window_can_reach(audit: Audit) -> None:
    store, now = audit.open(), LEAP_DAY.timestamp()
    audit.insert((LEAP_DAY - timedelta(days=3000), "login", None, "local"))
    audit.insert((LEAP_DAY - timedelta(days=365), "login", None, "local"))
    _roll_up(store, now)
    ((hours,),) = audit.run("SELECT count(*) FROM event_hours")
    assert hours <= 367 * 24
    audit.check(store, now)


def test_hours_of_which_a_day_takes_longer_than_a_statement_may_are_counted_a_few_at_a_time(
    audit: Audit,
) -> None:
    store = audit.open(DATABASE_STATEMENT_TIMEOUT="0.5", AUDIT_DAYS="2")
    now = datetime.now(UTC)
    audit.insert(*((now - timedelta(hours=n), "login", None, "local") for n in range(3, 27)))
    audit.run(
        "CREATE FUNCTION takes_long() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN PERFORM pg_sleep(0.05); RETURN NEW; END'"
    )
    audit.run(
        "CREATE TRIGGER takes_long BEFORE INSERT ON event_hours"
        " FOR EACH ROW EXECUTE FUNCTION takes_long()"
    )
    rounds = 0
    while audit.marks():
        assert store.clean_up(), "there may be more to do"
        rounds += 1
        assert rounds < 12
    assert rounds > 3, "24 hours at once take too long, and 12"
    audit.check(store, now.timestamp())


def test_an_hour_that_can_never_be_counted_keeps_nothing_else_from_being_done(
    audit: Audit,
) -> None:
    store = audit.open(DATABASE_STATEMENT_TIMEOUT="0.3", AUDIT_DAYS="2")
    now = datetime.now(UTC)
    audit.insert((now - timedelta(hours=3), "login", None, "local"))
    audit.run(
        "CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN PERFORM pg_sleep(9); RETURN NEW; END'"
    )
    audit.run("CREATE TRIGGER never BEFORE INSERT ON event_hours EXECUTE FUNCTION never()")
    done: list[str] = []
    janitor = Janitor(store, lambda: done.append("mails"))
    for _ in range(6):
        janitor._next = 0.0
        janitor.run()
    assert not store.clean_up(), "nothing is gained by trying again at once"
    assert done == ["mails"] * 6
    assert audit.marks()


def test_hours_and_events_are_found_by_an_index(postgres: Server, database: str) -> None:
    for statement in (ROLL_UP, STATISTICS):
        scans = [
            line for line in postgres.generic_plan(statement.text, database) if "Seq Scan" in line
        ]
        assert all("Seq Scan on users" in line for line in scans), scans
