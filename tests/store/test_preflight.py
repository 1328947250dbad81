"""A database is looked at before anything is changed, and what does not fit is left as it is."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from shared.database import migrations
from shared.database.pool import Database
from shared.database.settings import DatabaseSettings
from shared.database.url import DatabaseUrl
from shared.errors import StoreRefused, StoreUnavailable
from shared.store.postgres.preflight import obstacles
from shared.store.postgres.preparation import bring_up_to_date, prepare
from shared.store.postgres.shapes import FUNCTIONS, INDEXES, OLD_TRIGGER, TABLES, TRIGGERS
from tests.support import commands
from tests.support.in_process import served
from tests.support.old_database import OLD_DDL, OLD_ROWS
from tests.support.postgres import PASSWORD, Server
from tests.support.stores import postgres_store

ADA = {"email": "ada@example.com", "password": "correct horse battery staple"}
_OURS = "users is not the old server's table: "
_FOREIGN = {
    # The users table is somebody else's.
    "DROP TABLE users CASCADE; CREATE TABLE users (id serial PRIMARY KEY, email text UNIQUE)": (
        _OURS + "id is integer, not uuid;"
    ),
    "ALTER TABLE users ALTER id DROP DEFAULT, ALTER id TYPE text": _OURS + "id is text, not uuid",
    "ALTER TABLE users DROP password": _OURS + "it has no column password",
    "ALTER TABLE users RENAME name TO full_name": _OURS + "it has no column name",
    "ALTER TABLE users ADD epoch text": _OURS + "epoch is text, not integer",
    "ALTER TABLE users ADD epoch bigint": _OURS + "epoch is bigint, not integer",
    "ALTER TABLE users ADD email_key varchar(40)": _OURS + r"email_key is character varying\(40\)",
    "ALTER TABLE users DROP password, ADD password bytea": _OURS + "password is bytea",
    "ALTER TABLE users ALTER created_at DROP DEFAULT, ALTER created_at TYPE date": (
        _OURS + "created_at is date, not timestamp with time zone"
    ),
    "ALTER TABLE users DROP name, ADD name text GENERATED ALWAYS AS (lower(email)) STORED": (
        _OURS + "name is generated"
    ),
    "ALTER TABLE users RENAME TO people; CREATE VIEW users AS SELECT * FROM people": (
        _OURS + "it is no ordinary table"
    ),
    "DROP TABLE users; CREATE TABLE users (id uuid, email text) PARTITION BY HASH (id)": (
        _OURS + "it is no ordinary table"
    ),
    "CREATE TABLE admins (level integer) INHERITS (users)": _OURS + "it is no ordinary table",
    # It is the old server's, and does not take what we write.
    "ALTER TABLE users DROP CONSTRAINT users_pkey": (
        r"users does not fit: it has no primary key \(id\). ALTER TABLE \w+.users ADD PRIMARY KEY"
    ),
    "ALTER TABLE users DROP CONSTRAINT users_email_key": r"it has no unique \(email\). ALTER TABLE",
    "ALTER TABLE users ALTER password TYPE varchar(60)": (
        r"password is character varying\(60\), not character varying\(255\). "
        r"ALTER TABLE \w+.users ALTER password TYPE character varying\(255\)"
    ),
    "ALTER TABLE users ALTER password TYPE char(72)": r"password is character\(72\)",
    "ALTER TABLE users ALTER name TYPE varchar(10)": r"name is character varying\(10\)",
    "ALTER TABLE users ALTER provider TYPE varchar(8)": r"provider is character varying\(8\)",
    "CREATE EXTENSION citext; ALTER TABLE users ALTER email TYPE citext": (
        r"email is \S*citext, not character varying\(255\)"
    ),
    "ALTER TABLE users ALTER created_at SET DEFAULT timezone('utc', now())": (
        r"created_at has the default .*now\(\)\). ALTER .* SET DEFAULT CURRENT_TIMESTAMP"
    ),
    "ALTER TABLE users SET UNLOGGED": "users does not fit: it is UNLOGGED.* SET LOGGED",
    "ALTER TABLE users ALTER password SET NOT NULL": (
        r"password is NOT NULL. ALTER TABLE \w+.users ALTER password DROP NOT NULL"
    ),
    "DELETE FROM users; ALTER TABLE users ADD tenant uuid NOT NULL": (
        "tenant is NOT NULL and has no default"
    ),
    "ALTER TABLE users ALTER email DROP NOT NULL; INSERT INTO users DEFAULT VALUES": (
        r"email may be NULL. ALTER TABLE \w+.users ALTER email SET NOT NULL; rows that have none"
    ),
    "ALTER TABLE users ADD epoch integer DEFAULT 0": "epoch may be NULL",
    "CREATE RULE still AS ON UPDATE TO users WHERE NEW.created_at IS NULL DO INSTEAD NOTHING": (
        r"^users has the rule still, [^.]*\. DROP RULE still ON \w+.users; [^.]*$"
    ),
    'CREATE RULE "Soft" AS ON DELETE TO users DO INSTEAD UPDATE users SET name = NULL': (
        r'DROP RULE "Soft" ON'
    ),
    # Something depends on the times.
    "CREATE VIEW fresh AS SELECT * FROM users": (
        r"^The view \w+.fresh depends on created_at and updated_at of users,[^.]*\. Drop it, [^.]*$"
    ),
    "CREATE INDEX late ON users USING brin (created_at timestamp_minmax_multi_ops)": (
        r"The index \w+.late depends on created_at"
    ),
    "CREATE FUNCTION is_late(timestamp) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT false';"
    " ALTER TABLE users ADD CONSTRAINT late CHECK (NOT is_late(created_at))": (
        r"The table constraint late on \w+.users depends on created_at"
    ),
    "CREATE MATERIALIZED VIEW days AS SELECT updated_at::date FROM users": (
        r"The materialized view \w+.days depends on updated_at of users"
    ),
    "CREATE POLICY recent ON users USING (created_at > '2020-01-01')": (
        r"The policy recent on \w+.users depends on created_at"
    ),
    "CREATE INDEX by_day ON users ((created_at::date))": r"The index \w+.by_day depends",
    "CREATE INDEX late ON users (name) WHERE created_at > '2020-01-01'": (
        r"The index \w+.late depends on created_at"
    ),
    "ALTER TABLE users ADD day date GENERATED ALWAYS AS (created_at::date) STORED": (
        r"The \S.*\w+.users.day depends on created_at"
    ),
    "CREATE TRIGGER moved BEFORE UPDATE OF created_at ON users FOR EACH ROW"
    " EXECUTE FUNCTION update_updated_at_column()": (
        r"The trigger moved on \w+.users depends on created_at"
    ),
    "CREATE FUNCTION first() RETURNS timestamp LANGUAGE sql"
    " BEGIN ATOMIC SELECT min(created_at) FROM users; END": (
        r"The function \w+.first\(\) depends on created_at"
    ),
    "CREATE TABLE archive (was users)": (
        r"The table column \w+.archive.was depends on the row type of users"
    ),
    "CREATE TABLE archive (were users[])": r"The table column \w+.archive.were depends on",
    "CREATE DOMAIN person AS users; CREATE TABLE archive (was person)": (
        r"The table column \w+.archive.was depends on the row type of users"
    ),
    # A name that we need is taken.
    "CREATE TABLE identities (id uuid, user_id uuid, provider_type text, profile_url text)": (
        "identities is not this service's table: it has no column issuer"
    ),
    "CREATE TABLE identities (issuer text NOT NULL, subject text NOT NULL, user_id uuid NOT NULL,"
    " created_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (issuer, subject))": (
        "its rows would stay when their user goes. ALTER TABLE .* ADD FOREIGN KEY"
    ),
    "CREATE TABLE auth_events (id uuid PRIMARY KEY, payload json)": (
        "auth_events is not this service's table: it has no column at"
    ),
    "CREATE TABLE revoked_sessions (token text)": "revoked_sessions is not this service's table",
    "CREATE TABLE auth_attempts (ip inet)": "auth_attempts is not this service's table",
    "CREATE TABLE import_batches (number integer)": "number is integer, not bigint",
    "CREATE TABLE applied_ops (operation uuid, outcome text, user_id uuid,"
    " applied_at timestamptz DEFAULT now())": (
        r"applied_ops does not fit: it has no primary key \(operation\)"
    ),
    "CREATE VIEW event_hours AS SELECT 1 AS hour": "it is no ordinary table",
    "CREATE SEQUENCE identities": "identities is not this service's table: it is no ordinary table",
    "CREATE TYPE identities AS ENUM ('google')": "A type has the name identities",
    "CREATE TYPE email_key AS ENUM ('google')": "A type has the name email_key",
    "CREATE FUNCTION email_key(a text, b text DEFAULT '') RETURNS text LANGUAGE sql"
    " RETURN a || b": r"The function \w+.email_key\(text, text\) is not this service's",
    "CREATE TABLE other (a text); CREATE INDEX idx_auth_events_at ON other (a)": (
        "idx_auth_events_at is not this service's index"
    ),
    "CREATE INDEX idx_users_email_key ON users (email)": (
        "idx_users_email_key is not this service's index"
    ),
    "CREATE OR REPLACE FUNCTION update_updated_at_column() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN NEW.updated_at = now(); NEW.epoch = NEW.epoch + 1; RETURN NEW; END'": (
        r"The function \w+.update_updated_at_column\(\) is not this service's"
    ),
    "CREATE FUNCTION email_key(text) RETURNS text LANGUAGE sql AS 'SELECT $1'": (
        r"The function \w+.email_key\(text\) is not this service's"
    ),
    "CREATE FUNCTION email_key(varchar) RETURNS text LANGUAGE sql AS 'SELECT md5($1)'": (
        r"The function \w+.email_key\(character varying\) is not this service's"
    ),
    "CREATE FUNCTION set_users_email_key() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN END'": (
        r"The function \w+.set_users_email_key\(\) is not this service's"
    ),
    "CREATE PROCEDURE mark_changed_hour() LANGUAGE sql AS 'SELECT 1'": (
        r"The \w+ \w+.mark_changed_hour\(\) is not this service's"
    ),
    "CREATE FUNCTION keyed() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
    "CREATE TRIGGER set_users_email_key BEFORE INSERT ON users FOR EACH ROW"
    " EXECUTE FUNCTION keyed()": "users has a trigger set_users_email_key that is not",
    # The record is another tool's.
    "CREATE TABLE schema_migrations (version bigint PRIMARY KEY, dirty boolean NOT NULL)": (
        "another tool's: its columns are version bigint, dirty boolean.*CREATE SCHEMA auth"
    ),
    "CREATE TABLE schema_migrations (version varchar NOT NULL PRIMARY KEY);"
    "INSERT INTO schema_migrations VALUES ('20240101000000')": "another tool's: its columns are",
    "CREATE TABLE schema_migrations (version text PRIMARY KEY, name text, checksum text,"
    " applied_at timestamptz DEFAULT now()); INSERT INTO schema_migrations VALUES ('1', '', '')": (
        "another tool's: its columns are"
    ),
    "CREATE TABLE schema_migrations (version integer, name text, checksum text,"
    " applied_at timestamptz DEFAULT now())": r"it has no primary key \(version\)",
    "CREATE VIEW schema_migrations AS SELECT 1 AS version": "another tool's: its columns are",
    # The role's rights.
    "RESET ROLE; ALTER TABLE users OWNER TO postgres; GRANT ALL ON users TO app": (
        "The role app may not alter users, because it does not own it"
    ),
    "RESET ROLE; ALTER FUNCTION update_updated_at_column() OWNER TO postgres": (
        r"The role app may not replace the function \w+.update_updated_at_column\(\)"
    ),
    "ALTER TABLE users ENABLE ROW LEVEL SECURITY; ALTER TABLE users FORCE ROW LEVEL SECURITY": (
        "Row security hides rows of users from the role app. ALTER"
    ),
}
"""What was done to the old server's tables, and what is said of it."""


