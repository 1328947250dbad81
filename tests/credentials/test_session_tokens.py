"""Session tokens: what is issued, and that nothing else is accepted, for every algorithm."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
from dataclasses import dataclass
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import assume, given
from hypothesis import strategies as st

from shared.credentials.session_keys import parse
from shared.credentials.session_tokens import AUDIENCE, ISSUER, TYPE, SessionTokens
from shared.credentials.signing import InvalidToken, Signing
from shared.model.sessions import FRESH_SECONDS, SESSION_SECONDS, Session
from shared.model.users import User
from tests.support.session_keys import PrivateKey, make_ed25519, make_p256, private_pem, public_pem

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
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of the group of P-256."""
_CLAIMS = (
    "iss", "aud", "sub", "sid", "jti", "epoch", "iat", "exp", "session_exp", "auth_time",
    "auth_method", "email", "provider",
)  # fmt: skip
_NUMBERS = ("epoch", "iat", "exp", "session_exp", "auth_time")


def _encode(value: object) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _sign(signed: str, algorithm: str, key: Any) -> str:
    if algorithm == "none":
        return f"{signed}."
    signature = jwt.get_algorithm_by_name(algorithm).sign(signed.encode(), key)
    if algorithm == "ES256" and not _is_low(signature):
        signature = _twin(signature)
    return f"{signed}.{_encode(signature)}"


def _twin(signature: bytes) -> bytes:
    """Give the other ES256 signature of the same text, which anybody can make."""
    return signature[:32] + (ORDER - int.from_bytes(signature[32:])).to_bytes(32)


def _is_low(signature: bytes) -> bool:
    return int.from_bytes(signature[32:]) <= ORDER // 2


def _raw_signature(token: str) -> bytes:
    return base64.urlsafe_b64decode(token.rpartition(".")[2] + "==")


@dataclass(frozen=True)
class Issuer:
    """One algorithm's tokens, and what forges them."""

    tokens: SessionTokens
    algorithm: str
    key: Any
    """What signs."""
    public: Any
    """What any service uses to verify."""

    def forge(
        self,
        claims: dict[str, Any] | None = None,
        headers: dict[str, Any] | None = None,
        *,
        without: tuple[str, ...] = (),
    ) -> str:
        """Sign a token with anything in it, as an attacker who has the key might."""
        token = self.tokens.issue(USER, NOW).text
        all_headers = jwt.get_unverified_header(token) | (headers or {})
        all_claims = jwt.decode(token, options={"verify_signature": False}) | (claims or {})
        for name in without:
            all_claims.pop(name, None)
            all_headers.pop(name, None)
        return _sign(f"{_encode(all_headers)}.{_encode(all_claims)}", self.algorithm, self.key)


def _asymmetric(private: PrivateKey) -> Issuer:
    (key,) = parse(private_pem(private))
    return Issuer(
        SessionTokens(Signing([KEY], [key])), key.algorithm, private, private.public_key()
    )


ISSUERS = {
    "HS256": Issuer(SessionTokens(Signing([KEY])), "HS256", KEY.encode(), KEY),
    "ES256": _asymmetric(make_p256()),
    "EdDSA": _asymmetric(make_ed25519()),
}


@pytest.fixture(params=ISSUERS, scope="module")
def issuer(request: pytest.FixtureRequest) -> Issuer:
    """The tokens of each algorithm in turn."""
    return ISSUERS[request.param]


@pytest.fixture(scope="module")
def tokens(issuer: Issuer) -> SessionTokens:
    """What issues and reads them."""
    return issuer.tokens


def test_a_token_carries_the_user_and_the_session(tokens: SessionTokens) -> None:
    session = tokens.read(tokens.issue(USER, NOW).text, NOW)
    assert session.user == USER
    assert session.expires_at == NOW + FRESH_SECONDS
    assert session.ends_at == NOW + SESSION_SECONDS
    assert len(session.sid) >= 20


