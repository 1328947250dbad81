"""The keys of `SESSION_PRIVATE_KEY`: which are accepted, what they are called, what others see."""

from __future__ import annotations

import base64
import contextlib
import json
import uuid
from collections.abc import Callable
from functools import partial

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from shared.credentials.session_keys import InvalidSessionKeys, parse
from shared.credentials.session_tokens import SessionTokens
from shared.credentials.signing import Signing
from shared.environment import InvalidSettings
from shared.model.sessions import FRESH_SECONDS
from shared.model.users import User
from shared.settings import Settings
from shared.store.contract import Store
from tests.support.emulator import SECRET
from tests.support.session_keys import PrivateKey, make_ed25519, make_p256, private_pem, public_pem
from tests.support.stores import NOW, sessions_of

P256, ED25519 = make_p256(), make_ed25519()
SOUND = private_pem(P256)


def _problem(text: str) -> str:
    with pytest.raises(InvalidSettings) as caught:
        Settings.from_env({"SESSION_SECRET": SECRET, "SESSION_PRIVATE_KEY": text})
    (problem,) = caught.value.problems
    return problem


def _encrypted(key: PrivateKey, form: PrivateFormat) -> str:
    return key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"x")).decode()


def test_a_p256_key_is_for_es256_and_an_ed25519_key_for_eddsa() -> None:
    keys = parse(private_pem(P256) + private_pem(ED25519))
    assert [key.algorithm for key in keys] == ["ES256", "EdDSA"]
    assert all(key.sign for key in keys)


def test_further_keys_may_be_public_and_then_only_verify() -> None:
    signing, first, second = parse(SOUND + public_pem(ED25519) + public_pem(make_p256()))
    assert signing.sign
    assert first.sign is second.sign is None


@pytest.mark.parametrize(
    "text",
    [
        SOUND,
        SOUND.replace("\n", "\\n"),
        SOUND.replace("\n", "\r\n"),
        f"\n  {SOUND}\n\n",
        private_pem(P256, PrivateFormat.TraditionalOpenSSL),
    ],
)
def test_a_key_is_the_same_however_its_lines_end_and_whichever_form_it_has(text: str) -> None:
    (key,) = Settings.from_env({"SESSION_PRIVATE_KEY": text}).credentials.session_keys
    assert key.kid == parse(SOUND)[0].kid


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("secret-canary", "only PEM blocks"),
        (f"{SOUND}secret-canary", "only PEM blocks"),
        (SOUND[:-20], "only PEM blocks"),
        (SOUND + SOUND[:-20], "only PEM blocks"),
        (SOUND.replace("END PRIVATE", "END PUBLIC"), "only PEM blocks"),
        (SOUND.replace("MIG", "MIH"), "block 1 is damaged"),
        (SOUND + private_pem(ED25519).replace("MC4", "MC5"), "block 2 is damaged"),
        (SOUND.replace("M", "*"), "block 1 is damaged"),
        (public_pem(P256).replace("PUBLIC", "PRIVATE"), "block 1 is damaged"),
        (SOUND.replace("PRIVATE", "PUBLIC"), "block 1 is damaged"),
        (_encrypted(P256, PrivateFormat.PKCS8), "block 1 is encrypted"),
        (_encrypted(P256, PrivateFormat.TraditionalOpenSSL), "block 1 is encrypted"),
        (SOUND + _encrypted(ED25519, PrivateFormat.PKCS8), "block 2 is encrypted"),
        (public_pem(P256), "first key must be private"),
        (public_pem(P256) + private_pem(ED25519), "first key must be private"),
        (SOUND + SOUND, "lists the same key twice"),
        (SOUND + public_pem(ED25519) + public_pem(P256), "lists the same key twice"),
    ],
)
def test_an_unusable_list_of_keys_is_one_sentence_that_shows_nothing_of_it(
    text: str, sentence: str
) -> None:
    problem = _problem(text)
    assert problem.startswith("SESSION_PRIVATE_KEY cannot be used: ")
    assert sentence in problem
    assert problem.endswith(".")
    assert "canary" not in problem
    assert not any(line in problem for line in text.split() if len(line) > 20)


@pytest.mark.parametrize(
    "make",
    [
        partial(rsa.generate_private_key, public_exponent=65537, key_size=2048),
        partial(dsa.generate_private_key, 2048),
        partial(ec.generate_private_key, ec.SECP384R1()),
        partial(ec.generate_private_key, ec.SECP256K1()),
        ed448.Ed448PrivateKey.generate,
        x25519.X25519PrivateKey.generate,
    ],
    ids=["RSA", "DSA", "P-384", "secp256k1", "Ed448", "X25519"],
)
def test_a_key_of_another_kind_is_refused_whether_private_or_public(
    make: Callable[[], PrivateKey],
) -> None:
    key = make()
    assert "block 1 is not a P-256 or Ed25519 key" in _problem(private_pem(key))
    assert "block 2 is not a P-256 or Ed25519 key" in _problem(SOUND + public_pem(key))


