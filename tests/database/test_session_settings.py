"""What a role or a database has set for its sessions changes no answer, directly or pooled."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest

from shared.database.pool import Database
from shared.database.session import Row
from shared.database.settings import DatabaseSettings
from shared.database.statement import Statement, Value
from shared.database.url import DatabaseUrl
from shared.errors import EmailTaken, StoreRefused, StoreTimeout, TooManyAttempts
from shared.model.clients import Client
from shared.model.statistics import DAY, Window
from shared.model.users import ExternalIdentity, User
from shared.store.postgres import email_keys, statements, statistics
from shared.store.postgres.preparation import bring_up_to_date
from shared.store.postgres.store import PostgresStore
from tests.support import express
from tests.support.old_database import OLD_DDL, OLD_ROWS
from tests.support.postgres import PgBouncer, Server, running_pgbouncer
from tests.support.session_settings import HOSTILE, set_defaults
from tests.support.stores import CLIENT, id_token, postgres_store, session_of, stored
from tests.support.transfers import Target
from tests.support.transfers import user as user_row

AFTER_REFUSALS = {"is_taken", "is_as_found", "widths", "give_back", "give_back_unaudited"}
"""Statements for what the operator's own schema refuses, which is nothing here."""
CASES = [
    ("German, DMY", "America/New_York", "direct"),
    ("German, DMY", "America/New_York", "pooled"),
    ("SQL, DMY", "Asia/Kolkata", "direct"),
    pytest.param("SQL, MDY", "Asia/Kathmandu", "pooled", marks=pytest.mark.long),
    pytest.param("Postgres, DMY", "Australia/Lord_Howe", "direct", marks=pytest.mark.long),
    pytest.param("Postgres, MDY", "Europe/Berlin", "pooled", marks=pytest.mark.long),
    pytest.param("ISO, YMD", "America/St_Johns", "pooled", marks=pytest.mark.long),
]
GOOGLE = ExternalIdentity("https://accounts.google.com", "1")
MARCH = datetime(2026, 3, 4, 5, 6, 7, 500_000, tzinfo=UTC)
"""A day that is another one, three months of which are, where day and month change places."""


@pytest.fixture(scope="module")
def bouncer(postgres: Server, pgbouncer_program: str) -> Iterator[PgBouncer]:
    with running_pgbouncer(postgres, server_connections=2) as running:
        yield running


@pytest.fixture(scope="module")
def answers(postgres: Server, old_database: str) -> dict[str, object]:
    """What is answered where nothing is set."""
    return _ask(postgres, old_database)


@pytest.mark.parametrize(("style", "zone", "way"), CASES)
def test_every_statement_of_requests_gives_the_same_answers_whatever_a_session_has_set(
    postgres: Server,
    make_database: Callable[..., str],
    request: pytest.FixtureRequest,
    answers: dict[str, object],
    style: str,
    zone: str,
    way: str,
) -> None:
    port = request.getfixturevalue("bouncer").port if way == "pooled" else postgres.port
    name = make_database()
    whose = f"ROLE app IN DATABASE {name}" if way == "pooled" else f"DATABASE {name}"
    set_defaults(postgres, whose, **HOSTILE, datestyle=style, timezone=zone)
    express.install(postgres, name)
    assert _ask(postgres, name, port=port) == answers


def _ask(server: Server, database: str, **parameters: Any) -> dict[str, object]:
    """Make each statement of requests at least once, and give what was answered, by its name."""
    url = server.url(database, **parameters)
    limits = {"MAX_CLIENT_ATTEMPTS": "5", "MAX_SIGNUPS": "2"}
    with closing(postgres_store(DATABASE_URL=url, FALLBACK="off", **limits)) as store:
        asked = _record(store.database)
        answers = _answers(store, server, database)
    known = [*vars(statements).values(), *vars(statistics).values(), *vars(email_keys).values()]
    names = {found.name for found in known if isinstance(found, Statement)}
    assert asked == names - AFTER_REFUSALS
    return answers