@pytest.fixture(scope="module")
def refusals(postgres: Server, make_database: Callable[..., str]) -> Iterator[dict[str, str]]:
    """What an adoption of each case said; all of them have left the database as it was."""
    name = make_database(migrated=False)
    with postgres.connect(name) as connection:
        for number, case in enumerate(_FOREIGN):
            connection.run(f"CREATE SCHEMA case_{number} AUTHORIZATION app")
            connection.run(f"SET search_path = case_{number}; SET ROLE app; {OLD_DDL}")
            connection.run("INSERT INTO users (email, password) VALUES ('Ada@example.com', '')")
            connection.run("RESET ROLE" if "EXTENSION" in case else "SET ROLE app")
            connection.run(case)
            connection.run("RESET ROLE")
    before = postgres.dump(name)
    found = {
        case: _refusal(postgres.url(name, options=f"-csearch_path%3Dcase_{number}"))
        for number, case in enumerate(_FOREIGN)
    }
    assert postgres.dump(name) == before
    yield found
    postgres.drop_database(name)


@contextmanager
def _opened(server: Server, name: str, *, user: str = "app") -> Iterator[Database]:
    url = DatabaseUrl.parse(server.url(name, user=user))
    with closing(Database(url, DatabaseSettings())) as opened:
        yield opened


