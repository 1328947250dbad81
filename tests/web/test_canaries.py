"""No secret that goes in, as a setting or in a request, comes out again anywhere."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import pytest

import main
from shared.mail import delivery
from shared.store.contract import Store
from shared.store.postgres.store import PostgresStore
from tests.support.emulator import Emulator, running_emulator
from tests.support.in_process import Served, served
from tests.support.mail_servers import (
    HOOK_PATH,
    POLITE,
    Answer,
    Behave,
    Certificates,
    Conversation,
    MailHook,
    RudeServer,
    hang,
    hang_up,
)
from tests.support.postgres import USER, Server
from tests.support.relay import Relay
from tests.support.session_keys import make_p256, private_pem
from tests.support.waiting import until

SETTINGS = {
    name: f"canary+{name.lower().replace('_', '-')}+K7qX2mVw9ZrT4bYd8LcN"
    for name in ("SESSION_SECRET", "ADMIN_TOKEN", "DATABASE_PASSWORD", "WEBHOOK", "MAIL_PASSWORD")
}
SECRET = "canary+of+a+request+Hs5Gt7Jk"
"""A password, a token, a cookie: whatever is nobody's business."""
ADDRESS = "canary-address"
"""Of a user, which the user sees and the log does not."""
TRACE = "0af7651916cd43dd8448eb211c80319c"


@cache
def _forms(secret: str) -> set[bytes]:
    """Give a secret as it may come out, beginning at any byte of a base64 text."""
    encoded = {base64.b64encode(secret[i:].encode())[:-4] for i in range(3)}
    return encoded | {secret.encode(), quote(secret).encode(), json.dumps(secret)[1:-1].encode()}


def _assert_without(secrets: set[str], text: bytes, where: str) -> None:
    for secret in secrets:
        assert not any(form in text for form in _forms(secret)), f"{secret} is in {where}"


@pytest.fixture
def database_url(postgres: Server, database: str, relay: Relay) -> Iterator[str]:
    """The URL of a role whose password is a secret of this test, by way of the relay."""
    password = SETTINGS["DATABASE_PASSWORD"]
    postgres.run(f"CREATE ROLE canary LOGIN PASSWORD '{password}' IN ROLE {USER}")
    yield postgres.url(database, port=relay.port, user="canary", password=quote(password))
    postgres.run("DROP ROLE canary")


def _hostile(client: httpx.Client) -> None:
    """Put secrets and addresses wherever a request has room, on every path."""
    session = client.cookies.get("session", "")
    headers = {
        "Authorization": f"Bearer {SECRET}",
        "Cookie": f"session={SECRET}; connect.sid=s%3A{SECRET}.x",
        "X-Forwarded-For": SECRET,
        "User-Agent": SECRET,
        "Referer": f"https://example.com/?{SECRET}",
        "X-Cloud-Trace-Context": f"{SECRET}/1;o=1",
        "traceparent": f"00-{TRACE}-{SECRET[:16]}-01",
        "X-Request-Id": SECRET,
        "Forwarded": SECRET,
    }
    members = {
        "email": f"{ADDRESS}@example.com",
        "password": SECRET,
        "currentPassword": SECRET,
        "newPassword": SECRET + "2",
        "idToken": f"{SECRET}.{SECRET}.{SECRET}",
        "token": f"{SECRET}.{SECRET}.{SECRET}",
        "newEmail": f"{ADDRESS}-new@example.com",
        "name": None,
    }
    bodies = [
        json.dumps(members).encode(),
        json.dumps(members | {"email": f"{ADDRESS}\ud800@example.com"}).encode(),
        json.dumps({SECRET: SECRET}).encode(),
        f'{{"password": "{SECRET}'.encode(),
        f'[{{"email": "{ADDRESS}@example.com", "password": "{SECRET}", "id": 7}}]'.encode(),
    ]
    asked = [(method, body) for method in ("POST", "DELETE") for body in bodies]
    asked += [(method, bodies[0]) for method in ("GET", "PUT")]  # Nobody reads theirs.
    for path in (*main.ROUTES, f"/api/{SECRET}"):
        for method, body in asked:
            for cookie in (headers["Cookie"], f"session={session}"):
                sent = headers | {"Cookie": cookie, "Content-Type": "application/json"}
                url = f"{path}?{SECRET}={SECRET}&action=plan"
                answer = client.request(method, url, headers=sent, content=body)
                shown = answer.content + str(answer.headers).encode()
                _assert_without({SECRET, *SETTINGS.values()}, shown, f"{method} {path}")


