"""A stranger signs up with somebody's address first: what is left of that when its owner comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.support.google import CLIENT_ID, Providers
from tests.support.in_process import Served, served
from tests.support.mails import token

STRANGERS, OWNERS = "the stranger's password", "a wholly new password"
AWAY = ("X-Forwarded-For", "198.51.100.7")
SETTINGS = {
    "ENVIRONMENT": "development",
    "BCRYPT_ROUNDS": "4",
    "SIGN_IN_BY_MAIL": "true",
    "GOOGLE_CLIENT_ID": CLIENT_ID,
    "TRUSTED_PROXIES": "1",
}


class Stranger(NamedTuple):
    """Who has signed up with somebody's address, and got all that can be got by that."""

    app: Served
    victim: str
    cookies: list[str]
    """Of the sign-up and of a login, where they begin a session."""
    change: str | None
    """The token of a link that gives the account the stranger's own address."""

    @classmethod
    def settled(cls, app: Served, victim: str) -> Stranger:
        person = {"email": victim, "password": STRANGERS, "name": "Stranger"}
        answers = [app.post("/api/signup", person, AWAY), app.post("/api/login", person, AWAY)]
        found = [answer.headers.get("Set-Cookie", "").partition(";")[0] for answer in answers]
        cookies, change = [cookie for cookie in found if cookie], None
        if cookies:
            own = f"stranger.{victim}"
            body = {"newEmail": own, "password": STRANGERS}
            asked = app.post("/api/email", body, AWAY, ("Cookie", cookies[0]))
            assert asked.status_code == 202
            change = token(app, own)
        return cls(app, victim, cookies, change)

    def account(self, cookie: str) -> Any:
        return self.app.send("GET", "/api/account", [AWAY, ("Cookie", cookie)])

    def is_in(self) -> bool:
        """Tell whether anything of it is good for anything still."""
        app = self.app
        if any(self.account(cookie).status_code == 200 for cookie in self.cookies):
            return True
        for cookie in ("session=none", *self.cookies):
            body = {"token": self.change or "none", "password": STRANGERS}
            if app.post("/api/email/verify", body, AWAY, ("Cookie", cookie)).status_code == 200:
                return True
        person = {"email": self.victim, "password": STRANGERS}
        return app.post("/api/login", person, AWAY).status_code == 200


def _reset(app: Served, victim: str, _: Providers) -> Any:
    app.post("/api/password/forgot", {"email": victim})
    body = {"token": token(app, victim), "newPassword": OWNERS}
    assert app.post("/api/password/reset", body).status_code == 200
    return app.post("/api/login", {"email": victim, "password": OWNERS})


def _link(app: Served, victim: str, _: Providers) -> Any:
    app.post("/api/login/mail", {"email": victim})
    return app.post("/api/login/mail/verify", {"token": token(app, victim)})


def _google(app: Served, victim: str, providers: Providers) -> Any:
    given = providers.google_token(email=victim, sub=victim)
    return app.post("/api/auth/google", {"idToken": given})


def _verify(app: Served, victim: str, _: Providers) -> Any:
    """Follow the link that anybody can have sent, as a sign-up has."""
    app.post("/api/email/verification", {"email": victim})
    return app.post("/api/email/verify", {"token": token(app, victim), "password": OWNERS})


def _sign_up(app: Served, victim: str, _: Providers) -> Any:
    return app.post("/api/signup", {"email": victim, "password": OWNERS})


WAYS: dict[str, tuple[str, Callable[[Served, str, Providers], Any], int]] = {
    "resets the password": ("victim1@example.com", _reset, 200),
    "signs in by a link": ("victim2@example.com", _link, 200),
    "signs in with Google, whose address it is": ("victim3@gmail.com", _google, 200),
    "signs in with Google, whose address it is not": ("victim4@example.com", _google, 409),
    "follows the link that proves the address": ("victim5@example.com", _verify, 403),
    "signs up, too": ("victim6@example.com", _sign_up, 409),
}
"""What the owner of the address does, and the answer: 200 where they are in."""


@pytest.mark.parametrize(
    "store_settings",
    ["json", "postgres", pytest.param("fallback", marks=pytest.mark.long)],
    indirect=True,
)
@pytest.mark.parametrize("verification", ["off", "optional", "required"])
def test_nobody_shares_an_account_with_a_stranger_who_was_first(
    store_settings: dict[str, str],
    verification: str,
    providers: Providers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    providers.serve_this_process(monkeypatch)
    settings = SETTINGS | store_settings | {"EMAIL_VERIFICATION": verification}
    has_sessions = verification != "required"
    with served(**settings) as app:
        for way, (victim, come, status) in WAYS.items():
            stranger = Stranger.settled(app, victim)
            assert stranger.is_in() == bool(stranger.cookies) == has_sessions, way
            response = come(app, victim, providers)
            if come is _sign_up and verification == "required":
                status = 201  # As for an address that nobody has.
            assert response.status_code == status, (way, response.text)
            if status != 200:
                # What is the stranger's is not the owner's either, and nothing was proved by it.
                assert "Set-Cookie" not in response.headers, way
                assert stranger.is_in() == has_sessions, way
                for mine in stranger.cookies:
                    assert stranger.account(mine).json["emailVerified"] is False, way
                response = _reset(app, victim, providers)
            assert not stranger.is_in(), way
            cookie = ("Cookie", response.headers["Set-Cookie"].partition(";")[0])
            account: Any = app.send("GET", "/api/account", [cookie]).json
            assert (account["email"], account["emailVerified"]) == (victim, True), way


def test_a_strangers_account_does_not_become_that_of_who_follows_its_link(
    store_settings: dict[str, str],
) -> None:
    """A link that changes the address of an account leads to a mailbox of somebody else."""
    with served(**SETTINGS | store_settings) as app:
        cookies = []
        for email, password in (("stranger@example.com", STRANGERS), ("me@example.com", OWNERS)):
            answer = app.post("/api/signup", {"email": email, "password": password})
            cookies.append(("Cookie", answer.headers["Set-Cookie"].partition(";")[0]))
        strangers, owners = cookies
        body = {"newEmail": "second@example.com", "password": STRANGERS}
        assert app.post("/api/email", body, strangers).status_code == 202
        link = {"token": token(app, "second@example.com")}
        for headers in ([], [owners]):
            for more, code in (({}, "password_required"), ({"password": OWNERS}, "wrong_password")):
                response: Any = app.post("/api/email/verify", link | more, *headers)
                assert (response.status_code, response.json["code"]) == (403, code)