def _refusal(url: str) -> str:
    with pytest.raises(StoreRefused) as refused:
        bring_up_to_date(DatabaseUrl.parse(url), DatabaseSettings())
    return str(refused.value.cause)


def test_what_is_looked_for_is_what_the_migrations_make(postgres: Server, database: str) -> None:
    tables = {name for (name,) in postgres.run(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')", database)}  # fmt: skip
    assert tables == TABLES.keys()
    columns = postgres.run(
        "SELECT relname, attname, format_type(atttypid, atttypmod), NOT attnotnull"
        " FROM pg_attribute JOIN pg_class c ON c.oid = attrelid"
        " WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0"
        " AND NOT attisdropped",
        database,
    )  # fmt: skip
    assert sorted(map(tuple, columns)) == sorted(
        (table, name, column.type, column.is_nullable)
        for table, shape in TABLES.items()
        for name, column in shape.columns.items()
    )
    indexes = postgres.run(
        "SELECT indexname, tablename, split_part(indexdef, ' USING ', 2) FROM pg_indexes"
        " WHERE schemaname = 'public' AND indexname LIKE 'idx_%'", database,
    )  # fmt: skip
    assert {name: found for name, *found in indexes} == {
        name: [index.table, index.definition] for name, index in INDEXES.items()
    }
    keys = postgres.run(
        "SELECT conrelid::regclass::text, array_agg(attname::text ORDER BY contype, attname)"
        " FROM pg_constraint JOIN pg_attribute ON attrelid = conrelid AND attnum = ANY (conkey)"
        " WHERE contype IN ('p', 'u') AND connamespace = 'public'::regnamespace GROUP BY 1",
        database,
    )  # fmt: skip
    assert dict(keys) == {
        name: [column for key in table.keys for column in sorted(key)]
        for name, table in TABLES.items()
    }
    functions = "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
    assert {name for (name,) in postgres.run(functions, database)} == FUNCTIONS.keys()
    references = "SELECT conrelid::regclass::text FROM pg_constraint WHERE contype = 'f'"
    assert {name for (name,) in postgres.run(references, database)} == {
        name for name, table in TABLES.items() if table.follows_users
    }
    triggers = "SELECT tgname, tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal"
    assert dict(postgres.run(triggers, database)) == {
        name: table for name, (_, table) in TRIGGERS.items() if name != OLD_TRIGGER
    }


def test_a_function_is_looked_at_before_each_migration_that_touches_it() -> None:
    touched: dict[str, set[int]] = {}
    for migration in migrations.load():
        sql = migration.sql.replace("EXECUTE FUNCTION", "")
        for name in re.findall(r"FUNCTION (\w+)\(", sql) + re.findall(r"'(\w+)\(\)'", sql):
            touched.setdefault(name, set()).add(migration.version)
    assert touched == {name: set(versions) for name, versions in FUNCTIONS.items()}


REPLACED: dict[int, dict[str, str | None]] = {
    # The state, what was done to it, and what is said.
    8: {
        "CREATE OR REPLACE FUNCTION set_users_email_key() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RETURN NEW; END'": r"set_users_email_key\(\) is not this service's.*run CREATE"
        " FUNCTION set_users_email_key out of migrations/0007_email_keys.sql",
        "RESET ROLE; ALTER FUNCTION mark_changed_hour() OWNER TO postgres": (
            r"may not replace the function public.mark_changed_hour\(\)"
        ),
        "RESET ROLE; ALTER FUNCTION email_key(text) OWNER TO postgres": (
            r"may not replace the function public.email_key\(text\)"
        ),
        "RESET ROLE; CREATE OR REPLACE FUNCTION update_updated_at_column() RETURNS trigger LANGUAGE"
        " plpgsql AS 'BEGIN NEW.name = 1; RETURN NEW; END';"
        "ALTER FUNCTION update_updated_at_column() OWNER TO postgres": None,
        "CREATE FUNCTION email_key(a text, b text DEFAULT '') RETURNS text LANGUAGE sql"
        " RETURN a || b": None,
    },
    2: {
        "CREATE OR REPLACE FUNCTION update_updated_at_column() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN NEW.name = 1; RETURN NEW; END'": (
            r"update_updated_at_column\(\) is not this service's"
        ),
    },
}


@pytest.mark.parametrize("version", REPLACED)
def test_a_function_that_others_have_replaced_since_is_told_before_it_is_touched(
    postgres: Server,
    make_database: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    version: int,
) -> None:
    name = make_database(migrated=False)
    every = migrations.load()
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "load", lambda *_: every[:version])
        bring_up_to_date(DatabaseUrl.parse(postgres.url(name)), DatabaseSettings())
    for change, said in REPLACED[version].items():
        with postgres.connect(name) as connection:
            dump = "SELECT string_agg(pg_get_functiondef(oid), '' ORDER BY oid) FROM pg_proc"
            connection.run(f"BEGIN; SET ROLE app; {change}; RESET ROLE; COMMIT")
            before = connection.run(f"{dump} WHERE pronamespace = 'public'::regnamespace")
            found = _sentences(postgres, name)
            if said is None:
                assert found == [], change
            else:
                assert re.search(said, " ".join(found)), (change, found)
            assert before == connection.run(f"{dump} WHERE pronamespace = 'public'::regnamespace")
            connection.run("ALTER FUNCTION update_updated_at_column() OWNER TO app")
            connection.run("ALTER FUNCTION email_key(text) OWNER TO app")
            connection.run("DROP FUNCTION IF EXISTS email_key(text, text)")
            if version > 6:
                connection.run("ALTER FUNCTION mark_changed_hour() OWNER TO app")
            for made in every[:version]:
                for text in re.findall(
                    r"CREATE (?:OR REPLACE )?FUNCTION.*?\$\$.*?\$\$;", made.sql, re.DOTALL
                ):
                    connection.run(text.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))
    bring_up_to_date(DatabaseUrl.parse(postgres.url(name)), DatabaseSettings())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            "ALTER TABLE users DISABLE TRIGGER USER",
            "is switched off. ALTER TABLE public.users ENABLE TRIGGER set_users_email_key.",
        ),
        (
            "DROP TRIGGER set_users_email_key ON users",
            "is missing. Run its CREATE TRIGGER out of migrations/0002_email_key_and_epoch.sql",
        ),
    ],
)
def test_a_trigger_without_which_nobody_would_be_found_is_told(
    postgres: Server, database: str, change: str, sentence: str
) -> None:
    postgres.run(change, database)
    found = _sentences(postgres, database)
    assert any(sentence in it for it in found if "trigger set_users_email_key of users" in it)


