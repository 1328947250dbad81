"""Constraints and triggers that the operator has added: told as what they are, to the right one.

Each case is a fresh set of rows in one database, whose schema is then put back.
"""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from shared.errors import EmailTaken, StoreFault, StoreRefused
from shared.model.users import ExternalIdentity, User
from shared.store.contract import Store
from tests.support.foreign_objects import cases, trigger
from tests.support.in_process import Served, served
from tests.support.postgres import Server
from tests.support.stores import CLIENT, id_token, stored
from tests.support.transfers import HASH
from tests.support.wire import PASSWORD

LIMITS = {"MAX_LOGIN_ATTEMPTS": "5", "MAX_ACCOUNT_ATTEMPTS": "6", "MAX_CLIENT_ATTEMPTS": "7"}
GOOGLE = ExternalIdentity("https://accounts.google.com", "1")
OTHER = ExternalIdentity("https://accounts.google.com", "2")
ADDRESS = "ada@example.com"


def _trigger(deed: str, when: str = "BEFORE INSERT", table: str = "users") -> tuple[str, str]:
    """Give the SQL that makes a trigger, and the one that drops it."""
    return trigger(deed, when, table), "DROP FUNCTION guard() CASCADE"


def _constraint(definition: str, table: str = "users") -> tuple[str, str]:
    return (
        f"ALTER TABLE {table} ADD CONSTRAINT guard {definition}",
        f"ALTER TABLE {table} DROP CONSTRAINT guard",
    )


def _type(column: str, narrow: str, wide: str) -> tuple[str, str]:
    alter = f"ALTER TABLE users ALTER {column} TYPE"
    return f"{alter} {narrow}", f"{alter} {wide}"


@pytest.fixture(scope="module")
def schema(postgres: Server, make_database: Callable[..., str]) -> str:
    """A database whose schema the tests change and put back."""
    name = make_database()
    postgres.run("CREATE EXTENSION IF NOT EXISTS pgcrypto", name)
    return name


@pytest.fixture
def app(postgres: Server, schema: str) -> Iterator[Served]:
    """The functions, with low limits, and nobody in the database."""
    tables = "users, auth_attempts, auth_events, revoked_sessions"
    with served(DATABASE_URL=postgres.url(schema), **LIMITS) as running:
        running.send("GET", "/api/health")
        postgres.run(f"TRUNCATE {tables} CASCADE", schema)
        yield running


@pytest.fixture
def store(app: Served) -> Store:
    return app.store


@pytest.fixture
def with_sql(postgres: Server, schema: str) -> Callable[[tuple[str, str]], Any]:
    """Change the schema for as long as a block lasts."""

    @contextmanager
    def changed(sql: tuple[str, str]) -> Iterator[None]:
        postgres.run(sql[0], schema)
        try:
            yield
        finally:
            postgres.run(sql[1], schema)

    return changed


def _post(app: Served, path: str, cookie: str = "", method: str = "POST", **body: Any) -> Any:
    headers = [("Cookie", cookie)] if cookie else []
    return app.post(path, body, *headers, method=method)


def _sign_up(app: Served, email: str = ADDRESS, name: str = "Sam") -> str:
    """Sign up, and give the cookie."""
    response = _post(app, "/api/signup", email=email, password=PASSWORD, name=name)
    assert response.status_code == 201, response.text
    return str(response.headers["Set-Cookie"].partition(";")[0])


def _lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


