"""Session tokens: what is issued, and that nothing else is accepted."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.tokens import (
    AUDIENCE,
    FRESH_SECONDS,
    ISSUER,
    SESSION_SECONDS,
    TYPE,
    InvalidToken,
    SessionTokens,
)
from shared.users import User

NOW = 1_800_000_000
KEY = "first-key-that-is-long-enough-for-hs256"
OTHER = "other-key-that-is-long-enough-for-hs256"
USER = User(
    id="a63472b0-a053-5c05-a7e6-582ae2e0bd53",
    email="ada@example.com",
    name="Ada",
    provider="local",
    epoch=3,
)
TOKENS = SessionTokens([KEY])
_NUMBERS = ("epoch", "iat", "exp", "session_exp", "auth_time")


def _encode(value: object) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _forge(
    claims: dict[str, Any] | None = None,
    headers: dict[str, Any] | None = None,
    *,
    key: str = KEY,
    algorithm: str = "HS256",
    without: tuple[str, ...] = (),
) -> str:
    """Sign a token with anything in it, as an attacker who has the key might."""
    token = TOKENS.issue(USER, NOW).text
    all_headers = jwt.get_unverified_header(token) | {"alg": algorithm} | (headers or {})
    all_claims = jwt.decode(token, options={"verify_signature": False}) | (claims or {})
    for name in without:
        all_claims.pop(name, None)
        all_headers.pop(name, None)
    signed = f"{_encode(all_headers)}.{_encode(all_claims)}"
    if algorithm == "none":
        return f"{signed}."
    digest = f"sha{algorithm[2:]}"
    return f"{signed}.{_encode(hmac.digest(key.encode(), signed.encode(), digest))}"


def test_a_token_carries_the_user_and_the_session() -> None:
    session = TOKENS.read(TOKENS.issue(USER, NOW).text, NOW)
    assert session.user == USER
    assert session.expires_at == NOW + FRESH_SECONDS
    assert session.ends_at == NOW + SESSION_SECONDS
    assert len(session.sid) >= 20


def test_any_service_with_the_secret_sees_an_ordinary_short_lived_jwt() -> None:
    token = TOKENS.issue(USER, NOW).text
    claims = jwt.decode(
        token,
        KEY,
        algorithms=["HS256"],
        audience=AUDIENCE,
        issuer=ISSUER,
        options={"require": ["exp", "iat", "sub", "jti", "aud", "iss"], "verify_iat": False},
    )
    assert claims["exp"] - claims["iat"] == 600
    assert claims["sub"] == USER.id
    assert {"sid", "epoch", "jti"} <= claims.keys()
    assert jwt.get_unverified_header(token)["typ"] == TYPE


def test_a_session_is_fresh_for_ten_minutes_and_renewable_for_thirty_days() -> None:
    token = TOKENS.issue(USER, NOW).text
    assert TOKENS.read(token, NOW + 599).is_fresh(NOW + 599)
    assert not TOKENS.read(token, NOW + 600).is_fresh(NOW + 600)
    assert TOKENS.read(token, NOW + SESSION_SECONDS - 1)
    with pytest.raises(InvalidToken):
        TOKENS.read(token, NOW + SESSION_SECONDS)


def test_a_renewal_keeps_the_session_and_its_end() -> None:
    first = TOKENS.read(TOKENS.issue(USER, NOW).text, NOW)
    later = NOW + SESSION_SECONDS - 100
    renewed = TOKENS.issue(USER, later, renews=first)
    assert renewed.max_age == 100
    second = TOKENS.read(renewed.text, later)
    assert (second.sid, second.ends_at) == (first.sid, first.ends_at)
    assert second.expires_at == first.ends_at


@pytest.mark.parametrize("method", ["password", "google", "express"])
def test_a_renewal_keeps_when_and_how_the_user_proved_who_they_are(method: str) -> None:
    first = TOKENS.read(TOKENS.issue(USER, NOW, method=method).text, NOW)
    assert (first.auth_time, first.auth_method) == (NOW, method)
    later = NOW + 10_000
    second = TOKENS.read(TOKENS.issue(USER, later, renews=first).text, later)
    assert (second.auth_time, second.auth_method) == (NOW, method)
    assert second.expires_at == later + FRESH_SECONDS


def test_each_token_and_each_session_is_unique() -> None:
    texts = {TOKENS.issue(USER, NOW).text for _ in range(50)}
    assert len(texts) == 50
    assert len({TOKENS.read(text, NOW).sid for text in texts}) == 50


def test_a_secret_is_rotated_without_logging_anybody_out() -> None:
    before = TOKENS.issue(USER, NOW).text
    rotated = SessionTokens([OTHER, KEY])
    assert rotated.read(before, NOW).user == USER
    after = rotated.issue(USER, NOW).text
    assert SessionTokens([OTHER]).read(after, NOW).user == USER
    with pytest.raises(InvalidToken):
        TOKENS.read(after, NOW)
    with pytest.raises(InvalidToken):
        SessionTokens([OTHER]).read(before, NOW)


@pytest.mark.parametrize(
    "name",
    [
        "iss", "aud", "sub", "sid", "jti", "epoch", "iat", "exp", "session_exp", "auth_time",
        "auth_method", "email", "provider",
    ],
)  # fmt: skip
def test_no_claim_may_be_absent_or_of_another_type(name: str) -> None:
    assert TOKENS.read(_forge(), NOW)
    with pytest.raises(InvalidToken):
        TOKENS.read(_forge(without=(name,)), NOW)
    wrong: list[Any] = [None, True, [], {}, 1.5, ["x"]]
    wrong.append("9999999999" if name in _NUMBERS else 7)
    for value in wrong:
        with pytest.raises(InvalidToken):
            TOKENS.read(_forge({name: value}), NOW)


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "somebody"},
        {"aud": "another"},
        {"iat": NOW + 60},
        {"session_exp": NOW},
        {"session_exp": NOW - 1},
        {"session_exp": 10**400},
        {"exp": NOW + SESSION_SECONDS + 1},
        {"exp": NOW - 1},
        {"iat": -(10**400)},
        {"auth_time": NOW + 1},
    ],
)
def test_claims_of_another_service_or_time_are_refused(claims: dict[str, Any]) -> None:
    with pytest.raises(InvalidToken):
        TOKENS.read(_forge(claims), NOW)


@pytest.mark.parametrize(
    "headers",
    [
        {"typ": "JWT"},
        {"typ": "at+jwt"},
        {"kid": "unknown"},
        {"kid": "../../dev/null"},
        {"kid": []},
        {"kid": {}},
        {"kid": 7},
        {"jwk": {"kty": "oct", "k": "AAAA"}},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/cert"},
        {"crit": ["exp"]},
        {"b64": False, "crit": ["b64"]},
    ],
)
def test_a_header_that_is_not_exactly_ours_is_refused(headers: dict[str, Any]) -> None:
    with pytest.raises(InvalidToken):
        TOKENS.read(_forge(headers=headers), NOW)


@pytest.mark.parametrize("missing", ["typ", "kid"])
def test_a_header_member_may_not_be_missing(missing: str) -> None:
    for token in (_forge(without=(missing,)), _forge(headers={missing: None})):
        with pytest.raises(InvalidToken):
            TOKENS.read(token, NOW)


@pytest.mark.parametrize(
    ("algorithm", "key"), [("none", ""), ("HS384", KEY), ("HS512", KEY), ("HS256", OTHER)]
)
def test_another_algorithm_or_key_is_refused(algorithm: str, key: str) -> None:
    with pytest.raises(InvalidToken):
        TOKENS.read(_forge(key=key, algorithm=algorithm), NOW)


def test_an_altered_token_is_refused_wherever_it_was_altered() -> None:
    token = TOKENS.issue(USER, NOW).text
    for position in range(0, len(token) - 1, 7):
        swapped = "A" if token[position] != "A" else "B"
        with pytest.raises(InvalidToken):
            TOKENS.read(token[:position] + swapped + token[position + 1 :], NOW)


@pytest.mark.parametrize(
    "form",
    [
        "{token}=",
        "{token}==",
        " {token}",
        "{token}\n",
        "{signed}",
        "{signed}.",
        "{token}.{token}",
        "{token}\0",
        "\ud800{token}",
        "..",
        "",
        "x" * 5000,
        _encode(b"[" * 3000) + ".e30.AA",
    ],
)
def test_what_is_not_a_compact_jwt_is_refused(form: str) -> None:
    token = TOKENS.issue(USER, NOW).text
    with pytest.raises(InvalidToken):
        TOKENS.read(form.format(token=token, signed=token.rsplit(".", 1)[0]), NOW)


@given(st.one_of(st.text(), st.from_regex(r"[\w-]+\.[\w-]+\.[\w-]+", fullmatch=True)))
def test_no_text_makes_the_reader_fail_otherwise(text: str) -> None:
    with pytest.raises(InvalidToken):
        TOKENS.read(text, NOW)