def test_what_others_have_beside_the_old_tables_is_left_as_it_is_and_goes_on_working(
    postgres: Server, make_database: Callable[..., str]
) -> None:
    """Their trigger uses the function that the old server made, as its own table does."""
    name = _old(postgres, make_database)
    postgres.run(
        "CREATE TABLE posts (id integer, updated_at timestamptz);"
        "CREATE TRIGGER touch BEFORE UPDATE ON posts FOR EACH ROW"
        " EXECUTE FUNCTION update_updated_at_column();"
        "INSERT INTO posts VALUES (1, '2000-01-01'); CREATE FUNCTION email_key(a text, b text)"
        " RETURNS text LANGUAGE sql AS 'SELECT $1'; CREATE TABLE comments (email_key uuid);"
        "ALTER TABLE users ADD phone varchar(20), ALTER name TYPE text,"
        " ALTER created_at TYPE timestamp(3), ALTER created_at SET DEFAULT now();"
        f"ALTER DATABASE {name} SET quote_all_identifiers = on",
        name,
    )
    others = postgres.dump(name, "--table=posts", "--table=comments")
    bring_up_to_date(DatabaseUrl.parse(postgres.url(name)), DatabaseSettings())
    assert postgres.dump(name, "--table=posts", "--table=comments") == others
    postgres.run("SET ai_coder.as_given = 'on'; UPDATE posts SET id = 2", name)
    assert postgres.run("SELECT updated_at > '2020-01-01' FROM posts", name) == [[True]]
    assert _sentences(postgres, name) == []


