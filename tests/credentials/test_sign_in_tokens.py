"""As whom Google's and Firebase's ID tokens sign a user in."""

from __future__ import annotations

import time

import pytest

from shared.application import Application
from shared.credentials import id_tokens
from shared.credentials.id_tokens import Identity, IdTokens, SignInTokens
from shared.credentials.settings import CredentialSettings
from shared.model.users import ExternalIdentity, IdToken
from shared.settings import Settings
from tests.support.google import (
    CLIENT_ID,
    PROJECT,
    SUBJECT,
    Providers,
)

GOOGLE, FIREBASE = "https://accounts.google.com", f"https://securetoken.google.com/{PROJECT}"
OTHER_CLIENT_ID = "9876543210-f5e4d3c2b1a0.apps.googleusercontent.com"
UID = "vXq3mFirebaseUid"


@pytest.fixture
def google(providers: Providers, monkeypatch: pytest.MonkeyPatch) -> IdTokens:
    providers.serve_this_process(monkeypatch)
    return IdTokens(id_tokens.GOOGLE)


@pytest.fixture
def tokens(google: IdTokens) -> SignInTokens:
    return SignInTokens(google, {CLIENT_ID, OTHER_CLIENT_ID}, PROJECT)


@pytest.mark.parametrize("issuer", [GOOGLE, "accounts.google.com"])
@pytest.mark.parametrize("client_id", [CLIENT_ID, OTHER_CLIENT_ID])
def test_a_person_at_google_has_one_identity_through_each_of_the_clients(
    tokens: SignInTokens, providers: Providers, issuer: str, client_id: str
) -> None:
    token = providers.google_token(iss=issuer, aud=client_id, azp="an Android app", iat=1_800_000)
    found = tokens.verify(token, time.time())
    assert found == Identity(
        issuer=GOOGLE,
        subject=SUBJECT,
        email="ada.lovelace@gmail.com",
        provider="google",
        name="Ada Lovelace",
        is_authoritative=True,
        auth_time=1_800_000,
    )
    assert found.identities == (ExternalIdentity(GOOGLE, SUBJECT),)


def test_a_person_at_firebase_is_known_by_its_identity_and_by_googles(
    tokens: SignInTokens, providers: Providers
) -> None:
    found = tokens.verify(providers.firebase_token(auth_time=1_700_000), time.time())
    assert found == Identity(
        issuer=FIREBASE,
        subject=UID,
        email="ada.lovelace@gmail.com",
        provider="firebase-google",
        name="Ada Lovelace",
        is_authoritative=True,
        also=(ExternalIdentity(GOOGLE, SUBJECT),),
        auth_time=1_700_000,
    )
    directly = tokens.verify(providers.google_token(), time.time())
    assert found.identities == (ExternalIdentity(FIREBASE, UID), *directly.identities)


def test_a_token_is_known_by_what_was_signed_until_it_expires(
    tokens: SignInTokens, providers: Providers
) -> None:
    now = int(time.time())
    for mint in (providers.google_token, providers.firebase_token):
        token = mint(exp=now + 100)
        known = tokens.verify(token, now).token
        assert known.seconds == 110
        assert tokens.verify(token, now + 5).token == IdToken(known.id, 105)
        assert known.id not in token
        assert known.id != tokens.verify(mint(exp=now + 101), now).token.id
        assert tokens.verify(mint(exp=now + 10**12), now).token.seconds == 86_400


def test_the_limits_themselves_are_accepted(tokens: SignInTokens, providers: Providers) -> None:
    now = time.time()
    longest = tokens.verify(providers.google_token(sub="x" * 255, azp=None), now)
    assert len(longest.subject) == 255
    longest = tokens.verify(providers.firebase_token(sub="x" * 128, subject="y" * 255), now)
    assert [len(known.subject) for known in longest.identities] == [128, 255]


