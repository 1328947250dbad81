"""Tokens in links of mails: what is issued, and that nothing else is accepted (RFC 8725)."""

from __future__ import annotations

import uuid
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.credentials.mail_tokens import AUDIENCE, TYPE, MailTokens
from shared.credentials.session_tokens import TYPE as SESSION_TYPE
from shared.credentials.session_tokens import SessionTokens
from shared.credentials.signing import ISSUER, MAX_LENGTH, InvalidToken
from shared.errors import InvalidMailToken
from shared.model.mails import LIFETIMES, Kind, Mail, digest_of
from shared.model.sessions import SKEW_SECONDS
from shared.model.users import MAX_STORED_EPOCH, User
from tests.support.signers import SIGNERS, Signer, claims_of

NOW = 1_800_000_000
ADDRESS = "ada@example.com"
MAIL = Mail(
    id="0d0f48c9-28f2-4e6c-b6a7-4ec1ed2b0a0f",
    kind="password_reset",
    recipient=ADDRESS,
    user_id="a63472b0-a053-5c05-a7e6-582ae2e0bd53",
    epoch=3,
    email_digest=digest_of(ADDRESS),
    locale=None,
    asked_from=None,
    created_at=NOW - 60.0,
    tries=0,
)
PURPOSES: tuple[Kind, ...] = ("verification", "password_reset", "login_link", "email_change")
CLAIMS = ("iss", "aud", "purpose", "sub", "epoch", "email_digest", "email", "jti", "iat", "exp")


@pytest.fixture(params=SIGNERS, scope="module")
def signer(request: pytest.FixtureRequest) -> Signer:
    """Each algorithm's in turn."""
    return SIGNERS[request.param]


@pytest.fixture(scope="module")
def tokens(signer: Signer) -> MailTokens:
    """What issues and reads them."""
    return MailTokens(signer.signing)


@pytest.fixture
def text(tokens: MailTokens) -> str:
    """The token of MAIL."""
    return tokens.issue(MAIL, NOW)


def _is_refused(tokens: MailTokens, text: str, *purposes: Kind, now: float = NOW) -> bool:
    try:
        tokens.read(text, *(purposes or PURPOSES), now=now)
    except InvalidMailToken:
        return True
    return False


def test_a_token_says_what_for_whom_and_to_which_mailbox(tokens: MailTokens, text: str) -> None:
    token = tokens.read(text, "password_reset", now=NOW)
    assert (token.id, token.purpose, token.email) == (MAIL.id, MAIL.kind, ADDRESS)
    assert (token.user_id, token.epoch, token.email_digest) == (
        MAIL.user_id,
        MAIL.epoch,
        MAIL.email_digest,
    )
    assert token.ends_at == NOW + LIFETIMES["password_reset"]


def test_it_has_a_type_of_its_own_and_no_claim_that_is_not_needed(text: str) -> None:
    header, claims = jwt.get_unverified_header(text), claims_of(text)
    assert header == {"alg": header["alg"], "typ": TYPE, "kid": header["kid"]}
    assert TYPE != SESSION_TYPE
    assert claims.keys() == {*CLAIMS, "ver"}
    assert (claims["iss"], claims["aud"]) == (ISSUER, AUDIENCE)


def test_a_refusal_quotes_nothing(signer: Signer, tokens: MailTokens, text: str) -> None:
    for name in CLAIMS:
        with pytest.raises(InvalidMailToken) as caught:
            tokens.read(signer.forge(text, {name: [ADDRESS]}), *PURPOSES, now=NOW)
        assert ADDRESS not in f"{caught.value}{caught.value.cause}"


def test_a_session_is_no_mail_and_a_mail_no_session(
    signer: Signer, tokens: MailTokens, text: str
) -> None:
    user = User(MAIL.user_id, ADDRESS, "Ada", "local", 3)
    sessions = SessionTokens(signer.signing)
    assert _is_refused(tokens, sessions.issue(user, NOW).text)
    with pytest.raises(InvalidToken):
        sessions.read(text, NOW)


def test_claims_of_a_mail_under_another_type_are_refused(
    signer: Signer, tokens: MailTokens, text: str
) -> None:
    for typ in (SESSION_TYPE, "JWT", "", TYPE.upper(), f"application/{TYPE}"):
        assert _is_refused(tokens, signer.forge(text, headers={"typ": typ}))


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_token_is_for_its_purpose_only(tokens: MailTokens, purpose: Kind) -> None:
    text = tokens.issue(MAIL._replace(kind=purpose), NOW)
    others = [other for other in PURPOSES if other != purpose]
    assert not _is_refused(tokens, text, purpose)
    assert _is_refused(tokens, text, *others)


@pytest.mark.parametrize("name", CLAIMS)
def test_each_claim_has_to_be_there_and_of_its_type(
    signer: Signer, tokens: MailTokens, text: str, name: str
) -> None:
    assert _is_refused(tokens, signer.forge(text, without=(name,)))
    right = claims_of(text)[name]
    wrong: list[Any] = [None, True, [], {}, "", 1.5, [right]]
    wrong.append(str(right) if isinstance(right, int) else 1)
    for value in wrong:
        assert _is_refused(tokens, signer.forge(text, {name: value})), value


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
        {"email_digest": "0" * 31},
        {"email_digest": "0" * 33},
        {"email_digest": "G" * 32},
        {"email_digest": ("0" * 32) + "\n"},
        {"email": "\ud800"},
        {"email": "a\x00b"},
    ],
    ids=str,
)
def test_each_claim_has_a_range(
    signer: Signer, tokens: MailTokens, text: str, claims: dict[str, Any]
) -> None:
    assert not _is_refused(tokens, signer.forge(text))
    assert _is_refused(tokens, signer.forge(text, claims))


def test_what_is_not_begun_or_has_ended_is_refused(tokens: MailTokens, text: str) -> None:
    seconds = LIFETIMES["password_reset"]
    cases = ((-SKEW_SECONDS - 1, True), (-SKEW_SECONDS, False), (seconds - 1, False))
    for later, is_refused in (*cases, (seconds, True), (10 * seconds, True)):
        assert _is_refused(tokens, text, now=NOW + later) is is_refused, later


def test_what_is_longer_than_any_of_ours_is_refused(
    signer: Signer, tokens: MailTokens, text: str
) -> None:
    assert _is_refused(tokens, signer.forge(text, {"padding": "x" * MAX_LENGTH}))
    longest = tokens.issue(MAIL._replace(recipient="\U0010ffff" * 320), NOW)
    assert len(longest) < MAX_LENGTH
    assert not _is_refused(tokens, longest)


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
        email_digest=digest_of(recipient),
    )
    for signer in SIGNERS.values():
        tokens = MailTokens(signer.signing)
        token = tokens.read(tokens.issue(mail, now), kind, now=now)
        assert (token.id, token.purpose, token.user_id) == (mail.id, kind, mail.user_id)
        assert (token.epoch, token.email_digest, token.email) == (
            epoch,
            mail.email_digest,
            recipient,
        )
        assert token.ends_at == now + LIFETIMES[kind]
