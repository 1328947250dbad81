"""Which of a provider's ID tokens are believed, whatever they are used for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.credentials import id_tokens
from shared.credentials.id_tokens import Identity, IdTokens, Provider
from shared.errors import InvalidIdentityToken
from tests.support.forged import FORGED, KEY
from tests.support.google import (
    AUDIENCE,
    MAX_AGE,
    SERVICE_ACCOUNT,
    CertificateServer,
    Key,
    certificate_server,
)

ISSUERS = ("https://accounts.google.com", "accounts.google.com")


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CertificateServer]:
    """A server of certificates that this process trusts."""
    with certificate_server(tmp_path, KEY) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.authority.certificate))
        yield server


@pytest.fixture
def tokens(google: CertificateServer) -> IdTokens:
    return IdTokens(Provider(ISSUERS, google.url))


def _refusal(tokens: IdTokens, token: str, now: float | None = None) -> str:
    """Give the cause for which a token is refused."""
    with pytest.raises(InvalidIdentityToken) as caught:
        tokens.verify(token, AUDIENCE, now or time.time())
    assert len(token) < 20 or token not in str(caught.value.cause)
    return str(caught.value.cause)


@pytest.mark.parametrize("issuer", ISSUERS)
def test_an_identity_has_one_issuer_however_google_spells_it(tokens: IdTokens, issuer: str) -> None:
    found = tokens.verify(KEY.token({"iss": issuer}), AUDIENCE, time.time())
    assert found == Identity(ISSUERS[0], "109876543210987654321", SERVICE_ACCOUNT)


def test_times_may_differ_by_ten_seconds_and_not_by_more(tokens: IdTokens) -> None:
    now = int(time.time())
    for claims in ({"exp": now - 5}, {"iat": now + 5}, {"nbf": now + 5}):
        tokens.verify(KEY.token(claims), AUDIENCE, now)
    for claims in ({"exp": now - 15}, {"iat": now + 15}, {"nbf": now + 15}):
        _refusal(tokens, KEY.token(claims), now)
    # The caller's clock counts as well as google-auth's own.
    assert _refusal(tokens, KEY.token(), now + 3600) == "expired or not valid yet"


def test_a_key_that_was_withdrawn_is_believed_no_longer_because_the_clock_ran_ahead(
    tokens: IdTokens, google: CertificateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = KEY.token()
    assert _refusal(tokens, token, time.time() + 6 * 3600) == "expired or not valid yet"
    tokens.verify(token, AUDIENCE, time.time())
    google.keys[:] = [Key("key-2")]
    monotonic = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + MAX_AGE)
    assert "kid" in _refusal(tokens, token)


@pytest.mark.parametrize(
    ("claims", "cause"),
    [
        ({"aud": "https://other.example"}, "wrong audience"),
        ({"aud": [AUDIENCE]}, "wrong audience"),
        ({"aud": None}, "wrong audience"),
        ({"iss": "https://accounts.google.com.evil.example"}, "another issuer"),
        ({"iss": "https://securetoken.google.com/project"}, "another issuer"),
        ({"iss": ["accounts.google.com"]}, "another issuer"),
        ({"iss": None}, "another issuer"),
        ({"exp": 1}, "expired"),
        ({"exp": None}, "exp"),
        ({"exp": "9999999999"}, "TypeError"),
        ({"exp": float("nan")}, "NaN is not JSON"),
        ({"exp": 9999999999.5}, "whole number"),
        ({"exp": True}, "expired"),
        ({"iat": None}, "iat"),
        ({"iat": -1.5}, "whole number"),
        ({"nbf": "0"}, "whole number"),
        ({"sub": None}, "subject"),
        ({"sub": ""}, "subject"),
        ({"sub": 7}, "subject"),
        ({"sub": "x" * 256}, "subject"),
        ({"sub": "1\0"}, "subject"),
        ({"sub": "\ud800"}, "subject"),
        ({"email_verified": False}, "verified"),
        ({"email_verified": "true"}, "verified"),
        ({"email_verified": 1}, "verified"),
        ({"email_verified": None}, "verified"),
        ({"email": None}, "verified"),
        ({"email": [SERVICE_ACCOUNT]}, "verified"),
        ({"email": f"\0{SERVICE_ACCOUNT}"}, "cannot be stored"),
        ({"email": f"\udfff{SERVICE_ACCOUNT}"}, "cannot be stored"),
    ],
)
def test_a_genuine_token_with_a_wrong_claim_is_refused_for_that_claim(
    tokens: IdTokens, claims: dict[str, Any], cause: str
) -> None:
    assert cause in _refusal(tokens, KEY.token(claims))


@pytest.mark.parametrize("token", FORGED.values(), ids=FORGED.keys())
def test_a_token_that_google_did_not_make_is_refused_without_being_quoted(
    tokens: IdTokens, token: str
) -> None:
    _refusal(tokens, token)


@pytest.mark.parametrize(
    "name",
    [
        "algorithm none",
        "HS256 with the public key",
        "HS256 with the certificate",
        "RS512",
        "PS256",
        "ES256 with a key of one's own",
        "an algorithm in small letters",
        "an algorithm that is a list",
        "no algorithm",
        "no kid",
        "a kid that is a list",
    ],
)
def test_the_algorithm_is_pinned_before_any_key_is_looked_for(
    tokens: IdTokens, google: CertificateServer, name: str
) -> None:
    assert _refusal(tokens, FORGED[name]) == "another algorithm, or no kid"
    assert google.requests == 0


def test_an_oversized_token_is_not_even_looked_at(
    tokens: IdTokens, google: CertificateServer
) -> None:
    assert _refusal(tokens, KEY.token({"padding": "x" * 1_000_000})) == "the token is too long"
    assert google.requests == 0


def test_google_is_asked_at_its_own_address() -> None:
    assert Provider(ISSUERS, "https://www.googleapis.com/oauth2/v1/certs") == id_tokens.GOOGLE
    assert id_tokens.firebase("project") == Provider(
        ("https://securetoken.google.com/project",),
        "https://www.googleapis.com/robot/v1/metadata/x509/securetoken@system.gserviceaccount.com",
    )
