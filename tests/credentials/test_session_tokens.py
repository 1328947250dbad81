"""Session tokens: what is issued, and which claims are refused, for every algorithm."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.credentials.session_keys import parse
from shared.credentials.session_tokens import AUDIENCE, TYPE, SessionTokens
from shared.credentials.signing import ISSUER, InvalidToken, Signing
from shared.model.sessions import FRESH_SECONDS, SESSION_SECONDS, Session
from shared.model.users import User
from tests.support.session_keys import PrivateKey, make_ed25519, make_p256, private_pem, public_pem
from tests.support.signers import KEY, OTHER, SIGNERS, Signer, encode, raw_signature, twin

NOW = 1_800_000_000
USER = User(
    id="a63472b0-a053-5c05-a7e6-582ae2e0bd53",
    email="ada@example.com",
    name="Ada",
    provider="local",
    epoch=3,
)
_CLAIMS = (
    "iss", "aud", "sub", "sid", "jti", "epoch", "iat", "exp", "session_exp", "auth_time",
    "auth_method", "email", "provider",
)  # fmt: skip
_NUMBERS = ("epoch", "iat", "exp", "session_exp", "auth_time")


@pytest.fixture(params=SIGNERS, scope="module")
def signer(request: pytest.FixtureRequest) -> Signer:
    """Each algorithm's in turn."""
    return SIGNERS[request.param]


@pytest.fixture(scope="module")
def tokens(signer: Signer) -> SessionTokens:
    """What issues and reads them."""
    return SessionTokens(signer.signing)


def _forge(signer: Signer, *changes: dict[str, Any], without: tuple[str, ...] = ()) -> str:
    """Sign a token with other claims, and other headers after them."""
    token = SessionTokens(signer.signing).issue(USER, NOW).text
    return signer.forge(token, *changes, without=without)


def test_a_token_carries_the_user_and_the_session(tokens: SessionTokens) -> None:
    session = tokens.read(tokens.issue(USER, NOW).text, NOW)
    assert session.user == USER
    assert session.expires_at == NOW + FRESH_SECONDS
    assert session.ends_at == NOW + SESSION_SECONDS
    assert len(session.sid) >= 20


def test_any_service_with_the_key_sees_an_ordinary_short_lived_jwt(
    signer: Signer, tokens: SessionTokens
) -> None:
    token = tokens.issue(USER, NOW).text
    claims = jwt.decode(
        token,
        signer.public,
        algorithms=[signer.algorithm],
        audience=AUDIENCE,
        issuer=ISSUER,
        options={"require": ["exp", "iat", "sub", "jti", "aud", "iss"], "verify_iat": False},
    )
    assert claims["exp"] - claims["iat"] == 600
    assert claims["sub"] == USER.id
    assert {"sid", "epoch", "jti"} <= claims.keys()
    header = jwt.get_unverified_header(token)
    assert header == {"alg": signer.algorithm, "typ": TYPE, "kid": header["kid"]}


def test_a_session_is_fresh_for_ten_minutes_and_renewable_for_thirty_days(
    tokens: SessionTokens,
) -> None:
    token = tokens.issue(USER, NOW).text
    assert tokens.read(token, NOW + 599).is_fresh(NOW + 599)
    assert not tokens.read(token, NOW + 600).is_fresh(NOW + 600)
    assert tokens.read(token, NOW + SESSION_SECONDS - 1)
    with pytest.raises(InvalidToken):
        tokens.read(token, NOW + SESSION_SECONDS)


def test_a_renewal_keeps_the_session_and_its_end(tokens: SessionTokens) -> None:
    first = tokens.read(tokens.issue(USER, NOW).text, NOW)
    later = NOW + SESSION_SECONDS - 100
    renewed = tokens.issue(USER, later, renews=first)
    assert renewed.max_age == 100
    second = tokens.read(renewed.text, later)
    assert (second.sid, second.ends_at) == (first.sid, first.ends_at)
    assert second.expires_at == first.ends_at