SIGN_UPS = {
    "a column more": (
        ("ALTER TABLE users ADD plan text NOT NULL", "ALTER TABLE users DROP plan"),
        {"sqlstate": "23502", "table": "users", "column": "plan"},
    ),
    "a check": (_constraint("CHECK (name <> 'Eve')"), {"constraint": "guard"}),
    "a unique name": (_constraint("UNIQUE (name)"), {"sqlstate": "23505", "constraint": "guard"}),
    "a unique name at the end": (
        _constraint("UNIQUE (name) DEFERRABLE INITIALLY DEFERRED"),
        {"sqlstate": "23505", "constraint": "guard"},
    ),
    "an exclusion": (_constraint("EXCLUDE (name WITH =)"), {"sqlstate": "23P01"}),
    "a reference": (
        (
            """CREATE TABLE teams (id int PRIMARY KEY); ALTER TABLE users ADD team int DEFAULT 1
            CONSTRAINT guard REFERENCES teams DEFERRABLE INITIALLY DEFERRED""",
            "ALTER TABLE users DROP team; DROP TABLE teams",
        ),
        {"sqlstate": "23503", "constraint": "guard"},
    ),
    "a trigger that raises": (
        _trigger("RAISE 'not for %', NEW.email;"), {"sqlstate": "P0001", "routine": "guard()"}
    ),
    "a trigger that says it is taken": (
        _trigger(
            "RAISE unique_violation USING MESSAGE = NEW.email, CONSTRAINT = 'users_email_key';"
        ),
        {"sqlstate": "23505", "routine": "guard()"},
    ),
    "a trigger that says it is an outage": (
        _trigger("RAISE '%', NEW.email USING ERRCODE = '57P01';"), {"sqlstate": "57P01"}
    ),
    "a trigger that fails": (
        _trigger("INSERT INTO nowhere VALUES (NEW.email); RETURN NEW;"), {"sqlstate": "42P01"}
    ),
    "a trigger that keeps rows out": (_trigger("RETURN NULL;"), {}),
    "a rule": (
        ("CREATE RULE guard AS ON INSERT TO users DO INSTEAD NOTHING", "DROP RULE guard ON users"),
        {"sqlstate": "0A000"},
    ),
    "a generated column": (
        (
            "ALTER TABLE users ADD age int GENERATED ALWAYS AS (1 / (length(name) - 3)) STORED",
            "ALTER TABLE users DROP age",
        ),
        {"sqlstate": "22012", "statement": "create"},
    ),
    "a domain": (
        (
            """CREATE DOMAIN names AS text CONSTRAINT guard CHECK (VALUE <> 'Eve');
            ALTER TABLE users ALTER name TYPE names""",
            "ALTER TABLE users ALTER name TYPE varchar(255); DROP DOMAIN names",
        ),
        {"sqlstate": "23514", "constraint": "guard", "datatype": "names"},
    ),
    "a short password": (
        _type("password", "varchar(20)", "varchar(255)"),
        {"sqlstate": "22001", "table": "users", "column": "password"},
    ),
    "a short name": (_type("name", "char(2)", "varchar(255)"), {"column": "name"}),
    "another type": (
        _type("name", "int USING NULL", "varchar(255)"),
        {"sqlstate": "22P02", "statement": "create"},
    ),
    "a trigger on counts": (_trigger("RETURN NULL;", table="auth_attempts"), {}),
    "a trigger on the audit": (
        _trigger("RAISE 'not for %', NEW.id;", table="auth_events"), {"routine": "guard()"}
    ),
}  # fmt: skip


ALWAYS = (
    "a column more",
    "a unique name at the end",
    "a trigger that says it is taken",
    "a trigger that keeps rows out",
    "a short password",
    "a generated column",
    "a trigger on counts",
)


@pytest.mark.parametrize("case", cases(SIGN_UPS, ALWAYS))
def test_a_sign_up_that_the_schema_refuses_is_a_503_whose_object_the_log_names(
    app: Served,
    with_sql: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    case: str,
) -> None:
    change, named = SIGN_UPS[case]
    if "UNIQUE" in change[0] or "EXCLUDE" in change[0]:
        _sign_up(app, "first@example.com", "Eve")
    before = app.contents()
    capsys.readouterr()
    with with_sql(change):
        response = _post(app, "/api/signup", email=ADDRESS, password=PASSWORD, name="Eve")
    assert (response.status_code, response.json["code"]) == (503, "store_unavailable")
    output = capsys.readouterr().out
    (line,) = [line for line in map(json.loads, output.splitlines()) if line.get("status") == 503]
    assert named.items() <= line.items()
    assert line["cause"]
    assert line["severity"] == "ERROR"
    assert "stack" not in line
    assert ADDRESS not in output
    assert app.contents() == before
    _sign_up(app)


def test_an_address_is_taken_whatever_the_old_servers_constraint_is_called(
    app: Served, postgres: Server, schema: str
) -> None:
    postgres.run("INSERT INTO users (email) VALUES ('old@example.com')", schema)
    postgres.run("UPDATE users SET email_key = NULL", schema)
    rename = "ALTER TABLE users RENAME CONSTRAINT {} TO {}"
    postgres.run(rename.format("users_email_key", "uq_97672ac88f"), schema)
    try:
        response = _post(app, "/api/signup", email="old@example.com", password=PASSWORD)
    finally:
        postgres.run(rename.format("uq_97672ac88f", "users_email_key"), schema)
    assert (response.status_code, response.json["code"]) == (409, "email_taken")


def test_a_password_column_that_pads_keeps_nobody_out(
    app: Served, with_sql: Callable[..., Any]
) -> None:
    with with_sql(_type("password", "char(72)", "varchar(255)")):
        _sign_up(app)
        assert _post(app, "/api/login", email=ADDRESS, password=PASSWORD).status_code == 200


