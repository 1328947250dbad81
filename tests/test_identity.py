"""Which ID tokens are believed, and when Google is asked for its certificates."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate

from shared import identity
from shared.errors import IdentityUnavailable, InvalidIdentityToken
from shared.identity import Identity, IdTokens, Provider
from tests.support.google import (
    AUDIENCE,
    MAX_AGE,
    SERVICE_ACCOUNT,
    CertificateServer,
    Key,
    certificate_server,
    claims_now,
    encode,
)

KEY, OTHER_KEY = Key("key-1"), Key("key-2")
ISSUERS = ("https://accounts.google.com", "accounts.google.com")
NESTED = '{"a":' * 100_000


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
    assert token == "" or token not in str(caught.value.cause)
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
        ({"exp": float("nan")}, "whole number"),
        ({"exp": True}, "expired"),
        ({"iat": None}, "iat"),
        ({"iat": float("-inf")}, "whole number"),
        ({"nbf": "0"}, "whole number"),
        ({"sub": None}, "subject"),
        ({"sub": ""}, "subject"),
        ({"sub": 7}, "subject"),
        ({"email_verified": False}, "verified"),
        ({"email_verified": "true"}, "verified"),
        ({"email_verified": 1}, "verified"),
        ({"email_verified": None}, "verified"),
        ({"email": None}, "verified"),
        ({"email": [SERVICE_ACCOUNT]}, "verified"),
    ],
)
def test_a_genuine_token_with_a_wrong_claim_is_refused_for_that_claim(
    tokens: IdTokens, claims: dict[str, Any], cause: str
) -> None:
    assert cause in _refusal(tokens, KEY.token(claims))


def _hs256_with_the_public_key() -> str:
    public = load_pem_x509_certificate(KEY.certificate.encode()).public_key()
    secret = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = encode(json.dumps({"alg": "HS256", "kid": KEY.kid}).encode())
    signed = f"{header}.{encode(json.dumps(claims_now()).encode())}"
    return f"{signed}.{encode(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


FORGED = {
    "nothing": "",
    "no JWT": "garbage",
    "dots only": "..",
    "no signature": KEY.token().rpartition(".")[0] + ".",
    "another key's signature": OTHER_KEY.token(kid=KEY.kid),
    "altered claims": KEY.token().replace(".ey", ".eya", 1),
    "algorithm none": KEY.token(alg="none").rpartition(".")[0] + ".",
    "HS256 with the public key": _hs256_with_the_public_key(),
    "RS512": KEY.token(alg="RS512"),
    "ES256": KEY.token(alg="ES256"),
    "an algorithm that is a list": KEY.token(alg=["RS256"]),
    "unknown kid": OTHER_KEY.token(),
    "no kid": KEY.token(kid=None),
    "a kid that is no text": KEY.token(kid=["key-1"]),
    "a megabyte": "x" * 1_000_000,
    "a megabyte of a JWT": KEY.token({"padding": "x" * 1_000_000}),
    "not ASCII": "é.é.é",
    "half of a surrogate pair": "\ud800.\ud800.\ud800",
    "not base64": "a.a.a",
    "not UTF-8": encode(b"{\xff}") + ".e30.AA",
    "claims that are a list": KEY.raw_token({"alg": "RS256", "kid": KEY.kid}, "[]"),
    "no JSON": KEY.raw_token({"alg": "RS256", "kid": KEY.kid}, "{"),
    "nested deeply": KEY.raw_token({"alg": "RS256", "kid": KEY.kid}, NESTED),
    "nested as deeply as fits": f"{encode(b'[' * 6000)}.e30.AA",
    "a number of 5,000 digits": f"{encode(b'9' * 5000)}.e30.AA",
}


@pytest.mark.parametrize("token", FORGED.values(), ids=FORGED.keys())
def test_a_token_that_google_did_not_make_is_refused_without_being_quoted(
    tokens: IdTokens, token: str
) -> None:
    _refusal(tokens, token)


@pytest.mark.parametrize(
    "name", ["algorithm none", "HS256 with the public key", "RS512", "ES256", "no kid"]
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


def test_certificates_are_kept_for_their_max_age(
    tokens: IdTokens, google: CertificateServer
) -> None:
    now = time.time()
    for later in (0, 1, 2):
        tokens.verify(KEY.token(), AUDIENCE, now + later)
    assert google.requests == 1
    tokens.verify(KEY.token({"exp": int(now) + 2 * MAX_AGE}), AUDIENCE, now + MAX_AGE - 1)
    assert google.requests == 1
    tokens.verify(KEY.token({"exp": int(now) + 2 * MAX_AGE}), AUDIENCE, now + MAX_AGE + 1)
    assert google.requests == 2


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Cache-Control": "max-age=100", "Age": "40"}, 60),
        ({"Cache-Control": "max-age=100", "Age": "nonsense"}, 100),
        ({"Cache-Control": "no-cache"}, 10),
        ({"Cache-Control": "max-age=0"}, 10),
        ({}, 10),
        ({"Cache-Control": "max-age=999999999"}, 24 * 60 * 60),
    ],
)
def test_how_long_certificates_are_kept_has_a_lower_and_an_upper_bound(
    tokens: IdTokens, google: CertificateServer, headers: dict[str, str], seconds: int
) -> None:
    google.headers = headers
    now = time.time()
    token = KEY.token({"exp": int(now) + 10**6})
    tokens.verify(token, AUDIENCE, now)
    tokens.verify(token, AUDIENCE, now + seconds - 1)
    assert google.requests == 1
    tokens.verify(token, AUDIENCE, now + seconds)
    assert google.requests == 2


def test_a_new_key_of_googles_is_noticed_but_invented_ones_do_not_hammer_it(
    tokens: IdTokens, google: CertificateServer
) -> None:
    now = time.time()
    tokens.verify(KEY.token(), AUDIENCE, now)
    google.keys.append(OTHER_KEY)
    tokens.verify(OTHER_KEY.token(), AUDIENCE, now + 10)
    assert google.requests == 2
    for number in range(100):
        _refusal(tokens, OTHER_KEY.token(kid=f"invented-{number}"), now + 11 + number / 20)
    assert google.requests == 2
    _refusal(tokens, OTHER_KEY.token(kid="invented"), now + 21)
    assert google.requests == 3


def test_many_threads_need_one_fetch(tokens: IdTokens, google: CertificateServer) -> None:
    google.pause = 0.2
    token, found = KEY.token(), []
    threads = [
        threading.Thread(
            target=lambda: found.append(tokens.verify(token, AUDIENCE, time.time()).email)
        )
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [SERVICE_ACCOUNT] * 16
    assert google.requests == 1


def _unavailable(tokens: IdTokens, token: str, now: float) -> str:
    with pytest.raises(IdentityUnavailable) as caught:
        tokens.verify(token, AUDIENCE, now)
    return str(caught.value.cause)


def test_without_certificates_nobody_is_believed_or_refused_and_google_is_asked_rarely(
    tokens: IdTokens, google: CertificateServer
) -> None:
    google.status = 500
    now = time.time()
    for _ in range(5):
        assert "status 500" in _unavailable(tokens, KEY.token(), now)
        assert "status 500" in _unavailable(tokens, OTHER_KEY.token(), now)
    assert google.requests == 1
    google.status = 200
    tokens.verify(KEY.token(), AUDIENCE, now + 10)


def test_valid_certificates_outlive_the_server_and_only_new_names_wait_for_it(
    tokens: IdTokens, google: CertificateServer
) -> None:
    now = time.time()
    tokens.verify(KEY.token(), AUDIENCE, now)
    google.stop()
    tokens.verify(KEY.token(), AUDIENCE, now + 20)
    _unavailable(tokens, OTHER_KEY.token(), now + 20)
    tokens.verify(KEY.token(), AUDIENCE, now + 21)
    _unavailable(tokens, OTHER_KEY.token(), now + 21)
    _unavailable(tokens, KEY.token({"exp": int(now) + 10**6}), now + MAX_AGE)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"key-1": 7}',
        b'{"key-1": "no certificate"}',
        b'{"keys": []}',
        b'{"key-1": "' + b"x" * 70_000 + b'"}',
    ],
)
def test_an_answer_that_is_no_set_of_certificates_counts_as_none(
    tokens: IdTokens, google: CertificateServer, body: bytes
) -> None:
    google.body = body
    _unavailable(tokens, KEY.token(), time.time())


def test_a_redirect_is_not_followed(tokens: IdTokens, google: CertificateServer) -> None:
    google.status, google.headers = 302, {"Location": google.url}
    assert "status 302" in _unavailable(tokens, KEY.token(), time.time())
    assert google.requests == 1


def test_a_slow_server_is_given_up_at_the_deadline(
    tokens: IdTokens, google: CertificateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "FETCH_SECONDS", 0.1)
    google.pause = 0.5
    assert "no answer within 0.1 s" in _unavailable(tokens, KEY.token(), time.time())


def test_certificates_come_over_verified_tls_only(
    google: CertificateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = IdTokens(Provider(ISSUERS, google.url.replace("https", "http")))
    assert "https" in _unavailable(plain, KEY.token(), time.time())
    other_name = IdTokens(Provider(ISSUERS, google.url.replace("localhost", "127.0.0.1")))
    assert "CERTIFICATE_VERIFY_FAILED" in _unavailable(other_name, KEY.token(), time.time())
    monkeypatch.delenv("SSL_CERT_FILE")
    untrusted = IdTokens(Provider(ISSUERS, google.url))
    assert "CERTIFICATE_VERIFY_FAILED" in _unavailable(untrusted, KEY.token(), time.time())
    assert google.requests == 0


def test_google_is_asked_at_its_own_address() -> None:
    assert Provider(ISSUERS, "https://www.googleapis.com/oauth2/v1/certs") == identity.GOOGLE