def test_any_service_with_the_key_sees_an_ordinary_short_lived_jwt(issuer: Issuer) -> None:
    token = issuer.tokens.issue(USER, NOW).text
    claims = jwt.decode(
        token,
        issuer.public,
        algorithms=[issuer.algorithm],
        audience=AUDIENCE,
        issuer=ISSUER,
        options={"require": ["exp", "iat", "sub", "jti", "aud", "iss"], "verify_iat": False},
    )
    assert claims["exp"] - claims["iat"] == 600
    assert claims["sub"] == USER.id
    assert {"sid", "epoch", "jti"} <= claims.keys()
    header = jwt.get_unverified_header(token)
    assert header == {"alg": issuer.algorithm, "typ": TYPE, "kid": header["kid"]}


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
def test_the_degraded_claim_is_true_or_absent(issuer: Issuer, value: object) -> None:
    with pytest.raises(InvalidToken, match="degraded"):
        issuer.tokens.read(issuer.forge({"degraded": value}), NOW)


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
def test_no_claim_may_be_absent_or_of_another_type(issuer: Issuer, name: str) -> None:
    assert issuer.tokens.read(issuer.forge(), NOW)
    with pytest.raises(InvalidToken):
        issuer.tokens.read(issuer.forge(without=(name,)), NOW)
    wrong: list[Any] = [None, True, [], {}, 1.5, ["x"]]
    wrong.append("9999999999" if name in _NUMBERS else 7)
    for value in wrong:
        with pytest.raises(InvalidToken):
            issuer.tokens.read(issuer.forge({name: value}), NOW)


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
    issuer: Issuer, claims: dict[str, Any]
) -> None:
    with pytest.raises(InvalidToken):
        issuer.tokens.read(issuer.forge(claims), NOW)


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
def test_a_header_that_is_not_exactly_ours_is_refused(
    issuer: Issuer, headers: dict[str, Any]
) -> None:
    with pytest.raises(InvalidToken):
        issuer.tokens.read(issuer.forge(headers=headers), NOW)


@pytest.mark.parametrize("missing", ["typ", "kid"])
def test_a_header_member_may_not_be_missing(issuer: Issuer, missing: str) -> None:
    for token in (issuer.forge(without=(missing,)), issuer.forge(headers={missing: None})):
        with pytest.raises(InvalidToken):
            issuer.tokens.read(token, NOW)


@pytest.mark.parametrize("algorithm", ["none", "HS256", "HS384", "HS512", "ES256", "EdDSA"])
def test_a_key_is_good_for_its_own_algorithm_only(issuer: Issuer, algorithm: str) -> None:
    """Whatever an attacker may know or make signs in the name of our key, or with its own."""
    secrets: list[Any] = [OTHER.encode(), b""]
    if issuer.algorithm != "HS256":
        pem = public_pem(issuer.key)
        (jwk,) = Signing([], parse(private_pem(issuer.key))).jwks()["keys"]
        spki = base64.b64decode("".join(pem.splitlines()[1:-1]))
        secrets += [pem.encode(), pem.strip().encode(), json.dumps(jwk).encode(), spki]
        secrets += [issuer.tokens.issue(USER, NOW).text.encode(), jwk["x"].encode(), KEY.encode()]
    others: dict[str, list[Any]] = {
        "none": [None],
        "ES256": [make_p256()],
        "EdDSA": [make_ed25519()],
    }
    keys = others.get(algorithm, secrets)
    if issuer.algorithm != algorithm:
        keys += [each.key for each in ISSUERS.values() if each.algorithm == algorithm]
    header, claims, _ = issuer.tokens.issue(USER, NOW).text.split(".")
    renamed = _encode(json.loads(base64.urlsafe_b64decode(header + "==")) | {"alg": algorithm})
    for key in keys:
        for head in (renamed, header):
            with pytest.raises(InvalidToken):
                issuer.tokens.read(_sign(f"{head}.{claims}", algorithm, key), NOW)


def test_the_algorithm_of_one_key_is_refused_under_the_name_of_another() -> None:
    curve, edwards = ISSUERS["ES256"], ISSUERS["EdDSA"]
    keys = parse(private_pem(curve.key) + private_pem(edwards.key))
    ring = SessionTokens(Signing([KEY], keys))
    kids = {
        "ES256": keys[0].kid,
        "EdDSA": keys[1].kid,
        "HS256": str(
            jwt.get_unverified_header(SessionTokens(Signing([KEY])).issue(USER, NOW).text)["kid"]
        ),
    }
    for issuer, name, claimed in itertools.product(ISSUERS.values(), kids, ISSUERS):
        token = issuer.forge(headers={"kid": kids[name], "alg": claimed})
        if issuer.algorithm == name == claimed:
            assert ring.read(token, NOW).user == USER
        else:
            with pytest.raises(InvalidToken):
                ring.read(token, NOW)


