"""Smoke test of a deployment, from signing up to deleting the account.

The temporary user is deleted at the end, even if a step fails.
"""

from __future__ import annotations

import json
import secrets
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from http.cookiejar import CookieJar
from typing import Any
from urllib.parse import urlsplit

from deploy.errors import Failed, NotReady
from shared.formats.strict_json import loads

TIMEOUT = 40.0
"""Seconds for one answer: instance and database may both have to start."""
MAX_ANSWER = 1 << 20
"""Bytes read of one answer."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Answer:
    """An answer; the status is 0 if there was none."""

    status: int
    body: Mapping[str, Any]
    problem: str = ""
    """Why there was no answer, or the error in it."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The functions never redirect, and a password must not follow a redirect."""

    def redirect_request(self, *_: Any) -> None:
        """Refuse every redirect."""


class Probe:
    """A temporary user with a cookie jar."""

    def __init__(self, url: str, domain: str) -> None:
        """Choose a random address and password."""
        self.url = url.rstrip("/")
        self.email = f"probe-{secrets.token_hex(8)}@{domain}"
        self.has_database = True
        self._password = secrets.token_urlsafe(24)
        self._jar = CookieJar()
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(self._jar),
            urllib.request.HTTPSHandler(context=ssl.create_default_context()),
            _NoRedirects(),
        )

    def sign_up(self) -> Answer:
        """Sign up, as the form does."""
        return self.call("POST", "/api/signup", self._credentials | {"name": "Probe"})

    def log_in(self) -> Answer:
        """Log in, as the form does."""
        return self.call("POST", "/api/login", self._credentials)

    def delete(self) -> Answer:
        """Delete the logged-in user."""
        return self.call("DELETE", "/api/account", {"password": self._password})

    @property
    def _credentials(self) -> dict[str, str]:
        return {"email": self.email, "password": self._password}

    def call(self, method: str, path: str, body: Mapping[str, str] | None = None) -> Answer:
        """Send a request; every outcome is an Answer."""
        request = urllib.request.Request(  # noqa: S310  # https or this machine: see check_url
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"} if body is not None else {},
            method=method,
        )
        try:
            with self._opener.open(request, timeout=TIMEOUT) as response:
                return _answer(response.status, response.read(MAX_ANSWER))
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error.code, error.read(MAX_ANSWER))
        except (OSError, HTTPException) as error:
            return Answer(0, {}, f"no answer: {getattr(error, 'reason', None) or error!r}")


def _answer(status: int, content: bytes) -> Answer:
    try:
        body = loads(content or b"{}")
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return Answer(status, {}, "the answer is not a JSON object, so it is not from this service")
    return Answer(status, body, " ".join(str(body.get(k, "")) for k in ("code", "error")).strip())


def check_url(url: str) -> None:
    """Raise NotReady for a URL to which no password may be sent."""
    parts = urlsplit(url)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise NotReady(
            f"The URL {url!r} cannot be tested: use https://…, or http:// on this machine."
        )


def smoke(url: str, say: Say, domain: str = "example.com") -> None:
    """Run every step and report it. Raises Failed at the first failure."""
    check_url(url)
    probe = Probe(url, domain)
    steps = _Steps(probe, say)
    steps.expect("lives", 200, probe.call("GET", "/api/livez"))
    steps.expect("health", 200, health := probe.call("GET", "/api/health"))
    _check_store(probe, health, say)
    is_deleted = False
    try:
        signed_up = probe.sign_up()
        # Only a refusal is certain; after any other failure the user may exist.
        is_deleted = 400 <= signed_up.status < 500
        steps.expect("sign-up", 201, signed_up)
        steps.expect_user("who am I", probe.call("GET", "/api/user"))
        steps.expect("own data", 200, own := probe.call("GET", "/api/account"))
        _say_network(own, say)
        steps.expect("logout", 200, probe.call("POST", "/api/logout"))
        steps.expect("who am I, logged out", 401, probe.call("GET", "/api/user"))
        steps.expect("login", 200, probe.log_in())
        steps.expect_user("who am I, again", probe.call("GET", "/api/user"))
        deleted = probe.delete()
        is_deleted = deleted.status == 204
        steps.expect("deletion", 204, deleted)
    finally:
        if not is_deleted:
            _clean_up(probe, say)
    steps.expect("who am I, deleted", 401, probe.call("GET", "/api/user"))


class _Steps:
    """Reports each step and its duration."""

    def __init__(self, probe: Probe, say: Say) -> None:
        self.probe = probe
        self.say = say
        self.began = time.monotonic()

    def expect(self, step: str, status: int, answer: Answer) -> None:
        milliseconds = round((time.monotonic() - self.began) * 1000)
        self.began = time.monotonic()
        if answer.status == status:
            self.say(f"ok      {step}: {status}, {milliseconds} ms")
            return
        got = answer.status or "nothing"
        self.say(f"FAILED  {step}: {got} instead of {status} ({answer.problem})")
        raise Failed(f"{self.probe.url} failed at: {step}.")

    def expect_user(self, step: str, answer: Answer) -> None:
        self.expect(step, 200, answer)
        if answer.body.get("email") != self.probe.email:
            raise Failed(f"{self.probe.url} failed at: {step}. It answered with another user.")


def _check_store(probe: Probe, health: Answer, say: Say) -> None:
    """Tell where the users are. Raises Failed if that is a database that is not connected."""
    database = health.body.get("database")
    status = database.get("status") if isinstance(database, dict) else None
    if status == "connected":
        return
    # Only a service with a database has a fallback for it.
    if status is None or "fallback" in health.body:
        raise Failed(
            "The service is up, but its database is not connected: see `cause` in its log."
        )
    probe.has_database = False
    say("        the service has no database: it keeps its users in a file (USERS_FILE). If that")
    say("        is not intended, set DATABASE_URL.")


def _say_network(own: Answer, say: Say) -> None:
    """Print the network, by which only the operator can judge TRUSTED_PROXIES."""
    for event in own.body.get("events") or []:
        if event.get("kind") == "signup":
            say(f"        the service sees you at {event.get('client')}. If this is not your")
            say("        network, TRUSTED_PROXIES is wrong.")


def _clean_up(probe: Probe, say: Say) -> None:
    """Delete the user after a failure, if it exists."""
    if probe.delete().status == 204:
        say("        The probe user was deleted.")
        return
    login = probe.log_in()
    if login.status == 401:
        say("        The probe user does not exist.")
    elif login.status == 200 and probe.delete().status == 204:
        say("        The probe user was deleted.")
    else:
        say(f"        The probe user {probe.email} may still exist.")
        if probe.has_database:
            say("        In Postgres:")
            say(f"        DELETE FROM users WHERE email = '{probe.email}';")  # noqa: S608  # for a person
        else:
            say("        Stop the service, and remove the user from its users file.")