def _record(database: Database) -> set[str]:
    execute_within, asked = database.execute_within, set()

    def recording(seconds: float, statement: Statement, /, **parameters: Value) -> list[Row]:
        asked.add(statement.name)
        return execute_within(seconds, statement, **parameters)

    setattr(database, "execute_within", recording)  # noqa: B010  # `execute` goes through it as well
    return asked


def _answers(store: PostgresStore, server: Server, database: str) -> dict[str, object]:
    now = time.time()
    found: dict[str, object] = {}
    sessions = store.express_sessions
    known = express.RECORDED["sessions"][0]["sid"]
    before = sessions.user(known, exchanged="")
    found["express"] = before and before.email
    express.add(server, database, "over", '{"userId": "none"}', seconds=-60)
    found["express, over"] = sessions.user("over", exchanged="")
    sessions.delete("over")
    sessions.delete("over")
    server.run("DELETE FROM users", database)

    user = User("0c0ffee0-0000-4000-8000-000000000001", "ada@example.com", "Özgé", "local")
    ada = Client("198.51.100.1", session_of(user))
    with_identity = store.create_user(user, "hash\\'", (GOOGLE,), client=CLIENT)
    found["created"] = with_identity
    with pytest.raises(EmailTaken):
        store.create_user(User(str(uuid.uuid4()), user.email, None, "local"), "x", client=CLIENT)
    march = f"timestamptz '{MARCH.isoformat()}'"
    server.run(
        f"UPDATE users SET created_at = {march}; UPDATE auth_events SET at = {march}",
        database,
    )
    account = store.account(user.id, sid="")
    assert account is not None
    found["account"] = (account.created_at, account.identities)
    found["updated"] = abs(datetime.fromisoformat(account.updated_at or "").timestamp() - now) < 60
    found["events"] = [(event["at"], event["kind"]) for event in account.events]

    attempt = store.begin_login(user.email, ada)
    found["now"] = abs(attempt.at - time.time()) < 60
    store.end_login(attempt)
    match = store.find_external((GOOGLE,), user.email, id_token(), CLIENT)
    assert match is not None
    found["matched"] = (match.is_linked, match.has_all, abs(match.at - time.time()) < 60)
    found["replaced"] = store.replace_password_hash(user.id, "hash\\'", "other")
    store.revoke_session(session_of(user), CLIENT)
    found["is revoked"] = store.is_revoked_or_reconciled(session_of(user).sid, str(uuid.uuid4()))
    changed = store.change_password(*stored(store, user), "new")
    assert changed is not None
    found["changed"] = changed
    linked = store.link(
        stored(store, changed)[1],
        (ExternalIdentity("https://accounts.google.com", "2"),),
        provider="google",
        drops_password=False,
        client=CLIENT,
    )
    assert linked is not None
    found["everywhere"] = store.revoke_all_sessions(session_of(linked), CLIENT)
    found["stale"] = store.user(user.id, sid="x")
    found["throttled"] = _locked_for(lambda: store.begin_login("bob@example.com", ada))
    found["sign-ups"] = _locked_for(lambda: store.reserve_sign_up(ada))
    window = Window(300, MARCH.timestamp() + 200 * DAY)
    counted = store.statistics(window)
    found["statistics"] = (counted.users, counted.registrations)
    server.run("UPDATE users SET email_key = NULL", database)
    found["cleaned"] = store.clean_up()
    found["keys"] = server.run("SELECT email_key FROM users", database)
    health = store.database_status.health()
    found["health"] = abs(health.timestamp.timestamp() - now) < 60
    last = store.user(user.id)
    assert last is not None
    found["deleted"] = store.delete_user(*stored(store, last))
    return found


def _locked_for(attempt: Callable[[], object]) -> int:
    """Try until no attempt is left, and tell for how many minutes that is."""
    for _ in range(20):
        try:
            attempt()
        except TooManyAttempts as error:
            return round(error.retry_after / 60)
    raise AssertionError("never locked")