def _counts(postgres: Server, schema: str) -> dict[str, Any]:
    """Give what is counted of failures, and what the audit says of them."""
    left = postgres.run(
        "SELECT key, remaining FROM auth_attempts WHERE key NOT LIKE 'success%' ORDER BY 1", schema
    )
    failed = postgres.run("SELECT count(*) FROM auth_events WHERE kind LIKE '%_failed'", schema)
    return {"left": left, "failed": failed}


REFERENCES = {
    "a reference": "CREATE TABLE snippets (owner uuid CONSTRAINT guard REFERENCES users)",
    "one at the end": "CREATE TABLE snippets (owner uuid CONSTRAINT guard REFERENCES users"
    " DEFERRABLE INITIALLY DEFERRED)",
    "one that restricts": "CREATE TABLE snippets (owner uuid CONSTRAINT guard REFERENCES users"
    " ON DELETE RESTRICT)",
    "one behind another": "CREATE TABLE folders (id int PRIMARY KEY, owner uuid REFERENCES users"
    " ON DELETE CASCADE); CREATE TABLE snippets (owner uuid, folder int CONSTRAINT guard"
    " REFERENCES folders); INSERT INTO folders SELECT 1, id FROM users",
}


@pytest.mark.parametrize("case", cases(REFERENCES, ["one at the end"]))
def test_an_account_that_others_refer_to_is_a_409_and_its_password_is_not_counted_as_wrong(
    app: Served,
    postgres: Server,
    schema: str,
    with_sql: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    case: str,
) -> None:
    cookie = _sign_up(app)
    _post(app, "/api/login", email=ADDRESS, password="wrong")
    before, users = _counts(postgres, schema), app.contents()
    capsys.readouterr()
    row = "INSERT INTO snippets SELECT id FROM users"
    if case == "one behind another":
        row = "INSERT INTO snippets SELECT id, 1 FROM users"
    drop = "DROP TABLE IF EXISTS snippets, folders"
    with with_sql((f"{REFERENCES[case]}; {row}", drop)):
        for _ in range(8):
            response = _post(app, "/api/account", cookie, "DELETE", password=PASSWORD)
            assert (response.status_code, response.json["code"]) == (409, "account_in_use")
            assert "Set-Cookie" not in response.headers
        assert app.contents() == users
        lines = [line for line in _lines(capsys) if line.get("status") == 409]
        assert {(line["constraint"], line["sqlstate"]) for line in lines} == {("guard", "23503")}
        assert not any("stack" in line for line in lines)
        assert {line["severity"] for line in lines} == {"INFO"}
        assert _counts(postgres, schema) == before
        assert app.send("GET", "/api/account", [("Cookie", cookie)]).status_code == 200
        assert _post(app, "/api/login", email=ADDRESS, password=PASSWORD).status_code == 200
    deleted = _post(app, "/api/account", cookie, "DELETE", password=PASSWORD)
    assert deleted.status_code == 204


def test_a_refused_deletion_is_a_success_of_which_there_may_not_be_too_many(
    postgres: Server, schema: str, with_sql: Callable[..., Any]
) -> None:
    with served(DATABASE_URL=postgres.url(schema), MAX_LOGINS="3", **LIMITS) as app:
        postgres.run("TRUNCATE users, auth_attempts CASCADE", schema)
        cookie = _sign_up(app)
        table = f"{REFERENCES['a reference']}; INSERT INTO snippets SELECT id FROM users"
        with with_sql((table, "DROP TABLE snippets")):
            statuses = [
                _post(app, "/api/account", cookie, "DELETE", password=PASSWORD).status_code
                for _ in range(6)
            ]
    assert statuses == [409] * 3 + [429] * 3


def _prove(app: Served, call: str, cookie: str) -> int:
    """Send what needs the password, with the right one, and give the status."""
    match call:
        case "delete":
            response = _post(app, "/api/account", cookie, "DELETE", password=PASSWORD)
        case "change":
            passwords = {"currentPassword": PASSWORD, "newPassword": "another long passphrase"}
            response = _post(app, "/api/password", cookie, **passwords)
        case _:
            response = _post(app, "/api/login", cookie, email=ADDRESS, password=PASSWORD)
    return int(response.status_code)