def test_many_tokens_of_users_and_administrators_need_one_fetch_from_each_provider(
    google: IdTokens, tokens: SignInTokens, providers: Providers
) -> None:
    before = providers.google.requests, providers.firebase.requests
    for _ in range(3):
        google.verify(
            providers.google_token(aud="https://admin.example"),
            "https://admin.example",
            time.time(),
        )
        tokens.verify(providers.google_token(), time.time())
        tokens.verify(providers.firebase_token(), time.time())
    assert (providers.google.requests, providers.firebase.requests) == (
        before[0] + 1,
        before[1] + 1,
    )


@pytest.mark.parametrize(
    ("email", "key"),
    [
        ("ADA@Example.COM", "ada@example.com"),
        ("o'brien@example.ie", "o'brien@example.ie"),
        ("x@xn--bcher-kva.example", "x@bücher.example"),
        ("ümlaut@example.de", "ümlaut@example.de"),
    ],
)
def test_the_address_is_given_as_the_key_that_a_sign_up_would_store(
    tokens: SignInTokens, providers: Providers, email: str, key: str
) -> None:
    for mint in (providers.google_token, providers.firebase_token):
        assert tokens.verify(mint(email=email), time.time()).email == key


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("  Ada  ", "Ada"),
        ("Ångström", "Ångström"),
        ("小林 😀", "小林 😀"),
        ("x" * 100, "x" * 100),
        ("x" * 101, "x" * 100),
        ("x" * 99 + " y", "x" * 99),
        (None, None),
        ("", None),
        (" ", None),
        (7, None),
        (["Ada"], None),
        ({"given": "Ada"}, None),
        ("Ada\0", None),
        ("Ada\nLovelace", None),
        ("Ada\x1b[31m", None),
        ("Ada\x85", None),
        ("Ada\ud800", None),
    ],
)
def test_a_name_is_kept_if_it_can_be_shown_and_never_a_reason_to_refuse(
    tokens: SignInTokens, providers: Providers, name: object, kept: str | None
) -> None:
    for mint in (providers.google_token, providers.firebase_token):
        assert tokens.verify(mint(name=name), time.time()).name == kept


@pytest.mark.parametrize(
    ("email", "hosted_domain", "by_google", "by_firebase"),
    [
        ("ada@gmail.com", None, True, True),
        ("ADA@GMail.com", None, True, True),
        ("ada@googlemail.com", None, True, True),
        ("ada@example.com", "example.com", True, False),
        ("Ada@Example.com", "example.com", True, False),
        ("ada@example.com", None, False, False),
        ("ada@example.com", "", False, False),
        ("ada@example.com", "other.example", False, False),
        ("ada@example.com", "gmail.com", False, False),
        ("ada@sub.example.com", "example.com", False, False),
        ("ada@example.com", ["example.com"], False, False),
        ("ada@example.com", {"example.com": True}, False, False),
        ("ada@example.com", True, False, False),
        ("ada@gmail.com.example.net", None, False, False),
        ("ada@notgmail.com", None, False, False),
        ("ada@mail.gmail.com", None, False, False),
        ("ada@\uff47mail.com", None, False, False),
        ("äda@gmail.com", None, False, False),
    ],
)
def test_google_has_authority_over_the_addresses_that_it_gives_out_itself(
    tokens: SignInTokens,
    providers: Providers,
    email: str,
    hosted_domain: object,
    by_google: bool,
    by_firebase: bool,
) -> None:
    by = providers.google_token(email=email, hd=hosted_domain)
    assert tokens.verify(by, time.time()).is_authoritative is by_google
    by = providers.firebase_token(email=email, hd=hosted_domain)
    assert tokens.verify(by, time.time()).is_authoritative is by_firebase


def test_the_settings_say_whose_tokens_are_taken(
    providers: Providers, monkeypatch: pytest.MonkeyPatch
) -> None:
    providers.serve_this_process(monkeypatch)
    settings = CredentialSettings(google_client_ids=(CLIENT_ID,), firebase_project_id=PROJECT)
    app = Application(Settings(credentials=settings))
    tokens = app.sign_in_tokens
    assert tokens is app.sign_in_tokens
    assert tokens.verify(providers.google_token(), time.time()).provider == "google"
    assert tokens.verify(providers.firebase_token(), time.time()).provider == "firebase-google"