ROWS = [
    user_row(1, createdAt="2026-03-04T05:06:07.5Z", updatedAt="2026-03-04T05:06:07.123Z"),
    user_row(2, email="back\\slash'Ö@example.com", name='a\\b\'c\nd\t{x},"y" \\N NULL'),
    user_row(3, name="NULL"),
    user_row(4, name="\\N"),
]


def test_migrations_and_transfers_do_the_same_whatever_a_session_has_set(
    postgres: Server, make_database: Callable[..., str]
) -> None:
    plain, hostile = [make_database(migrated=False) for _ in range(2)]
    for name in (plain, hostile):
        postgres.run(f"SET ROLE app; {OLD_DDL}{OLD_ROWS}", name)
    # The time zone is not among them: it says what the old server's times mean.
    settings = HOSTILE | {"datestyle": "German, DMY"}
    set_defaults(postgres, f"DATABASE {hostile}", **settings)
    done = [_transfer(postgres, name) for name in (plain, hostile)]
    assert done[0] == done[1]
    postgres.run("; ".join(f"ALTER DATABASE {hostile} RESET {name}" for name in settings))
    with closing(Target(postgres, plain)) as one, closing(Target(postgres, hostile)) as other:
        assert one.users() == other.users()
        assert one.dump("--schema-only") == other.dump("--schema-only")


def _transfer(server: Server, database: str) -> list[object]:
    bring_up_to_date(DatabaseUrl.parse(server.url(database)), DatabaseSettings())
    with closing(Target(server, database)) as target:
        applied, outcomes = target.apply(ROWS)
        verified, differing = target.verify(ROWS)
        return [applied.plan, outcomes, verified, differing, target.export()]


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_of_instances_that_migrate_at_once_each_sees_what_the_others_did(
    postgres: Server, make_database: Callable[..., str], level: str
) -> None:
    name = make_database(migrated=False)
    postgres.run(f"SET ROLE app; {OLD_DDL}{OLD_ROWS}", name)
    set_defaults(postgres, f"DATABASE {name}", default_transaction_isolation=level)
    url = DatabaseUrl.parse(postgres.url(name))
    with ThreadPoolExecutor(4) as instances:
        for started in [
            instances.submit(bring_up_to_date, url, DatabaseSettings(timeout=60)) for _ in range(4)
        ]:
            started.result()


def test_a_time_in_another_style_is_never_read_as_another_day(
    postgres: Server, database: str
) -> None:
    set_defaults(postgres, f"DATABASE {database}", datestyle="German, DMY")
    url = DatabaseUrl.parse(postgres.url(database))
    with closing(Database(url, DatabaseSettings())) as pool:
        assert pool.execute("SELECT timestamptz '2026-03-04 05:06:07.5Z'") == [[MARCH]]
        assert pool.execute("SELECT timestamptz 'infinity', timestamptz '0044-03-15 BC'")[0][0] == (
            "infinity"
        )
        with pool.direct_connection(time.monotonic() + 10) as connection:
            script = "SELECT timestamptz '2026-03-04 05:06:07.5Z'"
            with pytest.raises(Exception, match="could not be read"):
                connection.run_script(script)


def test_a_transaction_that_the_server_ends_is_no_outage_and_its_connection_is_not_used_again(
    postgres: Server, database: str
) -> None:
    if postgres.version >= 17:
        set_defaults(postgres, f"DATABASE {database}", transaction_timeout="200ms")
    with closing(Database(DatabaseUrl.parse(postgres.url(database)), DatabaseSettings())) as pool:
        if postgres.version < 17:  # Nothing there ends transactions like this.
            return
        with pytest.raises(StoreTimeout, match="25P04"):
            pool.execute("SELECT pg_sleep(2)")
        assert not pool.breaker.is_open
        assert pool.counts().total == 0
        assert pool.execute("SELECT 1") == [[1]]