def test_an_es256_signature_is_its_two_numbers_and_nothing_else() -> None:
    issuer = ISSUERS["ES256"]
    signed, _, signature = issuer.tokens.issue(USER, NOW).text.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    assert len(raw) == 64
    r, s = raw[:32], raw[32:]
    der = encode_dss_signature(int.from_bytes(r), int.from_bytes(s))
    wrong = [
        der, raw + b"\0", b"\0" + raw, raw[:-1], b"", r, b"\0" * 64, s + r,
        r + b"\0" * 32, b"\0" * 32 + s, r + ORDER.to_bytes(32),
    ]  # fmt: skip
    for each in wrong:
        with pytest.raises(InvalidToken):
            issuer.tokens.read(f"{signed}.{_encode(each)}", NOW)


def test_the_other_spelling_of_an_es256_signature_is_refused() -> None:
    issuer = ISSUERS["ES256"]
    for _ in range(20):
        token = issuer.tokens.issue(USER, NOW).text
        raw = _raw_signature(token)
        assert _is_low(raw)
        assert issuer.tokens.read(token, NOW).user == USER
        with pytest.raises(InvalidToken, match="spelling"):
            issuer.tokens.read(f"{token.rpartition('.')[0]}.{_encode(_twin(raw))}", NOW)


def test_a_session_of_the_code_before_goes_on_whichever_signature_it_has() -> None:
    issuer = ISSUERS["ES256"]
    token = issuer.forge(without=("ver",))
    raw = _raw_signature(token)
    for signature in (raw, _twin(raw)):
        session = issuer.tokens.read(f"{token.rpartition('.')[0]}.{_encode(signature)}", NOW)
        assert session.user == USER
        renewed = issuer.tokens.issue(USER, NOW + 700, renews=session).text
        assert issuer.tokens.read(renewed, NOW + 700).sid == session.sid
        twin = f"{renewed.rpartition('.')[0]}.{_encode(_twin(_raw_signature(renewed)))}"
        with pytest.raises(InvalidToken, match="spelling"):
            issuer.tokens.read(twin, NOW + 700)


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
    issuer: Issuer, claims: dict[str, Any]
) -> None:
    with pytest.raises(InvalidToken):
        issuer.tokens.read(issuer.forge(claims), NOW)


def test_an_altered_token_is_refused_wherever_it_was_altered(tokens: SessionTokens) -> None:
    token = tokens.issue(USER, NOW).text
    for position, character in enumerate(token):
        swapped = "B" if character == "A" else chr(ord(character) ^ 1)
        with pytest.raises(InvalidToken):
            tokens.read(token[:position] + swapped + token[position + 1 :], NOW)


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
def test_what_is_not_a_compact_jwt_is_refused(tokens: SessionTokens, form: str) -> None:
    token = tokens.issue(USER, NOW).text
    with pytest.raises(InvalidToken):
        tokens.read(form.format(token=token, signed=token.rsplit(".", 1)[0]), NOW)


_HEADERS = st.dictionaries(
    st.sampled_from(["jwk", "jku", "x5u", "x5c", "crit", "b64", "zip"]), st.text()
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


@given(text=st.one_of(st.text(), st.from_regex(r"[\w-]+\.[\w-]+\.[\w-]+", fullmatch=True)))
def test_no_text_makes_the_reader_fail_otherwise(tokens: SessionTokens, text: str) -> None:
    with pytest.raises(InvalidToken):
        tokens.read(text, NOW)


@given(start=st.integers(0, 800), length=st.integers(0, 90), replacement=st.text(max_size=3))
def test_no_piece_of_a_token_can_be_replaced(
    tokens: SessionTokens, start: int, length: int, replacement: str
) -> None:
    token = tokens.issue(USER, NOW).text
    altered = token[:start] + replacement + token[start + length :]
    assume(altered != token)
    with pytest.raises(InvalidToken):
        tokens.read(altered, NOW)


@given(claims=st.dictionaries(st.sampled_from(_CLAIMS), _JSON), headers=_HEADERS)
def test_whatever_a_signed_token_says_it_is_a_session_or_invalid(
    issuer: Issuer, claims: dict[str, Any], headers: dict[str, Any]
) -> None:
    token = issuer.forge(claims, headers)
    with contextlib.suppress(InvalidToken):
        session = issuer.tokens.read(token, NOW)
        assert isinstance(session, Session)
        assert not headers