@pytest.mark.parametrize("case", _FOREIGN)
def test_what_does_not_fit_is_named_with_its_remedy_and_nothing_is_changed(
    refusals: dict[str, str], case: str
) -> None:
    assert re.search(_FOREIGN[case], refusals[case], re.DOTALL), refusals[case]


# What is not in the schema itself: each case has a database of its own


def _old(server: Server, make_database: Callable[..., str], *, schema: str = "public") -> str:
    """Give a database as the old server leaves it."""
    name = make_database(migrated=False)
    server.run(f"CREATE SCHEMA IF NOT EXISTS {schema} AUTHORIZATION app", name)
    server.run(f"SET ROLE app; SET search_path = {schema}; {OLD_DDL}", name)
    server.run(f"SET search_path = {schema}; {OLD_ROWS}", name)
    return name


def _refused(server: Server, name: str) -> str:
    """Try to adopt a database, see that this leaves it as it was, and give the reason."""
    before = server.dump(name)
    reason = _refusal(server.url(name))
    assert server.dump(name) == before
    return reason


@pytest.mark.parametrize(
    ("theirs", "ours", "settings"),
    [
        ("public", "app", "CREATE SCHEMA app AUTHORIZATION app"),
        ("auth", "public", ""),
        (
            "public",
            "app",
            "CREATE SCHEMA app AUTHORIZATION app; ALTER DATABASE {} SET search_path = app, public",
        ),
    ],
)
def test_users_in_another_schema_than_new_tables_would_be_made_in_are_asked_about(
    postgres: Server,
    make_database: Callable[..., str],
    tmp_path: Path,
    theirs: str,
    ours: str,
    settings: str,
) -> None:
    name = _old(postgres, make_database, schema=theirs)
    postgres.run(settings.format(name), name)
    reason = _refused(postgres, name)
    assert f"made in the schema {ours}, but users is in the schema {theirs}. Put" in reason
    for remedy in (f"options=-csearch_path={theirs}", f"options=-csearch_path={ours}"):
        assert remedy in reason
    file = tmp_path / "users.json"
    file.write_text("[]")
    for arguments in (
        ("schema", "apply"), ("schema", "plan"), ("schema", "status"),
        ("plan",), ("status",),
    ):  # fmt: skip
        ended = commands.run(postgres.url(name), file, *arguments)
        assert (ended.code, f"is in the schema {theirs}." in ended.error) == (1, True), arguments
    with served(DATABASE_URL=postgres.url(name)) as app:
        assert app.post("/api/login", ADA).status_code == 503
    for schema, users in ((theirs, 7), (ours, 0)):
        url = postgres.url(name, options=f"-csearch_path={schema}")
        bring_up_to_date(DatabaseUrl.parse(url), DatabaseSettings())
        assert postgres.run(f"SELECT count(*) FROM {schema}.users", name) == [[users]]


