"""What is done by mail, over HTTP: proving an address, changing it, signing in, and being told."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from shared.model.sessions import FRESH_SECONDS
from shared.model.users import User
from shared.observe.alerts import MAIL_SECONDS
from tests.support.in_process import Served, served
from tests.support.mails import delivered, link, token
from tests.support.stores import CLIENT, TOKENS, user_of
from tests.support.waiting import until

ADA, PASSWORD, OTHER = "ada@example.com", "correct horse battery", "a wholly new password"

ADMIN_TOKEN = "QWRtaW4gb2YgdGhlIG1haWxzLCBhbmQgb2Ygbm9ib2R5IGVsc2U"


@pytest.fixture
def settings() -> dict[str, str]:
    """Further settings."""
    return {}


@pytest.fixture
def app(store_settings: dict[str, str], settings: dict[str, str]) -> Iterator[Served]:
    variables = {
        "ENVIRONMENT": "development",
        "BCRYPT_ROUNDS": "4",
        "SIGN_IN_BY_MAIL": "true",
        "ADMIN_TOKEN": ADMIN_TOKEN,
    }
    with served(**variables | store_settings | settings) as running:
        yield running


def _cookie(response: Any) -> str:
    return str(response.headers["Set-Cookie"].partition(";")[0])


def _sign_up(app: Served, email: str = ADA, **headers: str) -> str:
    body = {"email": email, "password": PASSWORD}
    response = app.post("/api/signup", body, *headers.items())
    assert response.status_code == 201, response.text
    return _cookie(response)


def _user(app: Served, cookie: str) -> Any:
    return app.send("GET", "/api/user", [("Cookie", cookie)]).json


def _post(app: Served, path: str, cookie: str = "", **body: object) -> Any:
    return app.post(path, body, *([("Cookie", cookie)] if cookie else []))


def _log_in(app: Served, password: str = PASSWORD, email: str = ADA) -> Any:
    return _post(app, "/api/login", email=email, password=password)


def test_a_new_user_is_asked_to_prove_the_address_in_the_browsers_language(app: Served) -> None:
    _sign_up(app, **{"Accept-Language": "de-AT,de;q=0.9,en;q=0.5"})
    (mail,) = delivered(app)
    assert mail["To"] == ADA
    assert link(mail)[0] == "verify"
    assert "bestätigen" in mail["Subject"]


def _administrators(app: Served, path: str) -> str:
    return app.send("GET", path, [("Authorization", f"Bearer {ADMIN_TOKEN}")]).text


def _block_delivery(app: Served) -> None:
    folder = app.settings.mail.folder
    assert folder is not None
    folder.write_text("Where the folder should be.")


def test_operators_see_what_waits(app: Served) -> None:
    def metrics() -> str:
        return _administrators(app, "/api/metrics")

    assert "mail_outbox_waiting " not in metrics()  # Nobody has looked yet.
    _block_delivery(app)
    _sign_up(app)
    until(lambda: "mail_outbox_waiting 1.0\n" in metrics())
    assert "\nmail_outbox_oldest_seconds " in metrics()
    away = 'mail_delivery_duration_seconds_count{kind="verification",outcome="away"}'
    assert away in metrics()


def test_strangers_do_not_see_that_a_mail_waits(app: Served) -> None:
    """Or they would learn of an address that it is somebody's, by asking for a mail to it."""
    _block_delivery(app)
    _sign_up(app)
    until(app.application.outbox_status)
    health = app.send("GET", "/api/health").json
    assert health is not None
    assert health.keys() <= {"status", "timestamp", "database", "environment", "fallback"}


def test_the_dashboard_tells_what_waits_where_others_deliver(app: Served) -> None:
    """As in the private service, whose process delivers no mail."""

    def shown() -> dict[str, str]:
        page = _administrators(app, "/api/dashboard")
        assert "No mail is waiting" not in page  # This process knows nothing of that.
        return dict(re.findall("<dt>(.+?)</dt><dd>(.+?)</dd>", page))

    assert shown()["waiting"] == "0"
    assert "the oldest for" not in shown()
    app.store.create_user(User(str(uuid.uuid4()), ADA, None, "local"), "hash")
    for address in (ADA, "nobody@example.com"):
        app.store.mail.ask_for_mail("password_reset", address, locale=None, client=CLIENT)
    assert shown()["waiting"] == "1"
    assert shown()["the oldest for"] == "0 minutes"