@pytest.mark.parametrize(
    ("method", "proven_at", "asked", "is_proof"),
    [
        ("password", None, "password", True),
        ("password", NOW - FRESH_SECONDS, "password", True),
        ("password", NOW - FRESH_SECONDS - 1, "password", False),
        ("password", 0, "password", False),
        ("password", None, "google", False),
        ("google", None, "google", True),
        ("google", None, "password", False),
        ("express", None, "password", False),
        ("signup", None, "password", False),
    ],
)
def test_a_session_proves_the_way_that_it_began_for_ten_minutes_whatever_renews_it(
    tokens: SessionTokens, method: str, proven_at: int | None, asked: str, is_proof: bool
) -> None:
    first = tokens.read(tokens.issue(USER, NOW, method=method, auth_time=proven_at).text, NOW)
    renewed = tokens.read(tokens.issue(USER, NOW, renews=first).text, NOW)
    for session in (first, renewed):
        assert session.has_just_proven(asked, NOW) is is_proof
        assert not session.has_just_proven(asked, NOW + FRESH_SECONDS + 1)


@pytest.mark.parametrize("method", ["password", "google", "express"])
def test_a_renewal_keeps_when_and_how_the_user_proved_who_they_are(
    tokens: SessionTokens, method: str
) -> None:
    first = tokens.read(tokens.issue(USER, NOW, method=method).text, NOW)
    assert (first.auth_time, first.auth_method) == (NOW, method)
    later = NOW + 10_000
    second = tokens.read(tokens.issue(USER, later, renews=first).text, later)
    assert (second.auth_time, second.auth_method) == (NOW, method)
    assert second.expires_at == later + FRESH_SECONDS


def test_a_degraded_users_session_says_so_and_ends_when_it_is_no_longer_fresh(
    tokens: SessionTokens,
) -> None:
    issued = tokens.issue(USER._replace(is_degraded=True), NOW)
    session = tokens.read(issued.text, NOW)
    assert session.user.is_degraded
    assert not tokens.read(tokens.issue(USER, NOW).text, NOW).user.is_degraded
    assert issued.max_age == FRESH_SECONDS
    assert session.ends_at == session.expires_at == NOW + FRESH_SECONDS
    with pytest.raises(InvalidToken):
        tokens.read(issued.text, NOW + FRESH_SECONDS)


@pytest.mark.parametrize("value", [False, None, 1, "true", {}])
def test_the_degraded_claim_is_true_or_absent(
    signer: Signer, tokens: SessionTokens, value: object
) -> None:
    with pytest.raises(InvalidToken, match="degraded"):
        tokens.read(_forge(signer, {"degraded": value}), NOW)


def test_each_token_and_each_session_is_unique(tokens: SessionTokens) -> None:
    texts = {tokens.issue(USER, NOW).text for _ in range(50)}
    assert len(texts) == 50
    assert len({tokens.read(text, NOW).sid for text in texts}) == 50


def test_a_secret_is_rotated_without_logging_anybody_out() -> None:
    old, new = SessionTokens(Signing([KEY])), SessionTokens(Signing([OTHER]))
    rotated = SessionTokens(Signing([OTHER, KEY]))
    before = old.issue(USER, NOW).text
    assert rotated.read(before, NOW).user == USER
    after = rotated.issue(USER, NOW).text
    assert new.read(after, NOW).user == USER
    with pytest.raises(InvalidToken):
        old.read(after, NOW)
    with pytest.raises(InvalidToken):
        new.read(before, NOW)