@pytest.mark.parametrize(
    "columns",
    [
        "version bigint, dirty boolean",
        "version text, name text, checksum text, applied_at timestamptz",
        "version integer, inserted_at timestamp",
    ],
)
def test_requests_are_refused_with_the_reason_where_the_record_is_another_tools(
    postgres: Server, make_database: Callable[..., str], columns: str
) -> None:
    name = make_database(migrated=False)
    postgres.run(f"SET ROLE app; CREATE TABLE schema_migrations ({columns});", name)
    postgres.run("INSERT INTO schema_migrations (version) VALUES ('1')", name)
    store = postgres_store(DATABASE_URL=postgres.url(name))
    with closing(store), pytest.raises(StoreUnavailable) as refused:
        store.user("00000000-0000-4000-8000-000000000001")
    assert "schema_migrations in the schema public is another tool's" in str(refused.value.cause)


def test_migrations_are_not_applied_past_a_pooler_that_serves_another_schema(
    postgres: Server, make_database: Callable[..., str]
) -> None:
    name = make_database(migrated=False)
    postgres.run("CREATE SCHEMA served AUTHORIZATION app", name)
    before = postgres.dump(name)
    deadline = time.monotonic() + 30
    with _opened(postgres, name) as opened, opened.direct_connection(deadline) as pooled:
        pooled.run_script("SET search_path = served")  # As a pooler's connect_query does.
        with pytest.raises(StoreRefused) as refused:
            prepare(opened, pooled, deadline, apply=True)
    assert "served from the schema served, but past the pooler" in str(refused.value.cause)
    assert postgres.dump(name) == before