@pytest.mark.parametrize("label", ["CERTIFICATE", "EC PARAMETERS", "OPENSSH PRIVATE KEY"])
def test_a_block_of_another_kind_is_refused(label: str) -> None:
    assert "block 1 is not a P-256" in _problem(SOUND.replace("PRIVATE KEY", label))


@given(position=st.integers(0, len(SOUND)), length=st.integers(0, 40), text=st.text())
def test_no_text_makes_the_reader_of_keys_fail_otherwise(
    position: int, length: int, text: str
) -> None:
    for each in (text, SOUND[:position] + text + SOUND[position + length :]):
        with contextlib.suppress(InvalidSessionKeys):
            assert parse(each)


def test_settings_never_show_a_private_key() -> None:
    settings = Settings.from_env({"SESSION_SECRET": SECRET, "SESSION_PRIVATE_KEY": SOUND})
    scalar = P256.private_numbers().private_value
    assert str(scalar) not in repr(settings)
    assert "PRIVATE" not in repr(settings)
    assert "object at" not in repr(settings)


def test_a_key_is_named_as_rfc_8037_does_it() -> None:
    """Appendix A.1 to A.3."""
    scalar = base64.urlsafe_b64decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
    (key,) = parse(private_pem(ed25519.Ed25519PrivateKey.from_private_bytes(scalar)))
    assert key.jwk == {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        "alg": "EdDSA",
        "use": "sig",
        "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
    }


def test_a_p256_key_is_written_as_rfc_7517_does_it() -> None:
    """Appendix A.1, with the name that Node's jose gives it."""
    x, y = (
        "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
    )
    d = "870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE"
    private = jwt.PyJWK({"kty": "EC", "crv": "P-256", "x": x, "y": y, "d": d}).key
    (key,) = parse(private_pem(private))
    assert key.jwk == {
        "kty": "EC",
        "crv": "P-256",
        "x": x,
        "y": y,
        "alg": "ES256",
        "use": "sig",
        "kid": "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s",
    }


def test_a_coordinate_keeps_its_leading_zeros() -> None:
    """RFC 7518, section 6.2.1.2: always 32 bytes, or others cannot read one key of 128."""
    for scalar in range(1, 2000):
        private = ec.derive_private_key(scalar, ec.SECP256R1())
        numbers = private.public_key().public_numbers()
        if min(numbers.x, numbers.y) < 1 << 248:
            break
    (key,) = parse(private_pem(private))
    assert key.jwk is not None
    assert len(key.jwk["x"]) == len(key.jwk["y"]) == 43
    token = SessionTokens(Signing([SECRET], [key])).issue(_user(), NOW).text
    header, claims, signature = token.split(".")
    decoded = base64.urlsafe_b64decode(signature + "==")
    others = jwt.PyJWK(key.jwk)
    assert others.Algorithm.verify(f"{header}.{claims}".encode(), others.key, decoded)


def test_the_set_of_keys_holds_every_public_key_and_nothing_secret() -> None:
    keys = parse(SOUND + private_pem(ED25519) + public_pem(make_p256()))
    found = Signing([SECRET], keys).jwks()
    assert [jwk["kid"] for jwk in found["keys"]] == [key.kid for key in keys]
    assert len(found["keys"]) == 3
    members = {"kty", "crv", "x", "alg", "use", "kid"}
    assert [jwk.keys() - {"y"} for jwk in found["keys"]] == [members] * 3
    assert [("y" in jwk) for jwk in found["keys"]] == [True, False, True]
    assert SECRET not in json.dumps(found)


def test_there_is_no_set_of_keys_without_a_key_pair() -> None:
    assert Signing([SECRET]).jwks() == {"keys": []}


def _user() -> User:
    return User(id=str(uuid.uuid4()), email="ada@example.com", name=None, provider="local")


def test_a_session_outlives_the_change_to_key_pairs_and_their_rotation(store: Store) -> None:
    """From HS256 to ES256, then to another key of ES256; renewed each time by the newest."""
    user = store.create_user(_user(), "hash")
    old, new = private_pem(make_p256()), private_pem(make_p256())
    steps = [
        Signing([SECRET]),
        Signing([SECRET], parse(old)),
        Signing([SECRET], parse(old + new)),
        Signing([SECRET], parse(new + old)),
        Signing([SECRET], parse(new)),
    ]
    issuer = SessionTokens(steps[0])
    now, text = NOW, issuer.issue(user, NOW).text
    first = issuer.read(text, now)
    for signing in steps[1:]:
        tokens = SessionTokens(signing)
        assert sessions_of(store, tokens).current_user(text, now) == (user, None)
        now += FRESH_SECONDS
        _, renewed = sessions_of(store, tokens).current_user(text, now)
        assert renewed is not None
        text = renewed.text
        session = tokens.read(text, now)
        assert (session.sid, session.ends_at, session.auth_time) == (
            first.sid,
            first.ends_at,
            first.auth_time,
        )
        header = jwt.get_unverified_header(text)
        assert (header["alg"], header["kid"]) == ("ES256", signing.jwks()["keys"][0]["kid"])
