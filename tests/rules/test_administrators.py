"""Who may use an endpoint for administrators, over real HTTP, and what the others are told."""

from __future__ import annotations

import contextlib
import hmac
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.credentials.id_tokens import GOOGLE, IdTokens
from shared.errors import AdminRequired
from shared.rules import administrators
from shared.rules.settings import AdministratorSettings
from tests.support.emulator import ROOT, Emulator, running_emulator
from tests.support.forged import FORGED, KEY
from tests.support.google import (
    AUDIENCE,
    SERVICE_ACCOUNT,
    CertificateServer,
    certificate_server,
)
from tests.support.postgres import free_port
from tests.support.waiting import until
from tests.support.wire import exchange

SOURCE = f"{ROOT}/tests/support/admin_functions.py"
TOKEN = "QWRtaW4gb2YgdGhlIHRlc3RzLCBub2JvZHkgZWxzZSBhdCBhbGw"
BY_GOOGLE = {
    "ADMIN_AUDIENCE": AUDIENCE,
    "ADMIN_SERVICE_ACCOUNT": f"other@project.iam.gserviceaccount.com, {SERVICE_ACCOUNT}",
}


@pytest.fixture(scope="module")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CertificateServer]:
    """A server of certificates."""
    with certificate_server(tmp_path_factory.mktemp("google"), KEY) as server:
        yield server


@pytest.fixture(scope="module")
def guarded(
    google: CertificateServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Emulator]:
    """An emulator that takes the admin token and Google's."""
    with running_emulator(
        "routed",
        source=SOURCE,
        ADMIN_TOKEN=TOKEN,
        TEST_CERTIFICATES_URL=google.url,
        SSL_CERT_FILE=str(google.authority.certificate),
        USERS_FILE=str(tmp_path_factory.mktemp("users") / "users.json"),
        **BY_GOOGLE,
    ) as running:
        yield running


def _post(emulator: Emulator, authorization: str | bytes | None) -> httpx.Response:
    if isinstance(authorization, str):
        authorization = authorization.encode()
    headers = {} if authorization is None else {b"Authorization": authorization}
    with emulator.client() as client:
        return client.post("/api/digest", headers=httpx.Headers(headers))


def _log_of(emulator: Emulator, response: httpx.Response) -> dict[str, Any]:
    request_id = response.headers["X-Request-Id"]
    line, *_ = until(lambda: [x for x in emulator.log() if x.get("request_id") == request_id])
    return line


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_admin_token_lets_in_and_is_not_logged(guarded: Emulator, scheme: str) -> None:
    response = _post(guarded, f"{scheme} {TOKEN}")
    assert response.status_code == 200
    assert _log_of(guarded, response)["admin"] == "admin token"
    assert TOKEN not in guarded.output()


def test_googles_token_for_a_configured_service_account_lets_in(guarded: Emulator) -> None:
    token = KEY.token()
    response = _post(guarded, f"Bearer {token}")
    assert response.status_code == 200
    assert _log_of(guarded, response)["admin"] == "Google's subject 109876543210987654321"
    assert token not in guarded.output()


def test_a_scheduler_with_googles_token_has_mails_delivered(
    google: CertificateServer, tmp_path: Path
) -> None:
    with (
        running_emulator(
            source=SOURCE,
            ENVIRONMENT="development",
            TEST_CERTIFICATES_URL=google.url,
            SSL_CERT_FILE=str(google.authority.certificate),
            USERS_FILE=str(tmp_path / "users.json"),
            **BY_GOOGLE,
        ) as emulator,
        emulator.client() as client,
    ):
        for claims, status in (
            ({}, 204),
            ({"email": "evil@project.iam.gserviceaccount.com"}, 404),
            ({"aud": "https://other.example"}, 404),
        ):
            headers = {"Authorization": f"Bearer {KEY.token(claims)}"}
            assert client.post("/api/mail/delivery", headers=headers).status_code == status, claims


def _refused() -> dict[str, str | bytes | None]:
    now = int(time.time())
    wrong: dict[str, dict[str, Any]] = {
        "expired": {"exp": now - 60},
        "not yet issued": {"iat": now + 60},
        "not yet valid": {"nbf": now + 60},
        "wrong audience": {"aud": "https://other.example"},
        "wrong issuer": {"iss": "https://evil.example"},
        "unverified address": {"email_verified": False},
        "address verified in words": {"email_verified": "true"},
    }
    forged = {
        name: f"Bearer {token}"
        for name, token in FORGED.items()
        if 0 < len(token) < 8000 and token.isascii()
    }
    return {
        "no header": None,
        "an empty header": "",
        "no token": "Bearer",
        "a wrong token": f"Bearer {TOKEN[::-1]}",
        "a prefix": f"Bearer {TOKEN[:-1]}",
        "a longer one": f"Bearer {TOKEN}x",
        "two": f"Bearer {TOKEN} {TOKEN}",
        "another scheme": f"Basic {TOKEN}",
        "no scheme": TOKEN,
        "not ASCII": "Bearer é".encode(),
        "not UTF-8": b"Bearer \xff\xfe",
        "8 kB": "Bearer " + "x" * 8000,
        **forged,
        **{name: f"Bearer {KEY.token(claims)}" for name, claims in wrong.items()},
    }


@pytest.mark.parametrize("name", _refused())
def test_without_valid_credentials_the_answer_is_one_401_and_the_cause_is_in_the_log(
    guarded: Emulator, name: str
) -> None:
    response = _post(guarded, _refused()[name])
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="AI-Coder"'
    problem = response.json()
    assert problem.pop("request_id")
    sentence = "Administrator credentials are required"
    assert problem == {
        "type": "about:blank",
        "title": "Unauthorized",
        "status": 401,
        "detail": sentence,
        "error": sentence,
        "code": "admin_required",
    }
    line = _log_of(guarded, response)
    assert line["cause"]
    assert (line["severity"], line["status"]) == ("WARNING", 401)
    assert "stack" not in line


