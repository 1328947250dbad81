"""Links of mails over HTTP: of clicks at once one wins, and each opens its own door only."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import pytest

import main
from shared import files
from shared.mail.delivery import PAGES
from shared.model.mails import LIFETIMES, Kind
from tests.support.emulator import ROOT
from tests.support.in_process import Served, served
from tests.support.mails import delivered, token, token_for
from tests.support.waiting import until

PASSWORD, OTHER, SLOWER = "correct horse battery", "a wholly new password", "the slower of two"
CLICKS = 3


@pytest.fixture
def app(store_settings: dict[str, str]) -> Iterator[Served]:
    variables = {
        "ENVIRONMENT": "development",
        "BCRYPT_ROUNDS": "4",
        "SIGN_IN_BY_MAIL": "true",
        "HASH_CONCURRENCY": "2",
        "THREADS": "8",
        # So that an endpoint is there where it could be.
        "GOOGLE_CLIENT_ID": "1234567890-0a1b2c3d4e5f.apps.googleusercontent.com",
        "FIREBASE_PROJECT_ID": "ai-coder-tests",
        "ADMIN_TOKEN": "QWRtaW4gb2YgdGhlIGxpbmtzLCBhbmQgb2Ygbm9ib2R5IGVsc2U",
    }
    with served(**variables | store_settings) as running:
        yield running


class User(NamedTuple):
    """Somebody who has signed up, and their mails."""

    app: Served
    email: str
    cookie: str

    @classmethod
    def new(cls, app: Served, name: str) -> User:
        email = f"{name}@example.com"
        response = app.post("/api/signup", {"email": email, "password": PASSWORD})
        assert response.status_code == 201, response.text
        return cls(app, email, response.headers["Set-Cookie"].partition(";")[0])

    def post(self, path: str, body: dict[str, str], *, signed_in: bool = True) -> Any:
        return self.app.post(path, body, *([("Cookie", self.cookie)] if signed_in else []))

    def prove_address(self) -> None:
        response = self.post("/api/email/verify", {"token": self.link("verification")})
        assert response.status_code == 200, response.text

    def log_in(self, password: str) -> int:
        body = {"email": self.email, "password": password}
        return int(self.app.post("/api/login", body).status_code)

    def link(self, purpose: Kind) -> str:
        """Have a link sent, and give its token."""
        to = self.email
        if purpose == "invitation":  # A command sends it.
            return token_for(self.app.stored_users()[to], purpose)
        if purpose == "email_change":
            to = f"new.{self.email}"
            self.post("/api/email", {"newEmail": to, "password": PASSWORD})
        elif purpose != "verification":  # That one has come with the sign-up.
            paths = {"password_reset": "/api/password/forgot", "login_link": "/api/login/mail"}
            self.app.post(paths[purpose], {"email": to})
        return token(self.app, to)


@contextmanager
def _held_up(app: Served) -> Iterator[Callable[[], int]]:
    """Let nobody change a user until the block ends; what it gives counts those who wait for it."""
    connection, path = app._connection, app.settings.store.users_file
    if connection is None:
        lock = f"{path.resolve()}.lock"

        def waiting() -> int:
            names = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
            return sum(os.path.realpath(name) == lock for name in names) - 1

        with files.locked(path, 5):
            yield waiting
        return

    def blocked() -> int:
        connection.run("SELECT pg_stat_clear_snapshot()")
        ((number,),) = connection.run(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return int(number)

    connection.run("BEGIN")
    connection.run("SELECT FROM users FOR UPDATE")
    try:
        yield blocked
    finally:
        connection.run("COMMIT")


def _at_once(app: Served, acts: Sequence[Callable[[], Any]]) -> list[Any]:
    """Do several things, and have all wait to change the user before one can."""
    with ThreadPoolExecutor(len(acts)) as threads:
        with _held_up(app) as waiting:
            answers = [threads.submit(act) for act in acts]
            until(lambda: waiting() == len(acts))
        return [answer.result() for answer in answers]


WAYS: dict[str, tuple[Kind, bool]] = {
    "verification": ("verification", True),
    "verification, elsewhere": ("verification", False),
    "email_change": ("email_change", True),
    "email_change, elsewhere": ("email_change", False),
    "password_reset": ("password_reset", False),
    "login_link": ("login_link", False),
    "login_link, of a proved address": ("login_link", False),
    "invitation": ("invitation", False),
}
NOTICES = {"password_reset": "password", "invitation": "password", "email_change": "email address"}


def test_each_purpose_is_clicked() -> None:
    assert {purpose for purpose, _ in WAYS.values()} == LIFETIMES.keys()


def test_of_clicks_at_once_one_wins(app: Served) -> None:
    for number, (way, (purpose, in_session)) in enumerate(WAYS.items()):
        user, doors = User.new(app, f"user{number}"), _doors(app)
        if "proved" in way or purpose == "email_change":
            user.prove_address()
        given, path = user.link(purpose), doors[purpose]
        sent = len(delivered(app))

        bodies = [
            {"token": given, "password": PASSWORD, "newPassword": f"{OTHER} {index}"}
            for index in range(CLICKS)
        ]
        answers = _at_once(
            app, [partial(user.post, path, body, signed_in=in_session) for body in bodies]
        )
        statuses = [answer.status_code for answer in answers]
        assert sorted(statuses) == [200, *[400] * (CLICKS - 1)], way
        codes = {answer.json.get("code") for answer in answers}
        assert codes == {None, "invalid_mail_token"}, way
        if purpose == "password_reset":
            logins = [user.log_in(f"{OTHER} {index}") for index in range(CLICKS)]
            assert [status == 200 for status in statuses] == [found == 200 for found in logins]
        told = [mail["Subject"] for mail in delivered(app)[sent:]]
        assert len(told) == (purpose in NOTICES), (way, told)


def test_a_reset_is_refused_where_the_password_changes_while_its_hash_is_computed(
    app: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = User.new(app, "ada")
    user.prove_address()
    given, hasher = user.link("password_reset"), app.application.hasher
    compute = hasher.hash

    def meanwhile(password: str) -> str:
        monkeypatch.undo()
        body = {"currentPassword": PASSWORD, "newPassword": OTHER}
        assert user.post("/api/password", body).status_code == 200
        return compute(password)

    monkeypatch.setattr(hasher, "hash", meanwhile)
    body = {"token": given, "newPassword": SLOWER}
    response = user.post("/api/password/reset", body)
    assert (response.status_code, response.json["code"]) == (400, "invalid_mail_token")
    assert [user.log_in(password) for password in (OTHER, SLOWER)] == [200, 401]


def test_of_a_reset_and_a_change_of_the_password_at_once_one_wins(app: Served) -> None:
    user = User.new(app, "ada")
    user.prove_address()
    given = user.link("password_reset")

    change = {"currentPassword": PASSWORD, "newPassword": OTHER}
    acts = [
        partial(user.post, "/api/password", change),
        partial(user.post, "/api/password/reset", {"token": given, "newPassword": SLOWER}),
    ]
    changed, reset = (answer.status_code == 200 for answer in _at_once(app, acts))
    assert changed is not reset
    for password, counts in ((OTHER, changed), (SLOWER, reset)):
        assert user.log_in(password) == (200 if counts else 401)


def _doors(app: Served) -> dict[Kind, str]:
    """Find where the page sends the token to which the mail of each purpose leads."""
    found: dict[Kind, str] = {}
    for purpose, page in PAGES.items():
        text = app.send("GET", page).text
        (found[purpose],) = re.findall(r'data-does="use" action="([^"]+)"', text)
    return found


def _members(path: str) -> set[str]:
    """Find what an endpoint reads of a body."""
    source = ROOT / "functions" / f"{main.ROUTES[path]}.py"
    return set(re.findall(r'text\("(\w+)"\)', source.read_text())) | {"token"}


def _known(response: Any) -> tuple[int, str]:
    """Give what an answer says of what was sent."""
    is_json = response.content_type.endswith("json")
    return response.status_code, str(response.json.get("code")) if is_json else ""


def test_a_token_is_refused_everywhere_but_where_its_mail_leads(app: Served) -> None:
    """Whatever it is sent as: a member of a body, a cookie, or a bearer's token."""
    users = {purpose: User.new(app, purpose) for purpose in LIFETIMES}
    tokens = {purpose: user.link(purpose) for purpose, user in users.items()}
    doors = _doors(app)
    assert doors.keys() == LIFETIMES.keys()
    assert set(doors.values()) == {path for path in main.ROUTES if _reads_token(path)}
    before = app.contents()

    def tried(path: str, method: str, given: str, user: User) -> list[Any]:
        usual = {"token": given, "password": PASSWORD, "newPassword": OTHER}
        alone = [("Cookie", f"session={given}"), ("Authorization", f"Bearer {given}")]
        everywhere = dict.fromkeys(_members(path), given)
        answers = [app.post(path, everywhere, *alone, method=method)]
        if _reads_token(path):
            answers.append(app.post(path, usual, ("Cookie", user.cookie), method=method))
        return answers

    for path, purpose, method in product(main.ROUTES, LIFETIMES, ("GET", "POST", "DELETE")):
        if doors[purpose] == path:
            continue
        given, user = tokens[purpose], users[purpose]
        garbled = given[:-8] + given[-8:].swapcase()
        assert garbled != given
        for answer, other in zip(
            tried(path, method, given, user), tried(path, method, garbled, user), strict=True
        ):
            case = f"{purpose} at {method} {path}: {answer.text}"
            assert _known(answer) == _known(other), case
            assert answer.status_code < 500, case
            assert user.email not in answer.text, case
            assert "=ey" not in answer.headers.get("Set-Cookie", ""), case
            if _reads_token(path) and method == "POST":
                assert _known(answer) == (400, "invalid_mail_token"), case
    assert app.contents() == before
    for purpose, user in users.items():
        body = {"token": tokens[purpose], "password": PASSWORD, "newPassword": OTHER}
        assert user.post(doors[purpose], body).status_code == 200, purpose


def _reads_token(path: str) -> bool:
    return 'text("token")' in (ROOT / "functions" / f"{main.ROUTES[path]}.py").read_text()