def _operate(client: httpx.Client) -> None:
    """Look at all that operators see."""
    headers = {"Authorization": f"Bearer {SETTINGS['ADMIN_TOKEN']}"}
    for path in ("/api/metrics", "/api/dashboard", "/api/stats", "/api/health"):
        answer = client.get(path, headers=headers)
        assert answer.status_code in (200, 503), path
        _assert_without({SECRET, ADDRESS, *SETTINGS.values()}, answer.content, path)
    for action in ("status", "reconcile"):
        answer = client.post("/api/migrate", headers=headers, json={"action": action})
        _assert_without({SECRET, ADDRESS, *SETTINGS.values()}, answer.content, action)
    users = [{"id": "x", "email": f"{ADDRESS}-2@example.com", "password": SECRET}]
    answer = client.post("/api/migrate?action=plan", headers=headers, json=users)
    _assert_without({SECRET, ADDRESS, *SETTINGS.values()}, answer.content, "plan")


def _use(emulator: Emulator) -> None:
    user = {"email": f"{ADDRESS}@example.com", "password": SECRET, "name": "Ada"}
    with emulator.client() as client:
        assert client.post("/api/signup", json=user).status_code in (201, 409)
        assert client.post("/api/login", json=user).status_code in (200, 503)
        assert client.post("/api/login", json=user | {"password": SECRET * 2}).status_code == 401
        _hostile(client)
        _operate(client)


@pytest.mark.parametrize("fallback", ["off", "full"])
def test_on_postgres_no_secret_comes_out_whatever_fails(
    database_url: str, relay: Relay, tmp_path: Path, fallback: str
) -> None:
    key = private_pem(make_p256())
    with running_emulator(
        DATABASE_URL=database_url,
        SESSION_SECRET=SETTINGS["SESSION_SECRET"],
        SESSION_PRIVATE_KEY=key,
        ADMIN_TOKEN=SETTINGS["ADMIN_TOKEN"],
        ALERT_WEBHOOK_URL=f"https://127.0.0.1:9/{SETTINGS['WEBHOOK']}",
        ALERT_FAILED_LOGINS="1",
        GOOGLE_CLIENT_ID="1-a.apps.googleusercontent.com",
        USERS_FILE=str(tmp_path / "users.json"),
        FALLBACK=fallback,
        DATABASE_SLOW_QUERY="0",
        MAIL_URL=f"smtps://me:{quote(SETTINGS['MAIL_PASSWORD'])}@127.0.0.1:9",
        MAIL_FROM="no-reply@example.com",
        PUBLIC_URL="http://127.0.0.1:9",
        SIGN_IN_BY_MAIL="true",
    ) as emulator:
        _use(emulator)
        relay.hang_up = 10**9
        relay.cut()
        with emulator.client() as client:
            user = {"email": f"{ADDRESS}-3@example.com", "password": SECRET}
            assert client.post("/api/signup", json=user).status_code in (201, 503)
            _operate(client)
            sentences = (
                "A query was slow",
                "The database is unreachable",
                "The webhook did not accept an alert",
                "A mail could not be delivered yet",
            )
            until(
                lambda: (
                    client.get("/api/livez")
                    and all(sentence in emulator.output() for sentence in sentences)
                )
            )
        output = emulator.output().encode()
    keys = {line for line in key.splitlines() if "-----" not in line}
    _assert_without({SECRET, ADDRESS, *SETTINGS.values(), *keys}, output, "the log")


def test_on_the_json_store_no_secret_comes_out_also_of_a_damaged_file(tmp_path: Path) -> None:
    users_file = tmp_path / "users.json"
    with running_emulator(
        SESSION_SECRET=SETTINGS["SESSION_SECRET"],
        ADMIN_TOKEN=SETTINGS["ADMIN_TOKEN"],
        USERS_FILE=str(users_file),
    ) as emulator:
        _use(emulator)
        users_file.write_text(f'[{{"email": "{ADDRESS}", "password": "{SECRET}"')
        with emulator.client() as client:
            user = {"email": f"{ADDRESS}@example.com", "password": SECRET}
            assert client.post("/api/login", json=user).status_code == 503
        output = emulator.output().encode()
    _assert_without({SECRET, ADDRESS, *SETTINGS.values()}, output, "the log")


# Mails


HOOK_KEY = "canary+of+a+hook+K7qX2mVw9ZrT4bYd8LcN"
MAIL_USER = "canary-of-smtp"
_TOKEN = re.compile(r"#token=([\w.-]+)")