def test_a_megabyte_in_the_header_does_not_reach_the_function(guarded: Emulator) -> None:
    # The server need not read to the end what it refuses.
    with contextlib.suppress(httpx.TransportError):
        assert _post(guarded, "Bearer " + "x" * 1_000_000).status_code in (400, 431)
    assert not [line for line in guarded.log() if line.get("status") == 500]
    assert _post(guarded, f"Bearer {TOKEN}").status_code == 200


def test_a_genuine_token_for_another_account_is_403(guarded: Emulator) -> None:
    for email in ("evil@project.iam.gserviceaccount.com", SERVICE_ACCOUNT.upper()):
        response = _post(guarded, f"Bearer {KEY.token({'email': email})}")
        assert response.status_code == 403
        assert response.json()["code"] == "not_admin"
        assert email not in response.text
        assert "109876543210987654321" in _log_of(guarded, response)["cause"]


def test_credentials_come_before_the_body_and_the_method_before_both(guarded: Emulator) -> None:
    # Nothing but the head is sent, so what waits for the body gets no answer.
    rest = " /api/digest HTTP/1.1\r\nHost: x\r\nContent-Length: 200000000\r\n"
    assert exchange(guarded, f"POST{rest}\r\n".encode()).startswith(b"HTTP/1.1 401 ")
    assert exchange(guarded, f"PUT{rest}\r\n".encode()).startswith(b"HTTP/1.1 405 ")
    rest += "Origin: https://evil.example\r\n"
    assert exchange(guarded, f"POST{rest}\r\n".encode()).startswith(b"HTTP/1.1 403 ")


def test_without_an_administrator_the_endpoint_is_an_unknown_path(tmp_path: Path) -> None:
    with (
        running_emulator("routed", source=SOURCE, USERS_FILE=str(tmp_path / "u.json")) as emulator,
        emulator.client(headers={"Authorization": f"Bearer {TOKEN}"}) as client,
    ):
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "FOO"):
            answers = [
                client.request(method, path, content=b"{}", headers={"Origin": origin})
                for path in ("/api/digest", "/api/nothing")
                for origin in ("", "https://evil.example")
            ]
            assert {answer.status_code for answer in answers} == {404}
            assert len({_normal(answer) for answer in answers}) == 1


def test_without_certificates_googles_token_is_503_and_the_admin_token_goes_on(
    tmp_path: Path,
) -> None:
    nobody = f"https://localhost:{free_port()}/certs"
    with running_emulator(
        "routed",
        source=SOURCE,
        ADMIN_TOKEN=TOKEN,
        TEST_CERTIFICATES_URL=nobody,
        USERS_FILE=str(tmp_path / "users.json"),
        **BY_GOOGLE,
    ) as emulator:
        for _ in range(2):
            response = _post(emulator, f"Bearer {KEY.token()}")
            assert response.status_code == 503
            assert response.headers["Retry-After"] == "10"
            assert response.json()["code"] == "identity_unavailable"
            assert "Refused" not in response.text
            assert "ConnectionRefusedError" in _log_of(emulator, response)["cause"]
        assert _post(emulator, f"Bearer {TOKEN}").status_code == 200
        assert _post(emulator, "Bearer garbage").status_code == 401


@pytest.mark.parametrize(
    ("settings", "admin_token", "google_token"),
    [({"ADMIN_TOKEN": TOKEN}, 200, 401), (BY_GOOGLE, 401, 200)],
)
def test_a_kind_of_credentials_that_is_not_configured_is_worth_nothing(
    tmp_path: Path,
    google: CertificateServer,
    settings: dict[str, str],
    admin_token: int,
    google_token: int,
) -> None:
    with running_emulator(
        "routed",
        source=SOURCE,
        TEST_CERTIFICATES_URL=google.url,
        SSL_CERT_FILE=str(google.authority.certificate),
        USERS_FILE=str(tmp_path / "users.json"),
        **settings,
    ) as emulator:
        assert _post(emulator, f"Bearer {TOKEN}").status_code == admin_token
        assert _post(emulator, f"Bearer {KEY.token()}").status_code == google_token
        assert _post(emulator, "Bearer None").status_code == 401


@pytest.mark.parametrize(
    "presented", ["", "x", TOKEN, TOKEN[:-1], f"{TOKEN}x", TOKEN[::-1], "é", "\ud800", "x" * 10**6]
)
def test_every_token_presented_is_compared_once_by_digests_of_one_length(
    monkeypatch: pytest.MonkeyPatch, presented: str
) -> None:
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def counting(first: bytes, second: bytes) -> bool:
        compared.append((first, second))
        return compare(first, second)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    settings = AdministratorSettings(token=TOKEN)
    try:
        administrators.authenticate(settings, presented, IdTokens(GOOGLE), time.time())
    except AdminRequired:
        assert presented != TOKEN
    else:
        assert presented == TOKEN
    assert [(len(first), len(second)) for first, second in compared] == [(32, 32)]


def _normal(response: httpx.Response) -> str:
    """Give all of an answer but the request's id and the time."""
    headers = {
        name: value
        for name, value in response.headers.items()
        if name not in ("date", "x-request-id")
    }
    body = response.text.replace(response.headers["X-Request-Id"], "some id")
    return f"{response.status_code} {headers} {body}"