def test_what_waits_grows_older_where_nobody_looks(
    app: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An alert that waits for another try would never come where there is none."""
    _block_delivery(app)
    _sign_up(app)
    until(app.application.outbox_status)
    assert "mail_stuck" not in _firing(app)
    later = SimpleNamespace(monotonic=lambda: time.monotonic() + MAIL_SECONDS + 1, time=time.time)
    monkeypatch.setattr("shared.mail.delivery.time", later)
    assert "mail_stuck" in _firing(app)


def _firing(app: Served) -> set[str]:
    return {alert.name for alert in app.application.judge_alerts() if alert.is_firing}


def test_the_session_that_asked_proves_the_address_by_the_link_alone(app: Served) -> None:
    cookie = _sign_up(app)
    assert _user(app, cookie)["emailVerified"] is False
    response = _post(app, "/api/email/verify", cookie, token=token(app, ADA))
    assert (response.status_code, response.json["emailVerified"]) == (200, True)
    assert _user(app, _cookie(response))["emailVerified"] is True


def test_elsewhere_the_link_wants_the_password(app: Served) -> None:
    _sign_up(app)
    given = token(app, ADA)
    response = _post(app, "/api/email/verify", token=given)
    assert (response.status_code, response.json["code"]) == (403, "password_required")
    response = _post(app, "/api/email/verify", token=given, password="wrong")
    assert (response.status_code, response.json["code"]) == (403, "wrong_password")
    strangers = _sign_up(app, "stranger@example.com")
    response = _post(app, "/api/email/verify", strangers, token=given)
    assert response.json["code"] == "password_required"
    response = _post(app, "/api/email/verify", token=given, password=PASSWORD)
    assert (response.status_code, response.json["emailVerified"]) == (200, True)
    assert "Set-Cookie" not in response.headers
    assert _post(app, "/api/email/verify", token=given, password=PASSWORD).status_code == 400


def test_an_address_is_changed_by_a_link_to_the_new_one(app: Served) -> None:
    cookie, new = _sign_up(app), "new@example.com"
    cookie = _cookie(_post(app, "/api/email/verify", cookie, token=token(app, ADA)))
    elsewhere = _cookie(_log_in(app))
    wrong = _post(app, "/api/email", cookie, newEmail=new, password="wrong")
    assert (wrong.status_code, wrong.json["code"]) == (403, "wrong_password")
    asked = _post(app, "/api/email", cookie, newEmail=new, password=PASSWORD)
    assert asked.status_code == 202, asked.text
    assert _log_in(app, email=new).status_code == 401
    response = _post(app, "/api/email/verify", cookie, token=token(app, new))
    assert (response.status_code, response.json["email"]) == (200, new)
    for session, status in ((_cookie(response), 200), (cookie, 401), (elsewhere, 401)):
        account = app.send("GET", "/api/account", [("Cookie", session)])
        assert account.status_code == status
    assert _log_in(app, email=new).status_code == 200
    assert _log_in(app).status_code == 401
    assert delivered(app)[-1]["To"] == ADA


def test_nobody_learns_whether_an_address_is_taken(app: Served) -> None:
    cookie = _sign_up(app)
    _sign_up(app, "owner@example.com")
    answers = [
        _post(app, "/api/email", cookie, newEmail=address, password=PASSWORD)
        for address in ("free@example.com", "owner@example.com")
    ]
    assert {answer.status_code for answer in answers} == {202}
    assert answers[0].data == answers[1].data
    assert delivered(app)[-1]["To"] == "owner@example.com"
    assert "#token" not in str(delivered(app)[-1])


def test_a_link_signs_in_and_drops_what_a_stranger_has_set(app: Served) -> None:
    strangers = _sign_up(app)
    assert _post(app, "/api/login/mail", email=ADA).status_code == 202
    given = token(app, ADA)
    response = _post(app, "/api/login/mail/verify", token=given)
    assert response.status_code == 200, response.text
    owners = _cookie(response)
    assert _post(app, "/api/login/mail/verify", token=given).status_code == 400
    assert _log_in(app).status_code == 401
    for cookie, status in ((strangers, 401), (owners, 200)):
        assert app.send("GET", "/api/account", [("Cookie", cookie)]).status_code == status
    changed = _post(app, "/api/password", owners, newPassword=OTHER)
    assert changed.status_code == 200, changed.text
    assert _log_in(app, OTHER).status_code == 200


def test_who_signed_in_by_a_link_long_ago_is_not_told_to_use_google(app: Served) -> None:
    _sign_up(app)
    _post(app, "/api/login/mail", email=ADA)
    found = _post(app, "/api/login/mail/verify", token=token(app, ADA))
    user, long_ago = user_of(found.json)._replace(epoch=1), time.time() - FRESH_SECONDS - 1
    cookie = f"session={TOKENS.issue(user, long_ago, method='mail').text}"
    response = _post(app, "/api/email", cookie, newEmail="new@example.com")
    assert (response.status_code, response.json["code"]) == (403, "reauthentication_required")
    assert "log out, sign in again" in response.json["error"]
    assert "Google" not in response.json["error"]


@pytest.mark.parametrize(
    "path", ["/api/password/forgot", "/api/email/verification", "/api/login/mail"]
)
def test_who_asks_learns_nothing(app: Served, path: str) -> None:
    _sign_up(app)
    answers = [_post(app, path, email=ADA) for _ in range(5)]
    answers.append(_post(app, path, email="nobody@example.com"))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.data for answer in answers}) == 1
    assert len({tuple(name for name, _ in answer.headers) for answer in answers}) == 1


def test_a_session_that_has_ended_proves_no_account(app: Served) -> None:
    """Nor for who has an old cookie, and a link that came to the wrong mailbox."""
    old = _sign_up(app)
    fresh = _cookie(_log_in(app))
    assert _post(app, "/api/logout", fresh, everywhere=True).status_code == 200
    fresh = _cookie(_log_in(app))
    _post(app, "/api/email", fresh, newEmail="strangers@example.com", password=PASSWORD)
    response = _post(app, "/api/email/verify", old, token=token(app, "strangers@example.com"))
    assert (response.status_code, response.json["code"]) == (403, "password_required")


PURPOSES = {
    "verification": "/api/email/verify",
    "password_reset": "/api/password/reset",
    "login_link": "/api/login/mail/verify",
    "email_change": "/api/email/verify",
}


def test_a_token_is_good_for_its_own_purpose_only(app: Served) -> None:
    cookie = _sign_up(app)
    tokens = {"verification": token(app, ADA)}
    _post(app, "/api/password/forgot", email=ADA)
    tokens["password_reset"] = token(app, ADA)
    _post(app, "/api/login/mail", email=ADA)
    tokens["login_link"] = token(app, ADA)
    _post(app, "/api/email", cookie, newEmail="new@example.com", password=PASSWORD)
    tokens["email_change"] = token(app, "new@example.com")
    for purpose, given in tokens.items():
        for path in {*PURPOSES.values()} - {PURPOSES[purpose]}:
            response = _post(app, path, cookie, token=given, newPassword=OTHER, password=PASSWORD)
            assert (response.status_code, response.json["code"]) == (400, "invalid_mail_token")
        bearer = [("Authorization", f"Bearer {given}"), ("Cookie", f"session={given}")]
        assert app.send("GET", "/api/user", bearer).status_code == 401


class TestRequired:
    """Where an address has to be proved before the first login."""

    @pytest.fixture
    def settings(self) -> dict[str, str]:
        return {"EMAIL_VERIFICATION": "required"}

    def test_a_sign_up_begins_no_session_and_a_taken_address_is_answered_alike(
        self, app: Served
    ) -> None:
        body = {"email": ADA, "password": PASSWORD}
        first, second = app.post("/api/signup", body), app.post("/api/register", body)
        assert (first.status_code, second.status_code) == (201, 201)
        assert first.data == second.data
        assert "Set-Cookie" not in first.headers
        assert [mail["To"] for mail in delivered(app)] == [ADA, ADA]
        assert "#token" not in str(delivered(app)[-1])

    def test_who_is_signed_in_learns_nothing_by_a_sign_up(self, app: Served) -> None:
        """A session that ended where the address was free would tell."""
        app.post("/api/signup", {"email": "me@example.com", "password": PASSWORD})
        given = token(app, "me@example.com")
        assert _post(app, "/api/email/verify", token=given, password=PASSWORD).status_code == 200
        cookie = _cookie(_log_in(app, email="me@example.com"))
        for address in ("free@example.com", "me@example.com"):
            response = _post(app, "/api/signup", cookie, email=address, password=PASSWORD)
            assert (response.status_code, "Set-Cookie" in response.headers) == (201, False)
            account = app.send("GET", "/api/account", [("Cookie", cookie)])
            assert account.status_code == 200, address

    def test_a_login_counts_from_the_proof_on(self, app: Served) -> None:
        app.post("/api/signup", {"email": ADA, "password": PASSWORD})
        early, wrong = _log_in(app), _log_in(app, email="nobody@example.com")
        assert early.status_code == wrong.status_code == 401
        assert early.json["error"] == wrong.json["error"]
        assert "mail" in early.json["error"]
        proved = _post(app, "/api/email/verify", token=token(app, ADA), password=PASSWORD)
        assert proved.status_code == 200
        assert _log_in(app).status_code == 200

    def test_the_owner_of_an_address_takes_it_from_a_stranger_by_a_reset(self, app: Served) -> None:
        app.post("/api/signup", {"email": ADA, "password": "the stranger's own one"})
        _post(app, "/api/password/forgot", email=ADA)
        response = _post(app, "/api/password/reset", token=token(app, ADA), newPassword=OTHER)
        assert response.status_code == 200
        assert _log_in(app, "the stranger's own one").status_code == 401
        assert _log_in(app, OTHER).status_code == 200
