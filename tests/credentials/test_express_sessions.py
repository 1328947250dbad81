"""Who is logged in on the old server stays logged in here, and nobody else is let in by that."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import unquote

import httpx
import pytest

from shared.application import open_store
from shared.credentials.express_sessions import session_id
from shared.credentials.session_tokens import SessionTokens
from shared.credentials.signing import Signing
from shared.errors import NotAuthenticated
from shared.settings import Settings
from tests.support import express
from tests.support.emulator import SECRET, Emulator, running_emulator
from tests.support.express import RECORDED, SECRETS
from tests.support.foreign_objects import trigger
from tests.support.postgres import Server
from tests.support.stores import CLIENT, pass_time, sessions_of

SESSIONS = RECORDED["sessions"]
FIRST, SECOND, *_ = SESSIONS
ADA, GRACE = RECORDED["users"]
LOGGED_OUT = {"message": "Logged out successfully"}
ANYONE = json.dumps({"userId": ADA["id"]})


def _value(cookie: str) -> str:
    return cookie.removeprefix("connect.sid=")


def _get(server: Emulator, cookie: str) -> httpx.Response:
    with server.client() as client:
        return client.get("/api/user", headers={"Cookie": cookie})


def _log_out(server: Emulator, cookie: str) -> httpx.Response:
    with server.client() as client:
        return client.post("/api/logout", headers={"Cookie": cookie})


def _is_refused(response: httpx.Response) -> bool:
    return response.status_code == 401 and "set-cookie" not in response.headers


@pytest.fixture(scope="module")
def moved(postgres: Server, old_database: str) -> Iterator[Emulator]:
    """An emulator on that database."""
    with running_emulator(
        DATABASE_URL=postgres.url(old_database), SESSION_SECRET=SECRETS
    ) as running:
        yield running


# The cookie


@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session["sid"])
def test_each_recorded_cookie_gives_its_sid_under_whichever_secret_signed_it(
    session: dict[str, str],
) -> None:
    value = _value(express.cookie(session))
    for secrets in ((RECORDED["secret"],), SECRETS.split(",")):
        assert session_id(value, secrets) == session["sid"]
        assert session_id(unquote(value), secrets) == session["sid"]


def test_the_recorded_signatures_hold_what_percent_encoding_changes() -> None:
    signatures = "".join(express.cookie(session) for session in SESSIONS)
    assert signatures.count("%2B") > 2
    assert signatures.count("%2F") > 2


@pytest.mark.parametrize(
    "value",
    [
        "",
        "s:",
        "s:.",
        "s%3A",
        "not-signed",
        f"s:{FIRST['sid']}",
        f"s:{FIRST['sid']}.",
        f"s:{FIRST['sid']}.{'A' * 43}",
        f"s:{FIRST['sid']}.{'é' * 43}",
        f"j:{FIRST['sid']}",
        unquote(_value(express.cookie(FIRST))).removeprefix("s:"),
        unquote(_value(express.cookie(FIRST))) + "=",
        unquote(_value(express.cookie(FIRST))) + "\n",
        unquote(_value(express.cookie(FIRST))).replace(FIRST["sid"], SECOND["sid"]),
        _value(express.cookie(FIRST)).replace("%3A", "%253A"),
        _value(express.sign(FIRST["sid"], "another secret")),
        _value(express.sign(FIRST["sid"], "")),
        _value(express.sign("")),
        _value(express.sign("zero\0")),
        _value(express.sign("snowman\N{SNOWMAN}")),
        _value(express.sign("long" * 25_000)),
        "%ff%fe",
        "s:\ud800." + "A" * 43,
        "s%3A" * 25_000,
    ],
)
def test_a_value_that_no_secret_signed_or_no_library_wrote_gives_no_sid(value: str) -> None:
    assert session_id(value, SECRETS.split(",")) is None


def test_without_secrets_nothing_is_proven() -> None:
    assert session_id(_value(express.sign("sid", "")), ()) is None


# The exchange


@pytest.mark.parametrize("session", SESSIONS[2:], ids=lambda session: session["sid"])
def test_each_recorded_cookie_is_exchanged_for_a_session_that_stands_alone(
    moved: Emulator, session: dict[str, str]
) -> None:
    user_id = json.loads(session["sess"])["userId"]
    (user,) = (user for user in RECORDED["users"] if user["id"] == user_id)
    with moved.client() as client:
        response = client.get("/api/user", headers={"Cookie": express.cookie(session)})
        assert response.status_code == 200
        assert response.json() == user | {
            "name": None,
            "provider": "local",
            "emailVerified": None,
        }
        assert response.headers["Set-Cookie"].startswith("session=ey")
        # The old server may still run beside us, and needs its own.
        assert "connect.sid" not in response.headers["Set-Cookie"]
        assert list(client.cookies) == ["session"]
        assert client.get("/api/user").json() == response.json()


@pytest.mark.parametrize(
    "sess",
    [
        "{}",
        "[]",
        "7",
        "null",
        '"userId"',
        '{"cookie": {}, "userId": null}',
        '{"userId": 7}',
        '{"userId": ""}',
        '{"userId": "1749491652721"}',
        json.dumps({"userId": {"id": ADA["id"]}}),
        json.dumps({"userId": f"{ADA['id']}\n"}),
        json.dumps({"userId": "00000000-0000-4000-8000-000000000000"}),
        json.dumps({"user": {"userId": ADA["id"]}}),
        json.dumps({"userId": ADA["id"], "note": "\0"}),
        json.dumps({"userId": ADA["id"], "note": "\ud800"}),
    ],
)
def test_a_session_that_names_no_user_is_nobodys_and_no_error(
    moved: Emulator, postgres: Server, old_database: str, sess: str
) -> None:
    sid = uuid.uuid4().hex
    express.add(postgres, old_database, sid, sess)
    logged = len(postgres.log())
    assert _is_refused(_get(moved, express.sign(sid)))
    assert "type uuid" not in postgres.log()[logged:]
    assert _log_out(moved, express.sign(sid)).json() == LOGGED_OUT


def test_a_session_that_is_nested_too_deeply_for_the_server_is_nobodys(
    moved: Emulator, postgres: Server, old_database: str
) -> None:
    note = f"{'[' * 5000}{']' * 5000}"
    sid = uuid.uuid4().hex
    express.add(postgres, old_database, sid, f'{{"userId": "{ADA["id"]}", "note": {note}}}')
    postgres.run(f"ALTER DATABASE {old_database} SET max_stack_depth = '100kB'")
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{old_database}'"
    postgres.run(end)
    try:
        assert _is_refused(_get(moved, express.sign(sid)))
        assert "stack depth limit exceeded" in postgres.log()
    finally:
        postgres.run(f"ALTER DATABASE {old_database} RESET max_stack_depth")
        postgres.run(end)


def test_an_unknown_sid_is_nobodys_even_if_it_is_sql(moved: Emulator) -> None:
    for sid in ("unknown", "' OR ''='", "x'; DROP TABLE session; --", "%", "$1", "{}", "\\"):
        assert _is_refused(_get(moved, express.sign(sid.replace(" ", "/**/"))))


def test_a_signature_is_needed_for_a_row_that_exists(moved: Emulator) -> None:
    sid = FIRST["sid"]
    signature = express.cookie(SECOND).partition(".")[2].partition(".")[2]
    for value in (sid, f"s:{sid}", f"s%3A{sid}.{signature}", _value(express.sign(sid, "other"))):
        assert _is_refused(_get(moved, f"connect.sid={value}"))


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Auckland", "America/Los_Angeles"])
def test_a_row_is_valid_until_it_expires_in_the_databases_time_zone(
    postgres: Server, database: str, zone: str
) -> None:
    express.install(postgres, database)
    postgres.run(f"ALTER DATABASE {database} SET timezone = '{zone}'")
    express.add(postgres, database, "alive", ANYONE, seconds=60)
    express.add(postgres, database, "expired", ANYONE, seconds=-2)
    with running_emulator(DATABASE_URL=postgres.url(database)) as emulator:
        assert _get(emulator, express.sign("alive")).json()["id"] == ADA["id"]
        assert _is_refused(_get(emulator, express.sign("expired")))


def test_what_ends_a_users_sessions_ends_those_of_the_old_server_too(
    moved: Emulator, postgres: Server, old_database: str
) -> None:
    user_id = str(uuid.uuid4())
    postgres.run(
        f"INSERT INTO users (id, email) VALUES ('{user_id}', 'epoch@example.com')", old_database
    )
    express.add(postgres, old_database, "epoch", json.dumps({"userId": user_id}))
    assert _get(moved, express.sign("epoch")).status_code == 200
    postgres.run(f"UPDATE users SET epoch = epoch + 1 WHERE id = '{user_id}'", old_database)
    assert _is_refused(_get(moved, express.sign("epoch")))


def test_where_our_own_cookie_is_present_the_old_one_is_not_considered(moved: Emulator) -> None:
    assert _is_refused(_get(moved, f"session=x; {express.cookie(FIRST)}"))
    assert _is_refused(_get(moved, f"{express.cookie(FIRST)}; session="))
    ada = _get(moved, express.cookie(FIRST)).cookies["session"]
    both = _get(moved, f"{express.cookie(SECOND)}; session={ada}")
    assert both.json()["id"] == ADA["id"]
    assert "set-cookie" not in both.headers


def test_two_old_cookies_that_differ_are_nobodys_session(moved: Emulator) -> None:
    first, second = express.cookie(FIRST), express.cookie(SECOND)
    for cookies in (f"{first}; {second}", f"{second}; {first}", "connect.sid=x"):
        assert _is_refused(_get(moved, cookies))
    assert _get(moved, f"{first}; {first}").json()["id"] == ADA["id"]


# The logout


def test_a_logout_deletes_the_row_and_clears_both_cookies(
    moved: Emulator, postgres: Server, old_database: str
) -> None:
    for sid in ("mine", "other"):
        express.add(postgres, old_database, sid, ANYONE)
    with moved.client() as client:
        client.cookies.set("connect.sid", _value(express.sign("mine")))
        client.get("/api/user").raise_for_status()
        assert set(client.cookies) == {"connect.sid", "session"}
        response = client.post("/api/logout")
        assert response.json() == LOGGED_OUT
        ours, old = response.headers.get_list("Set-Cookie")
        assert ours.startswith("session=;")
        name, *attributes = old.split("; ")
        assert name == "connect.sid="
        assert {"Max-Age=0", "Path=/", "HttpOnly"} <= set(attributes)
        assert len(attributes) == 4  # And Expires.
    assert _is_refused(_get(moved, express.sign("mine")))
    assert _get(moved, express.sign("other")).status_code == 200
    again = _log_out(moved, express.sign("mine"))
    assert again.json() == LOGGED_OUT


def test_however_often_it_is_exchanged_it_is_one_session_that_ends_as_one(
    moved: Emulator, postgres: Server, old_database: str
) -> None:
    express.add(postgres, old_database, "often", ANYONE)
    cookies = [_get(moved, express.sign("often")).cookies["session"] for _ in range(3)]
    read = SessionTokens(Signing([SECRET])).read
    (sid,) = {read(cookie, time.time()).sid for cookie in cookies}
    assert "often" not in sid
    _log_out(moved, f"session={cookies[0]}")
    # The row is still there: the browser has sent one of its two cookies.
    assert _is_refused(_get(moved, express.sign("often")))
    for cookie in cookies:
        with moved.client() as client:
            response = client.get("/api/account", headers={"Cookie": f"session={cookie}"})
            assert response.status_code == 401
    assert _get(moved, express.cookie(FIRST)).status_code == 200


def test_no_exchange_outlives_the_logout_of_an_earlier_one(postgres: Server, database: str) -> None:
    express.install(postgres, database)
    settings = {"DATABASE_URL": postgres.url(database), "SESSION_SECRET": SECRET}
    now, day = time.time(), 86_400

    with closing(open_store(Settings.from_env(settings))) as store:

        def exchange(at: float) -> str:
            sid = FIRST["sid"]
            _, token = sessions_of(store).current_user(None, at, express_sid=sid)
            assert token is not None
            return token.text

        early, late, last = (exchange(now - days * day) for days in (25, 5, 0))
        _, renewed = sessions_of(store).current_user(early, now)
        assert renewed is not None
        sessions_of(store).log_out([renewed.text], [], client=CLIENT)
        passed = 0.0
        for token, days in ((late, 7), (late, 25), (last, 30)):
            pass_time(store, days * day - 60 - passed)
            passed = days * day - 60
            store.clean_up()
            with pytest.raises(NotAuthenticated):
                sessions_of(store).current_user(token, now + passed)


def test_a_forged_cookie_logs_nobody_out_but_is_cleared(moved: Emulator) -> None:
    forged = express.sign(FIRST["sid"], "another secret")
    response = _log_out(moved, forged)
    assert response.json() == LOGGED_OUT
    assert "connect.sid=;" in response.headers["Set-Cookie"]
    assert _get(moved, express.cookie(FIRST)).status_code == 200


def test_while_the_database_is_away_nothing_is_forgotten(postgres: Server) -> None:
    with running_emulator(
        DATABASE_URL=postgres.url("nothing", port=1), DATABASE_TIMEOUT="2", SESSION_SECRET=SECRETS
    ) as away:
        for response in (_get(away, express.cookie(FIRST)), _log_out(away, express.cookie(FIRST))):
            assert response.status_code == 503
            assert int(response.headers["Retry-After"]) > 0
            assert "set-cookie" not in response.headers
        # What needs no database works without one.
        forged = express.sign(FIRST["sid"], "another secret")
        for cookie in ("", forged):
            assert _is_refused(_get(away, cookie))
            assert _log_out(away, cookie).json() == LOGGED_OUT


def test_where_the_old_server_never_was_its_cookie_is_nobodys(emulator: Emulator) -> None:
    assert _is_refused(_get(emulator, express.sign("sid")))
    assert _log_out(emulator, express.sign("sid")).json() == LOGGED_OUT


def test_switched_off_there_is_neither_exchange_nor_logout_nor_a_statement(
    postgres: Server,
) -> None:
    with running_emulator(
        DATABASE_URL=postgres.url("nothing", port=1),
        SESSION_SECRET=SECRETS,
        EXPRESS_SESSIONS="false",
    ) as emulator:
        assert _is_refused(_get(emulator, express.cookie(FIRST)))
        response = _log_out(emulator, express.cookie(FIRST))
        assert response.json() == LOGGED_OUT
        assert response.headers.get_list("Set-Cookie")[1:] == []


def test_a_table_that_may_not_be_read_is_503_and_the_log_says_why(
    postgres: Server, database: str
) -> None:
    express.install(postgres, database)
    postgres.run("ALTER TABLE session OWNER TO postgres", database)
    with running_emulator(DATABASE_URL=postgres.url(database), SESSION_SECRET=SECRETS) as emulator:
        assert _get(emulator, express.cookie(FIRST)).status_code == 503
        assert _log_out(emulator, express.cookie(FIRST)).status_code == 503
        causes = [line.get("cause", "") for line in emulator.log()]
    assert [cause for cause in causes if cause.startswith("42501")]


def test_a_table_of_another_application_holds_nobodys_session(
    postgres: Server, database: str
) -> None:
    postgres.run(
        'SET ROLE app; CREATE TABLE session (id text PRIMARY KEY, token text, "userId" text)',
        database,
    )
    with running_emulator(DATABASE_URL=postgres.url(database)) as emulator:
        assert _is_refused(_get(emulator, express.sign("sid")))
        assert _log_out(emulator, express.sign("sid")).json() == LOGGED_OUT


def test_a_session_that_a_trigger_keeps_is_not_told_as_logged_out(
    postgres: Server, database: str
) -> None:
    express.install(postgres, database)
    postgres.run(trigger("RETURN NULL;", "BEFORE DELETE", "session"), database)
    with running_emulator(DATABASE_URL=postgres.url(database), SESSION_SECRET=SECRETS) as emulator:
        response = _log_out(emulator, express.cookie(FIRST))
        assert response.status_code == 503
        assert "set-cookie" not in response.headers
        causes = [line.get("cause", "") for line in emulator.log()]
    assert any("a row of session was not deleted" in cause for cause in causes)


def test_the_log_holds_no_sid_and_of_all_these_calls_no_error(moved: Emulator) -> None:
    for session in SESSIONS:
        assert _get(moved, express.cookie(session)).status_code == 200
        assert session["sid"] not in moved.output()
    assert "s%3A" not in moved.output()
    assert [line for line in moved.log() if line["severity"] == "ERROR"] == []
