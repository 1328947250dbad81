"""Any request at all: no fault, no change by what is refused, and both stores answer alike.

The functions run in this process, on a file and on a real PostgreSQL, and get the same requests.
"""

from __future__ import annotations

import itertools
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass, replace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

import main
from shared.credentials import id_tokens
from shared.credentials.session_tokens import SessionTokens
from shared.credentials.signing import Signing
from shared.model.mails import Kind
from tests.support.emulator import UNLIMITED
from tests.support.in_process import Served, served
from tests.support.mails import token_for
from tests.support.postgres import Server
from tests.support.stores import user_of

PASSWORD = "correct horse battery staple"
ORIGIN = "https://app.example.com"
ADMIN_TOKEN = "Zm9yIHRoZSBhZG1pbmlzdHJhdG9ycyBvZiB0aGUgdGVzdHM"
USUAL_METHODS = {
    name: ["GET"] for name in ("session", "stats", "health", "jwks", "metrics", "dashboard")
}
USUAL_METHODS["account"] = ["DELETE", "GET"]
METHODS = [
    "POST",
    "GET",
    "DELETE",
    "POST",
    "GET",
    "HEAD",
    "PUT",
    "PATCH",
    "OPTIONS",
    "TRACE",
    "FOO",
]
PROBLEM = {"type", "title", "status", "detail", "code", "request_id", "error"}
LINKS: tuple[Kind, ...] = ("verification", "password_reset", "login_link", "email_change")
CHANGES_USER = (
    "logout",
    "password",
    "account",
    "password_reset",
    "email_verify",
    "login_mail_verify",
)
VARYING = {"request_id", "id", "timestamp", "createdAt", "updatedAt", "events"}
"""What an answer says that is another thing on each store."""

_numbers = itertools.count(1)


class Twins:
    """The functions on both stores, and a user who is known to both."""

    def __init__(self, on_json: Served, on_postgres: Served) -> None:
        self.apps = (on_json, on_postgres)
        self.meet()

    def meet(self) -> None:
        """Sign up a user on both, who has a session."""
        self.email = f"known{next(_numbers)}@example.com"
        self.words: list[dict[str, str]] = []
        body = json.dumps({"email": self.email, "password": PASSWORD}).encode()
        for app in self.apps:
            answer = app.send("POST", "/api/signup", [("Content-Type", "application/json")], body)
            assert answer.json is not None
            tokens = SessionTokens(Signing(app.settings.credentials.session_secrets))
            user = user_of(answer.json)
            fresh, stale = (tokens.issue(user, time.time() - age).text for age in (0, 3600))
            words = {"<email>": self.email, "<fresh>": fresh, "<stale>": stale}
            links = {f"<{kind}>": token_for(answer.json, kind) for kind in LINKS}
            self.words.append(words | links)


@pytest.fixture(scope="module")
def twins(
    postgres: Server,
    make_database: Callable[..., str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Twins]:
    folder = tmp_path_factory.mktemp("fuzz")
    common = {
        "ALLOWED_ORIGINS": ORIGIN,
        "ADMIN_TOKEN": ADMIN_TOKEN,
        "GOOGLE_CLIENT_ID": "client.apps.googleusercontent.com",
        "ENVIRONMENT": "development",
        "MAIL_DELIVERY": "self",
        "PUBLIC_URL": "http://127.0.0.1:9",
        "SIGN_IN_BY_MAIL": "true",
        "TRUSTED_PROXIES": "1",
        "USERS_FILE": str(folder / "users.json"),
    }
    common |= UNLIMITED
    absent = {"USERS_FILE": str(folder / "absent.json")}
    url = postgres.url(make_database())
    with (
        patch.multiple(id_tokens, **_providers_nowhere()),
        served(**common) as on_json,
        served(**common | absent, DATABASE_URL=url) as on_postgres,
    ):
        yield Twins(on_json, on_postgres)


def _providers_nowhere() -> dict[str, Any]:
    """Give the providers with certificates that cannot be fetched, so that nobody is asked."""
    return {
        name: replace(value, certificates_url="http://127.0.0.1:1/")
        for name, value in vars(id_tokens).items()
        if is_dataclass(value)
        and not isinstance(value, type)
        and hasattr(value, "certificates_url")
    }


# Requests. `<email>`, `<fresh>`, `<stale>` and each link's kind become the known user's address and
# tokens.

_any_text = st.text(st.characters(), max_size=30)
_strings = st.one_of(
    st.sampled_from(
        [
            "<email>",
            PASSWORD,
            "another horse altogether",
            "short",
            "",
            "x" * 300,
            "é" * 40,
            "local@localhost",
            "<fresh>",
            *(f"<{kind}>" for kind in LINKS),
            "true",
        ]
    ),
    _any_text,
)
_nasty = st.sampled_from(
    ["a\0b", "a\0@example.com", "\ud800", "a\udc00", 10**4000, -(10**400), 2**63, 1e308]
)
_scalars = st.one_of(
    _strings,
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
)
_values = st.one_of(
    _strings,
    _scalars,
    st.recursive(
        _scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_any_text, inner, max_size=3),
        max_leaves=6,
    ),
)
_strange_members = ["id", "provider", "epoch", "admin", "email", "__proto__", "\ud800", ""]


