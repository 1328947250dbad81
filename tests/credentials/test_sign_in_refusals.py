"""Which ID tokens sign nobody in: every claim, every algorithm, every spelling, every provider."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.credentials import id_tokens
from shared.credentials.id_tokens import IdTokens, SignInTokens
from shared.credentials.session_tokens import SessionTokens
from shared.credentials.signing import Signing
from shared.errors import GoogleNotConfigured, InvalidIdentityToken
from shared.model.users import User
from tests.support.emulator import SECRET
from tests.support.forged import forged_tokens
from tests.support.google import (
    CLIENT_ID,
    PROJECT,
    SUBJECT,
    CertificateServer,
    Providers,
    firebase_claims,
    google_claims,
)

GOOGLE, FIREBASE = "https://accounts.google.com", f"https://securetoken.google.com/{PROJECT}"
OTHER_CLIENT_ID = "9876543210-f5e4d3c2b1a0.apps.googleusercontent.com"


@pytest.fixture
def tokens(providers: Providers, monkeypatch: pytest.MonkeyPatch) -> SignInTokens:
    providers.serve_this_process(monkeypatch)
    return SignInTokens(IdTokens(id_tokens.GOOGLE), {CLIENT_ID, OTHER_CLIENT_ID}, PROJECT)


def _refusal(tokens: SignInTokens, token: str, now: float | None = None) -> str:
    """Give the cause for which a token is refused."""
    with pytest.raises(InvalidIdentityToken) as caught:
        tokens.verify(token, now or time.time())
    assert len(token) < 20 or token not in str(caught.value.cause)
    return str(caught.value.cause)


BAD_BY_ANY: list[dict[str, Any]] = [
    {"iss": None},
    {"iss": ""},
    {"iss": 7},
    {"iss": [GOOGLE]},
    {"iss": {GOOGLE: FIREBASE}},
    {"iss": f"{GOOGLE}/"},
    {"iss": "http://accounts.google.com"},
    {"iss": "https://ACCOUNTS.google.com"},
    {"iss": f"{FIREBASE}/"},
    {"iss": f"{FIREBASE}-other"},
    {"iss": f"https://session.firebase.google.com/{PROJECT}"},
    {"iss": "ai-coder-auth"},
    {"aud": None},
    {"aud": ""},
    {"aud": 7},
    {"aud": []},
    {"aud": [CLIENT_ID]},
    {"aud": [PROJECT]},
    {"aud": [CLIENT_ID, OTHER_CLIENT_ID]},
    {"aud": {CLIENT_ID: PROJECT}},
    {"aud": f"{CLIENT_ID} "},
    {"aud": CLIENT_ID.upper()},
    {"aud": f"{CLIENT_ID},{OTHER_CLIENT_ID}"},
    {"aud": "1111111111-somebody.apps.googleusercontent.com"},
    {"aud": "https://api.example.com/api/migrate"},
    {"exp": None},
    {"exp": 1},
    {"exp": "9999999999"},
    {"exp": 9999999999.5},
    {"exp": True},
    {"exp": [9999999999]},
    {"iat": None},
    {"iat": "1"},
    {"iat": 1.5},
    {"iat": False},
    {"iat": 9999999999},
    {"nbf": "1"},
    {"nbf": True},
    {"nbf": 9999999999},
    {"sub": None},
    {"sub": ""},
    {"sub": 7},
    {"sub": [SUBJECT]},
    {"sub": "x" * 256},
    {"sub": "1\0"},
    {"sub": "\ud800"},
    {"email": None},
    {"email": ""},
    {"email": 7},
    {"email": ["ada@gmail.com"]},
    {"email": "ada"},
    {"email": "ada@localhost"},
    {"email": "a@b@example.com"},
    {"email": "ada lovelace@example.com"},
    {"email": "ada\n@example.com"},
    {"email": "ada@example.com\0"},
    {"email": "\ud800@example.com"},
    {"email": "ada@\udfffexample.com"},
    {"email": "x" * 250 + "@example.com"},
    {"email": "ada@" + "x" * 300 + ".com"},
    {"email_verified": None},
    {"email_verified": False},
    {"email_verified": "true"},
    {"email_verified": 1},
    {"email_verified": [True]},
    {"auth_time": "1"},
    {"auth_time": 1.5},
    {"auth_time": True},
    {"auth_time": 9999999999},
]
BAD_BY_GOOGLE: list[dict[str, Any]] = [{"aud": PROJECT}, {"azp": 7}, {"azp": [CLIENT_ID]}]


def _firebase(**changes: Any) -> dict[str, Any]:
    said = firebase_claims()["firebase"] | changes
    return {"firebase": {name: value for name, value in said.items() if value is not None}}


BAD_BY_FIREBASE: list[dict[str, Any]] = [
    {"aud": CLIENT_ID},
    {"aud": f"{PROJECT}-other"},
    {"auth_time": None},
    {"sub": "x" * 129},
    {"firebase": None},
    {"firebase": "google.com"},
    {"firebase": []},
    {"firebase": {}},
    _firebase(sign_in_provider=None),
    _firebase(sign_in_provider="password"),
    _firebase(sign_in_provider="custom"),
    _firebase(sign_in_provider="anonymous"),
    _firebase(sign_in_provider="Google.com"),
    _firebase(sign_in_provider=["google.com"]),
    _firebase(identities=None),
    _firebase(identities=[]),
    _firebase(identities=["google.com"]),
    _firebase(identities={}),
    _firebase(identities={"google.com": None}),
    _firebase(identities={"google.com": SUBJECT}),
    _firebase(identities={"google.com": {"0": SUBJECT}}),
    _firebase(identities={"google.com": []}),
    _firebase(identities={"google.com": [""]}),
    _firebase(identities={"google.com": [7]}),
    _firebase(identities={"google.com": [[SUBJECT]]}),
    _firebase(identities={"google.com": [SUBJECT, "another"]}),
    _firebase(identities={"google.com": ["x" * 256]}),
    _firebase(identities={"google.com": ["1\0"]}),
    _firebase(identities={"google.com": ["\udfff"]}),
    _firebase(identities={"email": ["ada@example.com"], "facebook.com": [SUBJECT]}),
]


def _id(claims: dict[str, Any]) -> str:
    return ascii(claims)[:80]


@pytest.mark.parametrize("claims", BAD_BY_ANY + BAD_BY_GOOGLE, ids=_id)
def test_googles_token_with_a_claim_wrong_absent_or_of_the_wrong_type_is_refused(
    tokens: SignInTokens, providers: Providers, claims: dict[str, Any]
) -> None:
    _refusal(tokens, providers.google_token(**claims))


@pytest.mark.parametrize("claims", BAD_BY_ANY + BAD_BY_FIREBASE, ids=_id)
def test_firebases_token_with_a_claim_wrong_absent_or_of_the_wrong_type_is_refused(
    tokens: SignInTokens, providers: Providers, claims: dict[str, Any]
) -> None:
    _refusal(tokens, providers.firebase_token(**claims))


@pytest.mark.parametrize("claim", ["exp", "iat", "nbf", "auth_time"])
def test_clocks_may_differ_by_ten_seconds_and_not_by_more(
    tokens: SignInTokens, providers: Providers, claim: str
) -> None:
    now = int(time.time())
    sign = -1 if claim == "exp" else 1
    for mint in (providers.google_token, providers.firebase_token):
        found = tokens.verify(mint(**{claim: now + 5 * sign}), now)
        assert found.auth_time <= now
        _refusal(tokens, mint(**{claim: now + 15 * sign}), now)


def test_the_callers_clock_counts_as_well(tokens: SignInTokens, providers: Providers) -> None:
    now = int(time.time())
    for mint in (providers.google_token, providers.firebase_token):
        token = mint(exp=now + 3600)
        tokens.verify(token, now + 3609)
        assert _refusal(tokens, token, now + 3610) == "expired or not valid yet"


@pytest.mark.parametrize("provider", ["google", "firebase"])
def test_no_token_is_accepted_that_its_provider_did_not_write(
    tokens: SignInTokens, providers: Providers, provider: str
) -> None:
    server: CertificateServer = getattr(providers, provider)
    claims = google_claims() if provider == "google" else firebase_claims()
    tokens.verify(server.keys[0].mint(claims), time.time())
    refused = []
    forged = forged_tokens(server.keys[0], claims)
    for name, token in forged.items():
        try:
            tokens.verify(token, time.time())
        except InvalidIdentityToken as error:
            if len(token) < 20 or token not in str(error.cause):
                refused.append(name)
    assert refused == list(forged)


def test_a_provider_cannot_speak_for_the_other(tokens: SignInTokens, providers: Providers) -> None:
    by_google, by_firebase = providers.google.keys[0], providers.firebase.keys[0]
    for token in (
        by_google.mint(firebase_claims()),
        by_google.mint(firebase_claims(), kid=by_firebase.kid),
        by_google.mint(firebase_claims(aud=CLIENT_ID)),
        by_google.mint(google_claims(aud=PROJECT)),
        by_firebase.mint(google_claims()),
        by_firebase.mint(google_claims(), kid=by_google.kid),
        by_firebase.mint(google_claims(aud=PROJECT)),
        by_firebase.mint(firebase_claims(iss=GOOGLE)),
        by_firebase.mint(firebase_claims(iss=GOOGLE, aud=CLIENT_ID)),
    ):
        _refusal(tokens, token)


def test_a_provider_that_is_not_configured_is_neither_believed_nor_asked(
    tokens: SignInTokens, providers: Providers
) -> None:
    google = IdTokens(id_tokens.GOOGLE)
    before = providers.google.requests, providers.firebase.requests
    by_google, by_firebase = providers.google_token(), providers.firebase_token()
    for verifier, token, cause in (
        (SignInTokens(google, frozenset(), PROJECT), by_google, "GOOGLE_CLIENT_ID is not set"),
        (SignInTokens(google, {CLIENT_ID}, None), by_firebase, "FIREBASE_PROJECT_ID is not set"),
        (SignInTokens(google, {CLIENT_ID}, "other-project"), by_firebase, "another Firebase"),
    ):
        assert cause in _refusal(verifier, token)
    with pytest.raises(GoogleNotConfigured):
        SignInTokens(google, frozenset(), None).verify(by_google, time.time())
    assert (providers.google.requests, providers.firebase.requests) == before


def test_a_session_token_of_our_own_is_no_id_token(
    tokens: SignInTokens, providers: Providers
) -> None:
    user = User(id=SUBJECT, email="ada@example.com", name=None, provider="google")
    session = SessionTokens(Signing([SECRET])).issue(user, time.time())
    before = providers.google.requests, providers.firebase.requests
    assert _refusal(tokens, session.text) == "another issuer"
    assert (providers.google.requests, providers.firebase.requests) == before


TEXT = st.text(st.characters(codec=None), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
FUZZ = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
CLAIMS = st.dictionaries(
    st.sampled_from([*google_claims(), *firebase_claims(), "hd", "nbf"]), JSON, max_size=3
)


@settings(FUZZ, max_examples=200)
@given(claims=CLAIMS, header=st.dictionaries(st.sampled_from(["alg", "kid", "typ", "x"]), JSON))
def test_whatever_a_provider_signs_is_an_identity_that_can_be_stored_or_refused(
    tokens: SignInTokens, providers: Providers, claims: dict[str, Any], header: dict[str, Any]
) -> None:
    for server, whole in (
        (providers.google, google_claims(**claims)),
        (providers.firebase, firebase_claims(**claims)),
    ):
        try:
            found = tokens.verify(server.keys[0].mint(whole, **header), time.time())
        except InvalidIdentityToken:
            continue
        text = "".join(known.subject for known in found.identities) + found.email
        text += found.name or ""
        assert "\0" not in text
        assert text.encode()


@settings(FUZZ, max_examples=300)
@given(st.data())
def test_whatever_a_client_sends_is_refused_and_nothing_else_happens(
    tokens: SignInTokens, providers: Providers, data: st.DataObject
) -> None:
    genuine = providers.google_token()
    start = data.draw(st.integers(0, len(genuine)))
    end = data.draw(st.integers(start, len(genuine)))
    token = data.draw(
        st.one_of(
            st.text(st.characters(codec=None)),
            st.just(genuine[:start] + data.draw(TEXT) + genuine[end:]),
        )
    )
    if token != genuine:
        _refusal(tokens, token)