LATER = {
    "the users": ("BEFORE UPDATE OR DELETE", "users", "RAISE 'no';", ("delete", "change")),
    "nothing": ("BEFORE UPDATE OR DELETE", "users", "RETURN NULL;", ("delete", "change")),
    "the audit": (
        "BEFORE UPDATE", "auth_events", "RAISE 'no';", ("delete", "change", "login")
    ),
    "all of the audit": (
        "BEFORE UPDATE OR DELETE", "auth_events", "RAISE 'no';", ("delete", "change", "login")
    ),
    "an audit without rows": (
        "BEFORE INSERT", "auth_events", "RETURN NULL;", ("delete", "change", "login")
    ),
    "the sessions": ("BEFORE INSERT", "revoked_sessions", "RAISE 'no';", ("login",)),
}  # fmt: skip


@pytest.mark.parametrize("case", cases(LATER, ["the users", "all of the audit"]))
def test_a_right_password_is_not_counted_as_wrong_where_a_later_statement_fails(
    postgres: Server, schema: str, with_sql: Callable[..., Any], case: str
) -> None:
    when, table, deed, calls = LATER[case]
    with served(DATABASE_URL=postgres.url(schema), **LIMITS) as app:
        postgres.run("TRUNCATE users, auth_attempts, auth_events CASCADE", schema)
        cookie = _sign_up(app)
        _post(app, "/api/login", email=ADDRESS, password="wrong")
        before, users = _counts(postgres, schema), app.contents()
        with with_sql(_trigger(deed, when, table)):
            for call in calls:
                assert {_prove(app, call, cookie) for _ in range(8)} == {503}
            assert app.contents() == users
            after = _counts(postgres, schema)
        if case != "all of the audit":  # It has to say that they failed.
            assert after["failed"] == before["failed"]
        assert after["left"] == before["left"]
        assert _post(app, "/api/login", email=ADDRESS, password=PASSWORD).status_code == 200


def test_an_attempt_that_cannot_be_given_back_now_is_given_back_later(
    postgres: Server, schema: str, with_sql: Callable[..., Any]
) -> None:
    hangs = _trigger("PERFORM pg_sleep(9);", "BEFORE UPDATE OR DELETE", "auth_events")
    url = postgres.url(schema)
    with served(DATABASE_URL=url, DATABASE_STATEMENT_TIMEOUT="0.2", **LIMITS) as app:
        postgres.run("TRUNCATE users, auth_attempts, auth_events CASCADE", schema)
        _sign_up(app)
        _post(app, "/api/login", email=ADDRESS, password="wrong")
        before = _counts(postgres, schema)
        with with_sql(hangs):
            response = _post(app, "/api/login", email=ADDRESS, password=PASSWORD)
        assert response.status_code == 503
        assert _counts(postgres, schema) != before
        app.store.clean_up()
        assert _counts(postgres, schema) == before


def _user(email: str = ADDRESS) -> User:
    return User(str(uuid.uuid4()), email, "Sam", "google")


def test_an_identity_is_taken_only_where_somebody_else_has_it(
    store: Store, with_sql: Callable[..., Any]
) -> None:
    first = store.create_user(_user("first@example.com"), None, (GOOGLE,))
    with pytest.raises(EmailTaken):
        store.create_user(_user(), None, (GOOGLE,))
    with with_sql(_constraint("UNIQUE (name)")), pytest.raises(StoreFault, match="guard"):
        store.create_user(_user(), None, (OTHER,))
    with (
        with_sql(_constraint("UNIQUE (user_id)", "identities")),
        pytest.raises(StoreFault, match="guard"),
    ):
        store.link(
            stored(store, first)[1],
            (OTHER,),
            provider="google",
            drops_password=False,
            client=CLIENT,
        )
    match = store.find_external((GOOGLE,), ADDRESS, id_token(), CLIENT)
    assert match is not None
    assert match.credentials.user == first


def test_a_provider_s_user_comes_with_their_identity_or_not_at_all(
    app: Served, with_sql: Callable[..., Any]
) -> None:
    store = app.store
    first = store.create_user(_user("first@example.com"), HASH)
    before = app.contents()
    found = stored(store, first)[1]
    with with_sql(_trigger("RETURN NULL;", table="identities")):
        with pytest.raises(StoreRefused, match="no row came into identities"):
            store.create_user(_user(), None, (GOOGLE,))
        with pytest.raises(StoreRefused, match="no row came into identities"):
            store.link(found, (GOOGLE,), provider="google", drops_password=True, client=CLIENT)
    with (
        with_sql(_trigger("RETURN OLD;", "BEFORE UPDATE")),
        pytest.raises(StoreRefused, match="puts other values into users"),
    ):
        store.link(found, (GOOGLE,), provider="google", drops_password=True, client=CLIENT)
    assert app.contents() == before
    linked = store.link(found, (GOOGLE,), provider="google", drops_password=True, client=CLIENT)
    assert linked is not None
    assert linked.provider == "google"