_new_addresses = st.integers(0, 10**9).map(lambda number: f"new{number}@example.com")
_passwords = st.just(PASSWORD)
_links = st.sampled_from([f"<{kind}>" for kind in LINKS])


def _unverifiable_token() -> str:
    """Make an ID token that looks like Google's as long as its signature is not verified."""
    parts: tuple[dict[str, str], ...] = (
        {"alg": "RS256", "kid": "x"},
        {"iss": "https://accounts.google.com"},
        {},
    )
    return ".".join(urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts)


MEMBERS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "signup": {"email": _new_addresses, "password": _passwords, "name": st.just("Ada")},
    "login": {"email": st.just("<email>"), "password": _passwords},
    "google": {"idToken": st.sampled_from(["e30.e30.e30", _unverifiable_token()])},
    "logout": {"everywhere": st.booleans()},
    "session": {},
    "password": {"currentPassword": _passwords, "newPassword": st.just("another horse altogether")},
    "account": {"password": _passwords},
    "password_forgot": {"email": st.just("<email>") | _new_addresses},
    "password_reset": {"token": _links, "newPassword": st.just("another horse altogether")},
    "email": {"newEmail": _new_addresses, "password": _passwords},
    "email_verification": {"email": st.just("<email>") | _new_addresses},
    "email_verify": {"token": _links, "password": _passwords},
    "login_mail": {"email": st.just("<email>") | _new_addresses},
    "login_mail_verify": {"token": _links},
    "mail_delivery": {},
    "migrate": {
        "action": st.sampled_from(["plan", "apply", "verify", "status", "rollback"]),
        "plan": st.just("0" * 64),
        "skip_invalid": st.booleans(),
        "batch": st.just("20260101-000000-abcdef"),
    },
    "stats": {},
    "metrics": {},
    "dashboard": {},
    "health": {},
    "jwks": {},
}
"""What each function's body may have, and sound values of it."""