@pytest.mark.parametrize(
    ("private", "next_private"), [(make_p256(), make_p256()), (make_ed25519(), make_p256())]
)
def test_a_key_pair_is_rotated_without_logging_anybody_out(
    private: PrivateKey, next_private: PrivateKey
) -> None:
    old, new = private_pem(private), private_pem(next_private)
    secret, published, rotated, reduced, last = (
        SessionTokens(Signing([KEY], parse(pems) if pems else ()))
        for pems in ("", old + new, new + old, new + public_pem(private), new)
    )
    first, second, third = (each.issue(USER, NOW).text for each in (secret, published, rotated))
    for reader in (published, rotated, reduced):
        assert all(reader.read(token, NOW).user == USER for token in (first, second, third))
    renewed = reduced.issue(USER, NOW + 700, renews=reduced.read(second, NOW + 700)).text
    assert last.read(renewed, NOW + 700).sid == published.read(second, NOW).sid
    for reader, token in ((secret, second), (last, second)):
        with pytest.raises(InvalidToken):
            reader.read(token, NOW)


@pytest.mark.parametrize("name", _CLAIMS)
def test_no_claim_may_be_absent_or_of_another_type(
    signer: Signer, tokens: SessionTokens, name: str
) -> None:
    assert tokens.read(_forge(signer), NOW)
    with pytest.raises(InvalidToken):
        tokens.read(_forge(signer, without=(name,)), NOW)
    wrong: list[Any] = [None, True, [], {}, 1.5, ["x"]]
    wrong.append("9999999999" if name in _NUMBERS else 7)
    for value in wrong:
        with pytest.raises(InvalidToken):
            tokens.read(_forge(signer, {name: value}), NOW)


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
def test_claims_of_another_service_or_time_are_refused(
    signer: Signer, tokens: SessionTokens, claims: dict[str, Any]
) -> None:
    with pytest.raises(InvalidToken):
        tokens.read(_forge(signer, claims), NOW)


def test_a_session_of_the_code_before_goes_on_whichever_signature_it_has() -> None:
    signer = SIGNERS["ES256"]
    tokens = SessionTokens(signer.signing)
    token = _forge(signer, without=("ver",))
    raw = raw_signature(token)
    for signature in (raw, twin(raw)):
        session = tokens.read(f"{token.rpartition('.')[0]}.{encode(signature)}", NOW)
        assert session.user == USER
        renewed = tokens.issue(USER, NOW + 700, renews=session).text
        assert tokens.read(renewed, NOW + 700).sid == session.sid
        other = f"{renewed.rpartition('.')[0]}.{encode(twin(raw_signature(renewed)))}"
        with pytest.raises(InvalidToken, match="spelling"):
            tokens.read(other, NOW + 700)


@pytest.mark.parametrize(
    "claims",
    [
        {name: value}
        for name, value in itertools.product(
            ("sub", "sid", "email", "provider", "jti", "auth_method"),
            ("\0", "x\0y", "\ud800", "\udfff\ud800"),
        )
    ]
    + [{"sid": value} for value in ("", " ", "a b", "é", "\x7f", "x" * 256, "x" * 2500)]
    + [{"epoch": value} for value in (-1, 2**31, 10**40)]
    + [{"auth_time": -1}, {"auth_time": -(10**40)}, {"sub": "x" * 10_000}, {"x": ["\0"]}],
)
def test_a_signed_token_with_what_no_statement_could_take_is_refused(
    signer: Signer, tokens: SessionTokens, claims: dict[str, Any]
) -> None:
    with pytest.raises(InvalidToken):
        tokens.read(_forge(signer, claims), NOW)


_HEADERS = st.dictionaries(
    st.sampled_from(["jwk", "jku", "x5u", "x5c", "crit", "b64", "zip"]), st.text()
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


@given(claims=st.dictionaries(st.sampled_from(_CLAIMS), _JSON), headers=_HEADERS)
def test_whatever_a_signed_token_says_it_is_a_session_or_invalid(
    signer: Signer, tokens: SessionTokens, claims: dict[str, Any], headers: dict[str, Any]
) -> None:
    token = _forge(signer, claims, headers)
    with contextlib.suppress(InvalidToken):
        session = tokens.read(token, NOW)
        assert isinstance(session, Session)
        assert not headers