def _said(conversation: Conversation) -> str:
    """Give all that a client said, on one line, as a mail program reads it."""
    text = b" ".join(conversation.heard).decode().replace("=\r\n", "").replace("=3D", "=")
    return " ".join(text.split())


def _repeating(status: str) -> Behave:
    """Answer with all that was heard: commands, password, recipient, link."""

    def behave(conversation: Conversation) -> None:
        conversation.say(f"{status} {_said(conversation)}\r\n".encode())

    return behave


def _faults() -> Iterator[dict[str, Answer]]:
    for step in ("EHLO", "AUTH", "MAIL", "RCPT", "DATA", "message"):
        yield {step: _repeating("450 4.2.0")}
        yield {step: _repeating("550 5.7.1")}
    yield {"RCPT": _repeating("550 5.1.1")}
    yield {"message": _repeating("550 5.2.1")}
    yield {"message": _repeating("no code")}
    for step in ("greeting", "message"):
        yield {step: hang}
        yield {step: hang_up}


SMTP_FAULTS = list(_faults())
HOOK_FAULTS = [302, 401, 422, 429, 500, 503]


class _Receiver(NamedTuple):
    """A mail server or a hook, its faults, and what it was told."""

    settings: dict[str, str]
    faults: list[Any]
    begin: Callable[[Any], object]
    mend: Callable[[], object]
    told: Callable[[], str]


@contextmanager
def _smtp(certificates: Certificates) -> Iterator[_Receiver]:
    with RudeServer(certificates.context(), {}).running() as server:
        login = f"{MAIL_USER}:{quote(SETTINGS['MAIL_PASSWORD'])}"
        yield _Receiver(
            {"MAIL_URL": f"smtps://{login}@localhost:{server.port}"},
            SMTP_FAULTS,
            begin=server.answers.update,
            mend=lambda: server.answers.update(POLITE),
            told=lambda: " ".join(map(_said, server.conversations)),
        )


@contextmanager
def _hook(certificates: Certificates) -> Iterator[_Receiver]:
    with MailHook(certificates.context()).running() as hook:

        def answer(status: int) -> None:
            hook.status, hook.repeats = status, status != 204

        yield _Receiver(
            {
                "MAIL_URL": hook.url,
                "MAIL_HOOK_SECRET": f"whsec_{base64.b64encode(HOOK_KEY.encode()).decode()}",
            },
            HOOK_FAULTS,
            begin=answer,
            mend=lambda: answer(204),
            told=lambda: " ".join(body.decode() for _, body in hook.received),
        )


def _stored(store: Store, folder: Path) -> tuple[str, str]:
    """Give all that is stored, and what of it has no business with an address."""
    if isinstance(postgres := getattr(store, "_postgres", store), PostgresStore):
        tables = ("users", "identities", "mail_outbox", "auth_attempts", "auth_events")
        everything = " ".join(
            str(row)
            for table in tables
            for row in postgres.database.execute(f"SELECT to_jsonb(t)::text FROM {table} t")
        )
        without = "SELECT (to_jsonb(t) - 'recipient')::text FROM mail_outbox t"
        counts = "SELECT to_jsonb(t)::text FROM auth_attempts t"
        events = "SELECT to_jsonb(t)::text FROM auth_events t"
        rows = [postgres.database.execute(sql) for sql in (without, counts, events)]
        return everything, str(rows)
    paths = [path for path in folder.rglob("*") if path.is_file()]
    mails = [path for path in paths if path.parent.name.endswith(".outbox")]
    found = [json.loads(path.read_bytes()) for path in mails if path.suffix == ".json"]
    assert all(row.pop("recipient") for row in found)
    return " ".join(path.read_text() for path in paths), str([mails, found])


def _make_due(store: Store) -> None:
    if isinstance(found := getattr(store, "_postgres", store), PostgresStore):
        found.database.execute("UPDATE mail_outbox SET due_at = CURRENT_TIMESTAMP")
    else:
        outbox: Any = store.mail._outbox  # type: ignore[attr-defined]
        for row in list(outbox._rows()):
            outbox._write(row | {"due_at": 0})