def _near_valid(members: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    sound = st.fixed_dictionaries(members)
    one_strange = st.tuples(
        sound, st.sampled_from([*members] * 8 + _strange_members), _nasty | _values
    ).map(lambda drawn: drawn[0] | {drawn[1]: drawn[2]})
    strange = dict.fromkeys([*members, *_strange_members], _nasty | _values)
    return st.one_of(sound, one_strange, one_strange, st.fixed_dictionaries({}, optional=strange))


def _encoded(values: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    return st.tuples(values, st.booleans()).map(
        lambda pair: json.dumps(pair[0], ensure_ascii=pair[1]).encode(errors="surrogatepass")
    )


def _bodies(members: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[bytes]:
    return st.one_of(
        _encoded(_near_valid(members)),
        _encoded(_values),
        st.binary(max_size=60),
        st.tuples(st.sampled_from([b"[", b'{"a":', b'{"email":[']), st.integers(0, 3000)).map(
            lambda pair: pair[0] * pair[1]
        ),
        st.sampled_from([b"", b"{}", b"x" * 17_000, b'{"a": 1, "a": 2}']),
    )


# What a server lets through: visible characters, spaces and tabs, and bytes over 127 (RFC 9110).
_header_text = st.text(
    st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f") | st.just("\t"),
    max_size=60,
)


def _header(*likely: str) -> st.SearchStrategy[str]:
    return st.one_of(st.sampled_from(likely), st.sampled_from(likely), _header_text)


_plain_headers = st.fixed_dictionaries(
    {"Content-Type": st.just("application/json")},
    optional={
        "Cookie": st.sampled_from(["session=<fresh>", "session=<stale>"]),
        "Authorization": st.just(f"Bearer {ADMIN_TOKEN}"),
    },
)
_strange_headers = st.fixed_dictionaries(
    {
        "Content-Type": _header(
            *["application/json"] * 8,
            "application/json; charset=utf-8",
            "application/json; charset=\xff",
            "application/x-ndjson",
            "text/plain",
        )
    },
    optional={
        "Cookie": _header(
            *["session=<fresh>", "session=<stale>"] * 3,
            "session=<stale>x",
            "session=<fresh>; session=x",
            'session="<fresh>"',
            "session=e30.e30.e30",
            "connect.sid=s%3Ax.y",
        ),
        "Origin": _header(*["http://localhost", ORIGIN] * 4, "null", "http://["),
        "Sec-Fetch-Site": _header(*["same-origin", "none"] * 4, "cross-site"),
        "Authorization": _header(f"Bearer {ADMIN_TOKEN}", "Bearer <fresh>", "Bearer ", "Basic x"),
        "X-Forwarded-For": _header("203.0.113.9", "10.0.0.1, [2001:db8::1%x]:80", ",,", "1" * 8000),
        "traceparent": _header("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-x"),
        "X-Cloud-Trace-Context": _header("0af7651916cd43dd8448eb211c80319c/1;o=1"),
        "Content-Encoding": _header("identity", "identity", "identity", "gzip"),
        "Transfer-Encoding": st.sampled_from(["chunked", "gzip"]),
        "Host": _header("localhost", "localhost", "localhost:80", "x y", "[", "localhost:x"),
    },
)
_queries = st.sampled_from(
    ["?", "?action=status", "?action=plan", "?action=apply&plan=x", "?action=plan&action=plan"]
)
_lengths = st.sampled_from(["0", "1", "100000", "9" * 5000, "-1", "x"])


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent."""

    method: str
    query: str
    headers: dict[str, str]
    body: bytes
    length: str | None
    """Another Content-Length than the body's own."""

    def sent(self, app: Served, path: str, words: dict[str, str]) -> TestResponse:
        headers, body = list(self.headers.items()), self.body
        for word, meaning in words.items():
            headers = [(name, value.replace(word, meaning)) for name, value in headers]
            body = body.replace(word.encode(), meaning.encode())
        return app.send(self.method, path + self.query, headers, body, length=self.length)


def _requests(name: str) -> st.SearchStrategy[Request]:
    members = MEMBERS[name]
    usual = st.builds(
        Request,
        method=st.sampled_from(USUAL_METHODS.get(name, ["POST"])),
        query=st.just(""),
        headers=_plain_headers,
        body=_encoded(_near_valid(members)),
        length=st.none(),
    )
    any_at_all = st.builds(
        Request,
        method=st.sampled_from(METHODS),
        query=st.just("") | _queries,
        headers=_plain_headers | _strange_headers,
        body=_bodies(members),
        length=st.none() | _lengths,
    )
    return st.one_of(usual, usual, any_at_all)


def test_the_table_has_every_function() -> None:
    assert set(main.ROUTES.values()) <= MEMBERS.keys()


@pytest.mark.parametrize("examples", [30, pytest.param(300, marks=pytest.mark.long)])
@pytest.mark.parametrize(("path", "name"), main.ROUTES.items())
def test_no_request_is_a_fault_or_changes_what_it_may_not_and_both_stores_answer_alike(
    twins: Twins, path: str, name: str, examples: int
) -> None:
    @settings(max_examples=examples)
    @given(_requests(name))
    def check(request: Request) -> None:
        answers = []
        for app, words in zip(twins.apps, twins.words, strict=True):
            before = app.contents()
            answer = request.sent(app, path, words)
            _is_sound(answer, request.method)
            if answer.status_code >= 400 or request.method in ("GET", "HEAD", "OPTIONS"):
                assert app.contents() == before
            answers.append(answer)
        if name in CHANGES_USER and answers[0].status_code in (200, 204):
            twins.meet()
        # Of the database they tell, it alone has an audit, and only into it can be imported.
        if name not in ("health", "stats", "metrics", "dashboard", "migrate"):
            assert _normal(answers[0]) == _normal(answers[1])

    check()


def _is_sound(answer: TestResponse, method: str) -> None:
    assert answer.headers["X-Request-Id"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    if answer.status_code < 400:
        return
    assert answer.content_type == "application/problem+json"
    if method == "HEAD":
        return
    problem = json.loads(answer.data)
    assert answer.status_code < 500 or problem["code"] == "identity_unavailable"
    assert problem.keys() - {"field"} == PROBLEM
    assert problem["status"] == answer.status_code
    assert problem["error"] == problem["detail"] != ""
    assert "Set-Cookie" not in answer.headers


def _normal(answer: TestResponse) -> tuple[int, list[tuple[str, str]], dict[str, Any]]:
    """Give what an answer says, without what must differ."""
    body = json.loads(answer.data) if answer.data else {}
    headers = [
        (name, "some" if name == "Set-Cookie" else value)
        for name, value in answer.headers
        if name not in ("X-Request-Id", "Content-Length")
    ]
    return answer.status_code, headers, {n: v for n, v in body.items() if n not in VARYING}