def test_a_role_that_may_use_no_schema_of_its_path_is_told_the_grant(
    postgres: Server, make_database: Callable[..., str]
) -> None:
    name = make_database(migrated=False)
    postgres.run("REVOKE ALL ON SCHEMA public FROM PUBLIC, app, pg_database_owner", name)
    reason = _refused(postgres, name)
    assert "names no schema that tables can be made in" in reason
    assert "GRANT USAGE, CREATE ON SCHEMA public TO app" in reason
    reason = _refusal(postgres.url(name, options="-csearch_path%3Dnowhere"))
    assert "The search path nowhere names no schema" in reason
    assert "CREATE SCHEMA … AUTHORIZATION app" in reason


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_another_encoding_than_utf8_is_refused(postgres: Server, encoding: str) -> None:
    name = f"in_{encoding.lower()}"
    postgres.run(
        f"CREATE DATABASE {name} OWNER app TEMPLATE template0 ENCODING '{encoding}'"
        " LOCALE 'C' LOCALE_PROVIDER libc"
    )
    assert f"The database is encoded in {encoding}, and must be in UTF8" in _refused(postgres, name)


def test_a_server_that_takes_no_writes_is_named_where_something_is_pending(
    postgres: Server, make_database: Callable[..., str]
) -> None:
    name = _old(postgres, make_database)
    with postgres.read_only(name):
        assert "default_transaction_read_only is on" in _refused(postgres, name)


@pytest.mark.parametrize(
    ("setting", "is_refused"),
    [
        ("ALTER DATABASE {} SET timezone = 'America/New_York'", True),
        ("ALTER ROLE app IN DATABASE {} SET timezone = 'Europe/London'", True),
        ("ALTER DATABASE {} SET timezone = '+02'", True),
        ("ALTER DATABASE {} SET timezone = 'Africa/Abidjan'", False),
        ("ALTER DATABASE {} SET timezone = 'gmt'", False),
    ],
)
def test_times_that_may_not_be_of_utc_are_asked_about_and_stay_the_same_instants(
    postgres: Server, make_database: Callable[..., str], setting: str, is_refused: bool
) -> None:
    name = _old(postgres, make_database)
    postgres.run(setting.format(name), name)
    with postgres.connect(name, user="app") as old_server:
        (row,) = old_server.run(
            "INSERT INTO users (email) VALUES ('now@example.com')"
            " RETURNING EXTRACT(epoch FROM now())"
        )
    if is_refused:
        reason = _refused(postgres, name)
        zone = setting.split("'")[1].replace("+02", "<+02>-02")
        assert f"sessions are in {zone}, not in UTC" in reason
        (remedy,) = re.findall("ALTER TABLE .*?(?=; or)", reason)
        postgres.run(remedy, name)
    bring_up_to_date(DatabaseUrl.parse(postgres.url(name)), DatabaseSettings())
    made = "SELECT EXTRACT(epoch FROM created_at) FROM users WHERE email = 'now@example.com'"
    assert postgres.run(made, name) == [row]