@pytest.mark.parametrize(
    ("body", "when", "table"),
    [({}, "BEFORE INSERT", "revoked_sessions"), ({"everywhere": True}, "BEFORE UPDATE", "users")],
)
def test_a_logout_that_the_schema_keeps_from_being_written_is_not_told_as_done(
    app: Served, with_sql: Callable[..., Any], body: dict[str, Any], when: str, table: str
) -> None:
    cookie = _sign_up(app)
    with with_sql(_trigger("RETURN NULL;", when, table)):
        assert _post(app, "/api/logout", cookie, **body).status_code == 503
    assert app.send("GET", "/api/account", [("Cookie", cookie)]).status_code == 200
    assert _post(app, "/api/logout", cookie, **body).status_code == 200
    assert app.send("GET", "/api/account", [("Cookie", cookie)]).status_code == 401


CHANGED = {
    "an old row": ("RETURN OLD;", "BEFORE UPDATE"),
    "an old epoch": ("NEW.epoch = OLD.epoch; RETURN NEW;", "BEFORE UPDATE"),
    "no password": ("NEW.password = NULL; RETURN NEW;", "BEFORE INSERT"),
    "another key": ("NEW.email_key = 'other@example.com'; RETURN NEW;", "BEFORE INSERT"),
}


@pytest.mark.parametrize("case", CHANGED)
def test_what_a_trigger_writes_instead_is_not_told_as_done(
    app: Served, with_sql: Callable[..., Any], capsys: pytest.CaptureFixture[str], case: str
) -> None:
    cookie, new = _sign_up(app, "first@example.com"), "another long passphrase"
    before = app.contents()
    capsys.readouterr()
    deed, when = CHANGED[case]
    trigger_name = "CREATE TRIGGER zzz BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION guard()"
    change, back = _trigger(deed, when)
    with with_sql((f"{change}; {trigger_name}" if "INSERT" in when else change, back)):
        if "INSERT" in when:
            responses = [_post(app, "/api/signup", email=ADDRESS, password=PASSWORD)]
        else:
            passwords = {"currentPassword": PASSWORD, "newPassword": new}
            responses = [
                _post(app, "/api/password", cookie, **passwords),
                _post(app, "/api/logout", cookie, everywhere=True),
            ]
    assert {response.status_code for response in responses} == {503}
    causes = [line["cause"] for line in _lines(capsys) if line.get("status") == 503]
    triggers = "guard or zzz" if "INSERT" in when else "guard"
    expected = f"the trigger {triggers} puts other values into users than are written"
    assert set(causes) == {expected}
    assert app.contents() == before
    assert app.send("GET", "/api/account", [("Cookie", cookie)]).status_code == 200


KEEPING = {
    "a soft delete": (
        "UPDATE users SET name = 'gone' WHERE id = OLD.id; RETURN NULL;", "BEFORE DELETE", "delete"
    ),
    "a password that stays": (
        "INSERT INTO identities VALUES ('x', 'y', OLD.id); RETURN NULL;", "BEFORE UPDATE", "change"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", KEEPING)
def test_a_trigger_that_keeps_a_user_is_named_and_undone(
    app: Served, with_sql: Callable[..., Any], capsys: pytest.CaptureFixture[str], case: str
) -> None:
    """Otherwise the operator's tables say that the user is gone, whom we serve all the same."""
    cookie, (deed, when, call) = _sign_up(app), KEEPING[case]
    before = app.contents()
    with with_sql(_trigger(deed, when)):
        capsys.readouterr()
        assert _prove(app, call, cookie) == 503
        (line,) = [line for line in _lines(capsys) if line.get("status") == 503]
        assert line["cause"] == "the row stays as it was in users: the trigger guard keeps it"
        assert (line["table"], line["severity"]) == ("users", "ERROR")
        assert app.contents() == before
    assert _prove(app, "delete", cookie) == 204


def test_a_user_who_changed_meanwhile_is_told_as_that(
    app: Served, store: Store, with_sql: Callable[..., Any]
) -> None:
    """A trigger that lets the row go is not blamed."""
    user = store.create_user(_user(), HASH)
    attempt, found = stored(store, user)
    with with_sql(_trigger("RETURN OLD;", "BEFORE DELETE")):
        later = dataclasses.replace(found, password_hash="another")
        assert not store.delete_user(attempt, later)