def _ask_for_mails(app: Served, address: str) -> str:
    """Have mails of each kind that has a link in the outbox; give what was answered."""
    user = {"email": address, "password": SECRET}
    answers = [app.post("/api/signup", user)]
    cookie = ("Cookie", answers[0].headers["Set-Cookie"].partition(";")[0])
    answers += [app.post(f"/api/{path}", user) for path in ("password/forgot", "login/mail")]
    new = {"newEmail": f"new-{address}", "password": SECRET}
    answers.append(app.post("/api/email", new, cookie))
    assert [answer.status_code for answer in answers] == [201, 202, 202, 202]
    return "".join(answer.text for answer in answers[1:])


def _use_link(app: Served, token: str) -> str:
    """Follow a link, twice, on each page; give what was answered but for the user."""
    body = {"token": token, "newPassword": SECRET + "2"}
    answers = [
        app.post(f"/api/{path}", body)
        for path in ("email/verify", "login/mail/verify", "password/reset") * 2
    ]
    assert {answer.status_code for answer in answers} <= {200, 400, 403}
    return "".join(answer.text for answer in answers if answer.status_code != 200)


@pytest.mark.parametrize(
    ("store_settings", "way"),
    [
        ("json", _smtp),
        ("postgres", _hook),
        pytest.param("json", _hook, marks=pytest.mark.long),
        pytest.param("postgres", _smtp, marks=pytest.mark.long),
        pytest.param("fallback", _smtp, marks=pytest.mark.long),
    ],
    indirect=["store_settings"],
)
def test_of_a_mail_nothing_comes_out_whatever_its_server_does_and_says(
    store_settings: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    way: Callable[[Certificates], Any],
) -> None:
    """No token, no address but that of the recipient in its column, no password, no secret."""
    (tmp_path / "certificates").mkdir()
    certificates = Certificates(tmp_path / "certificates")
    monkeypatch.setenv("SSL_CERT_FILE", certificates.roots)
    (folder := tmp_path / "data").mkdir()
    settings = store_settings | {
        "USERS_FILE": str(folder / "users.json"),
        "MAIL_FROM": "no-reply@example.com",
        "MAIL_DELIVERY": "self",
        "PUBLIC_URL": "http://127.0.0.1:9",
        "SIGN_IN_BY_MAIL": "true",
        "DATABASE_SLOW_QUERY": "0",
        "SESSION_SECRET": SETTINGS["SESSION_SECRET"],
        "ADMIN_TOKEN": SETTINGS["ADMIN_TOKEN"],
    }
    admin = [("Authorization", f"Bearer {SETTINGS['ADMIN_TOKEN']}")]
    shown, stored, elsewhere = "", "", ""
    with way(certificates) as receiver, served(**settings, **receiver.settings) as app:
        app.post("/api/signup", {"email": "first@example.com", "password": SECRET})
        assert app.application.deliverer.deliver() == 1
        for number, fault in enumerate(receiver.faults):
            shown += _ask_for_mails(app, f"{ADDRESS}-{number}@example.com")
            receiver.begin(fault)
            with monkeypatch.context() as patch:
                is_hanging = isinstance(fault, dict) and hang in fault.values()
                patch.setattr(delivery, "SEND_SECONDS", 0.5 if is_hanging else 20.0)
                app.application.deliverer.deliver()
            receiver.mend()
            everything, without = _stored(app.store, folder)
            stored, elsewhere = stored + everything, elsewhere + without
            for path in ("/api/metrics", "/api/dashboard", "/api/stats", "/api/health"):
                shown += app.send("GET", path, admin).text
        _make_due(app.store)
        app.application.deliverer.deliver()
        tokens = set(_TOKEN.findall(receiver.told()))
        assert len(tokens) > len(receiver.faults)
        assert not re.search(r"(?<!#token=)eyJ[\w-]+\.eyJ", receiver.told()), "behind # only"
        shown += "".join(_use_link(app, token) for token in sorted(tokens)[:8])
        stored += _stored(app.store, folder)[0]
    log = "".join(capfd.readouterr())
    assert "A mail could not be delivered yet" in log
    assert "A mail was refused" in log
    secrets = {SECRET, HOOK_KEY, HOOK_PATH, MAIL_USER, *SETTINGS.values(), *tokens}
    _assert_without(secrets, stored.encode(), "the store")
    for where, text in (("the log", log), ("answers", shown), ("the outbox", elsewhere)):
        _assert_without(secrets | {ADDRESS}, text.encode(), where)


def test_the_check_finds_a_secret_that_is_encoded() -> None:
    for text in (SECRET, quote(SECRET), base64.b64encode(f"me:{SECRET}".encode()).decode()):
        with pytest.raises(AssertionError):
            _assert_without({SECRET}, text.encode(), "the text")