def _sentences(server: Server, name: str, *, user: str = "app") -> list[str]:
    with (
        _opened(server, name, user=user) as opened,
        opened.direct_connection(time.monotonic() + 10) as connection,
    ):
        return [str(obstacle) for obstacle in obstacles(connection)]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("ALTER TABLE users ALTER name TYPE varchar(10)", r"name is character varying\(10\), not"),
        ("DROP INDEX idx_users_email_key", "idx_users_email_key is missing. CREATE UNIQUE"),
        ("DROP TABLE auth_attempts", "auth_attempts is missing .* Restore it"),
        ("ALTER TABLE revoked_sessions DROP CONSTRAINT revoked_sessions_pkey", "no primary key"),
        ("ALTER TABLE auth_events ADD tenant uuid NOT NULL", "tenant is NOT NULL and has no"),
        ("ALTER TABLE identities ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
         "Row security hides rows of identities"),
        ("DROP INDEX idx_users_provider; ALTER TABLE users ADD phone text", None),
    ],
)  # fmt: skip
def test_what_was_changed_after_the_adoption_is_named_too(
    postgres: Server, database: str, change: str, sentence: str | None
) -> None:
    assert _sentences(postgres, database) == []
    postgres.run(change, database)
    found = _sentences(postgres, database)
    assert len(found) == (sentence is not None)
    assert sentence is None or re.search(sentence, found[0]), found


def test_who_may_not_read_is_told_the_grant_and_a_standby_is_looked_at_all_the_same(
    postgres: Server, database: str
) -> None:
    postgres.run(f"CREATE ROLE outsider LOGIN PASSWORD '{PASSWORD}'")
    try:
        (sentence,) = _sentences(postgres, database, user="outsider")
        assert (
            "may not read schema_migrations. GRANT SELECT ON public.schema_migrations" in sentence
        )
    finally:
        postgres.run("DROP ROLE outsider")
    postgres.run(f"REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC, app")
    with postgres.read_only(database):
        assert _sentences(postgres, database) == []


def test_the_look_is_not_compiled_which_would_take_seconds_where_the_catalog_is_large(
    postgres: Server, database: str
) -> None:
    settings = {"log_min_duration": "0", "log_settings": "on", "log_format": "json"}
    postgres.run(f"ALTER DATABASE {database} SET session_preload_libraries = 'auto_explain'")
    postgres.run("LOAD 'auto_explain'; " + "; ".join(
        f"ALTER DATABASE {database} SET auto_explain.{name} = '{value}'"
        for name, value in settings.items()
    ))  # fmt: skip
    postgres.run(f"ALTER DATABASE {database} SET jit = on")
    before = len(postgres.log())
    with (
        closing(Database(DatabaseUrl.parse(postgres.url(database)), DatabaseSettings())) as opened,
        opened.direct_connection(time.monotonic() + 30) as connection,
    ):
        obstacles(connection)
    log = postgres.log()[before:]
    found = [json.JSONDecoder().raw_decode(log, match.end())[0]
             for match in re.finditer(r"duration: [\d.]+ ms  plan:\s*", log)]  # fmt: skip
    (plan,) = [plan for plan in found if "pg_get_indexdef" in plan["Query Text"]]
    assert plan["Settings"]["jit"] == "off"
