"""Tokens in links of mails: what is issued, and that nothing else is accepted (RFC 8725)."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.credentials.mail_tokens import AUDIENCE, ISSUER, TYPE, MailTokens
from shared.credentials.session_keys import parse
from shared.credentials.session_tokens import TYPE as SESSION_TYPE
from shared.credentials.session_tokens import SessionTokens
from shared.credentials.signing import MAX_LENGTH, InvalidToken, Signing
from shared.errors import InvalidMailToken
from shared.model.mails import LIFETIMES, Kind, Mail, digest_of
from shared.model.sessions import SKEW_SECONDS
from shared.model.users import MAX_STORED_EPOCH, User
from tests.support.forged import FORGED
from tests.support.session_keys import make_ed25519, make_p256, private_pem

NOW = 1_800_000_000
KEY = "first-key-that-is-long-enough-for-hs256"
OTHER = "other-key-that-is-long-enough-for-hs256"
ADDRESS = "ada@example.com"
MAIL = Mail(
    id="0d0f48c9-28f2-4e6c-b6a7-4ec1ed2b0a0f",
    kind="password_reset",
    recipient=ADDRESS,
    user_id="a63472b0-a053-5c05-a7e6-582ae2e0bd53",
    epoch=3,
    seen=digest_of(ADDRESS),
    locale=None,
    asked_from=None,
    created_at=NOW - 60.0,
    tries=0,
)
PURPOSES: tuple[Kind, ...] = ("verification", "password_reset", "login_link", "email_change")
SIGNINGS = {
    "HS256": Signing([KEY]),
    "ES256": Signing([KEY], parse(private_pem(make_p256()))),
    "EdDSA": Signing([KEY], parse(private_pem(make_ed25519()))),
}
CLAIMS = ("iss", "aud", "purpose", "sub", "epoch", "seen", "email", "jti", "iat", "exp")


@pytest.fixture(params=SIGNINGS, scope="module")
def signing(request: pytest.FixtureRequest) -> Signing:
    """The keys of each algorithm in turn."""
    return SIGNINGS[request.param]


def _encode(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _claims() -> dict[str, Any]:
    text = MailTokens(SIGNINGS["HS256"]).issue(MAIL, NOW)
    return dict(jwt.decode(text, options={"verify_signature": False}))


def _forge(signing: Signing, claims: dict[str, Any], *, without: str = "") -> str:
    """Sign any claims, as an attacker who has the key might."""
    changed = _claims() | claims
    changed.pop(without, None)
    return signing.sign(TYPE, changed)


def _is_refused(signing: Signing, text: str, *purposes: Kind, now: float = NOW) -> bool:
    try:
        MailTokens(signing).read(text, *(purposes or PURPOSES), now=now)
    except InvalidMailToken:
        return True
    return False


def test_a_token_says_what_for_whom_and_to_which_mailbox(signing: Signing) -> None:
    token = MailTokens(signing).read(
        MailTokens(signing).issue(MAIL, NOW), "password_reset", now=NOW
    )
    assert (token.id, token.purpose, token.email) == (MAIL.id, MAIL.kind, ADDRESS)
    assert (token.user_id, token.epoch, token.seen) == (MAIL.user_id, MAIL.epoch, MAIL.seen)
    assert token.ends_at == NOW + LIFETIMES["password_reset"]


def test_it_has_a_type_of_its_own_and_no_claim_that_is_not_needed(signing: Signing) -> None:
    text = MailTokens(signing).issue(MAIL, NOW)
    header = jwt.get_unverified_header(text)
    assert header == {"alg": header["alg"], "typ": TYPE, "kid": header["kid"]}
    assert TYPE != SESSION_TYPE
    assert _claims().keys() == {*CLAIMS, "ver"}
    assert (_claims()["iss"], _claims()["aud"]) == (ISSUER, AUDIENCE)


def test_a_refusal_quotes_nothing(signing: Signing) -> None:
    for name in CLAIMS:
        with pytest.raises(InvalidMailToken) as caught:
            MailTokens(signing).read(_forge(signing, {name: [ADDRESS]}), *PURPOSES, now=NOW)
        assert ADDRESS not in f"{caught.value}{caught.value.cause}"


def test_a_session_is_no_mail_and_a_mail_no_session(signing: Signing) -> None:
    user = User(MAIL.user_id, ADDRESS, "Ada", "local", 3)
    assert _is_refused(signing, SessionTokens(signing).issue(user, NOW).text)
    with pytest.raises(InvalidToken):
        SessionTokens(signing).read(MailTokens(signing).issue(MAIL, NOW), NOW)


def test_claims_of_a_mail_under_another_type_are_refused(signing: Signing) -> None:
    for typ in (SESSION_TYPE, "JWT", "", TYPE.upper(), f"application/{TYPE}"):
        assert _is_refused(signing, signing.sign(typ, _claims()))


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_token_is_for_its_purpose_only(signing: Signing, purpose: Kind) -> None:
    text = MailTokens(signing).issue(MAIL._replace(kind=purpose), NOW)
    others = [other for other in PURPOSES if other != purpose]
    assert not _is_refused(signing, text, purpose)
    assert _is_refused(signing, text, *others)


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "None"},
        {"alg": "HS512"},
        {"typ": "JWT"},
        {"typ": SESSION_TYPE},
        {"typ": None},
        {"kid": "unknown"},
        {"kid": None},
        {"jwk": {"kty": "oct", "k": "AA"}},
        {"jku": "https://evil.example/keys"},
        {"crit": ["exp"]},
        {"b64": False},
        {"cty": "JWT"},
    ],
    ids=str,
)
def test_a_header_is_exactly_ours(signing: Signing, header: dict[str, Any]) -> None:
    text = MailTokens(signing).issue(MAIL, NOW)
    _, claims, signature = text.split(".")
    changed = _encode(jwt.get_unverified_header(text) | header)
    assert _is_refused(signing, f"{changed}.{claims}.{signature}")
    assert _is_refused(signing, f"{changed}.{claims}.")


def test_another_key_and_altered_claims_are_refused(signing: Signing) -> None:
    assert _is_refused(signing, MailTokens(Signing([OTHER])).issue(MAIL, NOW))
    header, _, signature = MailTokens(signing).issue(MAIL, NOW).split(".")
    altered = _encode(_claims() | {"sub": str(uuid.uuid4())})
    assert _is_refused(signing, f"{header}.{altered}.{signature}")


@pytest.mark.parametrize("text", FORGED.values(), ids=FORGED)
def test_what_others_make_is_refused(text: str) -> None:
    assert _is_refused(SIGNINGS["HS256"], text)


@pytest.mark.parametrize("name", CLAIMS)
def test_each_claim_has_to_be_there_and_of_its_type(signing: Signing, name: str) -> None:
    assert _is_refused(signing, _forge(signing, {}, without=name))
    wrong: list[Any] = [None, True, [], {}, "", 1.5, [_claims()[name]]]
    wrong.append(str(_claims()[name]) if isinstance(_claims()[name], int) else 1)
    for value in wrong:
        assert _is_refused(signing, _forge(signing, {name: value})), value


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "somebody"},
        {"aud": "somebody"},
        {"aud": [AUDIENCE]},
        {"purpose": "session"},
        {"purpose": "password_changed"},
        {"sub": MAIL.user_id.upper()},
        {"sub": f"{MAIL.user_id}\n"},
        {"sub": "1"},
        {"jti": "1"},
        {"jti": MAIL.id.upper()},
        {"epoch": -1},
        {"epoch": MAX_STORED_EPOCH + 1},
        {"seen": "0" * 31},
        {"seen": "0" * 33},
        {"seen": "G" * 32},
        {"seen": ("0" * 32) + "\n"},
        {"email": "\ud800"},
        {"email": "a\x00b"},
    ],
    ids=str,
)
def test_each_claim_has_a_range(signing: Signing, claims: dict[str, Any]) -> None:
    try:
        text = _forge(signing, claims)
    except UnicodeEncodeError:  # Half of a surrogate pair can only be escaped.
        header, _, _ = MailTokens(signing).issue(MAIL, NOW).split(".")
        text = f"{header}.{_encode(_claims() | claims)}.AA"
    assert _is_refused(signing, text)


def test_what_is_not_begun_or_has_ended_is_refused(signing: Signing) -> None:
    text = MailTokens(signing).issue(MAIL, NOW)
    seconds = LIFETIMES["password_reset"]
    cases = ((-SKEW_SECONDS - 1, True), (-SKEW_SECONDS, False), (seconds - 1, False))
    for later, is_refused in (*cases, (seconds, True), (10 * seconds, True)):
        assert _is_refused(signing, text, now=NOW + later) is is_refused, later


def test_what_is_longer_than_any_of_ours_is_refused(signing: Signing) -> None:
    assert _is_refused(signing, _forge(signing, {"padding": "x" * MAX_LENGTH}))
    longest = MailTokens(signing).issue(MAIL._replace(recipient="\U0010ffff" * 320), NOW)
    assert len(longest) < MAX_LENGTH
    assert not _is_refused(signing, longest)


@pytest.mark.parametrize("change", ["=", " ", "\n", ".", "é"])
def test_a_token_has_one_spelling(signing: Signing, change: str) -> None:
    text = MailTokens(signing).issue(MAIL, NOW)
    assert _is_refused(signing, f"{text}{change}")
    assert _is_refused(signing, f"{change}{text}")


_ADDRESSES = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=300
).filter(lambda text: text == text.strip())


@given(
    kind=st.sampled_from(PURPOSES),
    recipient=_ADDRESSES,
    epoch=st.integers(0, MAX_STORED_EPOCH),
    ids=st.tuples(st.uuids(), st.uuids()),
    now=st.integers(0, 2**33),
)
def test_what_is_issued_is_read_again(
    kind: Kind, recipient: str, epoch: int, ids: tuple[uuid.UUID, uuid.UUID], now: int
) -> None:
    mail = MAIL._replace(
        kind=kind,
        recipient=recipient,
        epoch=epoch,
        id=str(ids[0]),
        user_id=str(ids[1]),
        seen=digest_of(recipient),
    )
    for signing in SIGNINGS.values():
        token = MailTokens(signing).read(MailTokens(signing).issue(mail, now), kind, now=now)
        assert (token.id, token.purpose, token.user_id) == (mail.id, kind, mail.user_id)
        assert (token.epoch, token.seen, token.email) == (epoch, mail.seen, recipient)
        assert token.ends_at == now + LIFETIMES[kind]