def test_a_session_without_triggers_and_foreign_keys_is_refused(
    postgres: Server, database: str
) -> None:
    set_defaults(postgres, f"DATABASE {database}", session_replication_role="replica")
    with closing(Database(DatabaseUrl.parse(postgres.url(database)), DatabaseSettings())) as pool:
        with pytest.raises(StoreRefused, match="RESET session_replication_role"):
            pool.execute("SELECT 1")
        assert pool.counts().total == 0


@pytest.mark.parametrize("options", ["-c%20search_path%3Dauth", "--search-path=auth"])
def test_a_pooler_that_ignores_the_search_path_is_refused_where_requests_are_served(
    postgres: Server, make_database: Callable[..., str], pgbouncer_program: str, options: str
) -> None:
    name = make_database(migrated=False)
    postgres.run("CREATE SCHEMA auth AUTHORIZATION app; GRANT CREATE ON SCHEMA public TO app", name)
    made = "SELECT DISTINCT schemaname FROM pg_tables WHERE tableowner = 'app'"
    with running_pgbouncer(
        postgres, server_connections=1, ignore_startup_parameters="options"
    ) as ignorant:
        pooled = postgres.url(name, port=ignorant.port, options=options)
        for _ in range(2):
            with closing(postgres_store(DATABASE_URL=pooled, FALLBACK="off")) as store:
                with pytest.raises(StoreRefused, match="options=-c search_path=auth has no effect"):
                    store.user(str(uuid.uuid4()))
                assert postgres.run(made, name) == []
        with pytest.raises(StoreRefused, match="has no effect"):
            bring_up_to_date(DatabaseUrl.parse(pooled), DatabaseSettings())
        assert postgres.run(made, name) == []
        with closing(postgres_store(DATABASE_URL=postgres.url(name, options=options))) as store:
            assert store.user(str(uuid.uuid4())) is None
        assert postgres.run(made, name) == [["auth"]]
        # Past the pooler, migrations reach the schema that requests do not.
        with (
            closing(postgres_store(DATABASE_URL=pooled, FALLBACK="off")) as store,
            pytest.raises(StoreRefused, match="has no effect"),
        ):
            store.user(str(uuid.uuid4()))


def test_what_another_client_of_a_pooler_sets_moves_no_statement_to_another_schema(
    postgres: Server, make_database: Callable[..., str], pgbouncer_program: str
) -> None:
    name = make_database()
    postgres.run(
        "CREATE SCHEMA shadow AUTHORIZATION app; SET ROLE app;"
        "CREATE TABLE shadow.users (LIKE public.users INCLUDING ALL)",
        name,
    )
    with running_pgbouncer(postgres, server_connections=1) as bouncer:
        settings = {"DATABASE_URL": postgres.url(name, port=bouncer.port), "FALLBACK": "off"}
        neighbour = Database(DatabaseUrl.parse(settings["DATABASE_URL"]), DatabaseSettings())
        deadline = time.monotonic() + 60
        with (
            closing(postgres_store(**settings, DATABASE_MAX_IDLE="0")) as store,
            neighbour.direct_connection(deadline) as connection,
        ):
            user = User(str(uuid.uuid4()), "ada@example.com", None, "local")
            assert store.user(user.id) is None
            for path in ("shadow, public", ""):
                connection.run_script(
                    f"SELECT set_config('search_path', '{path}', false),"
                    "set_config('datestyle', 'German, DMY', false)"
                )
                assert store.create_user(user, "hash", client=CLIENT) == store.user(user.id)
    assert postgres.run("SELECT count(*) FROM shadow.users", name) == [[0]]


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ("-c search_path=auth", "auth"),
        ("-csearch_path=auth", "auth"),
        ("-c geqo=off --search_path=auth,public", "auth,public"),
        (r"-c search_path=auth,\ public", "auth, public"),
        (r"-c search_path=a\\b -c SEARCH_PATH=last", "last"),
        ("endpoint=ep-cool-name -c geqo=off", None),
        ("-c", None),
        ("", None),
    ],
)
def test_the_search_path_that_options_set_is_known(options: str, path: str | None) -> None:
    url = DatabaseUrl(host="h", port=1, database="d", user="u", password="p", options=options)
    assert url.search_path == path
