"""Compact JWTs: nothing that is not exactly as ours are is verified, for every algorithm."""

from __future__ import annotations

import base64
import itertools
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import assume, given
from hypothesis import strategies as st

from shared.credentials.session_keys import parse
from shared.credentials.signing import VERSION, InvalidToken, Signing
from tests.support.forged import FORGED
from tests.support.session_keys import make_ed25519, make_p256, private_pem, public_pem
from tests.support.signers import (
    KEY,
    ORDER,
    OTHER,
    SIGNERS,
    Signer,
    encode,
    is_low,
    raw_signature,
    sign,
    twin,
)

TYPE = "test+jwt"
CLAIMS = {"sub": "a63472b0-a053-5c05-a7e6-582ae2e0bd53", "name": "Ada", "epoch": 3}


@pytest.fixture(params=SIGNERS, scope="module")
def signer(request: pytest.FixtureRequest) -> Signer:
    """Each algorithm's in turn."""
    return SIGNERS[request.param]


@pytest.fixture(scope="module")
def token(signer: Signer) -> str:
    """One that is verified."""
    found = signer.signing.sign(TYPE, CLAIMS)
    assert signer.signing.verify(TYPE, found) == CLAIMS | {"ver": VERSION}
    return found


def _assert_refused(signer: Signer, text: str, match: str | None = None) -> None:
    with pytest.raises(InvalidToken, match=match):
        signer.signing.verify(TYPE, text)


@pytest.mark.parametrize("text", FORGED.values(), ids=FORGED)
def test_what_others_make_assert_refused(text: str) -> None:
    _assert_refused(SIGNERS["HS256"], text)


@pytest.mark.parametrize(
    "headers",
    [
        {"typ": "JWT"},
        {"typ": TYPE.upper()},
        {"cty": "JWT"},
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
def test_a_header_that_is_not_exactly_ours_assert_refused(
    signer: Signer, token: str, headers: dict[str, Any]
) -> None:
    _assert_refused(signer, signer.forge(token, headers=headers))


@pytest.mark.parametrize("missing", ["typ", "kid"])
def test_a_header_member_may_not_be_missing(signer: Signer, token: str, missing: str) -> None:
    _assert_refused(signer, signer.forge(token, without=(missing,)))
    _assert_refused(signer, signer.forge(token, headers={missing: None}))


@pytest.mark.parametrize("algorithm", ["none", "HS256", "HS384", "HS512", "ES256", "EdDSA"])
def test_a_key_is_good_for_its_own_algorithm_only(
    signer: Signer, token: str, algorithm: str
) -> None:
    """Whatever an attacker may know or make signs in the name of our key, or with its own."""
    secrets: list[Any] = [OTHER.encode(), b""]
    if signer.algorithm != "HS256":
        pem = public_pem(signer.key)
        (jwk,) = Signing([], parse(private_pem(signer.key))).jwks()["keys"]
        spki = base64.b64decode("".join(pem.splitlines()[1:-1]))
        secrets += [pem.encode(), pem.strip().encode(), json.dumps(jwk).encode(), spki]
        secrets += [token.encode(), jwk["x"].encode(), KEY.encode()]
    others: dict[str, list[Any]] = {
        "none": [None],
        "ES256": [make_p256()],
        "EdDSA": [make_ed25519()],
    }
    keys = others.get(algorithm, secrets)
    if signer.algorithm != algorithm:
        keys += [each.key for each in SIGNERS.values() if each.algorithm == algorithm]
    header, claims, _ = token.split(".")
    renamed = encode(jwt.get_unverified_header(token) | {"alg": algorithm})
    for key in keys:
        for head in (renamed, header):
            _assert_refused(signer, sign(f"{head}.{claims}", algorithm, key))


def test_the_algorithm_of_one_key_is_refused_under_the_name_of_another() -> None:
    curve, edwards = SIGNERS["ES256"], SIGNERS["EdDSA"]
    keys = parse(private_pem(curve.key) + private_pem(edwards.key))
    ring = Signing([KEY], keys)
    tokens = {name: signer.signing.sign(TYPE, CLAIMS) for name, signer in SIGNERS.items()}
    kids = {name: jwt.get_unverified_header(token)["kid"] for name, token in tokens.items()}
    for signs, name, claimed in itertools.product(SIGNERS, kids, SIGNERS):
        forged = SIGNERS[signs].forge(tokens[signs], headers={"kid": kids[name], "alg": claimed})
        if signs == name == claimed:
            assert ring.verify(TYPE, forged)
        else:
            with pytest.raises(InvalidToken):
                ring.verify(TYPE, forged)


def test_an_es256_signature_is_its_two_numbers_and_nothing_else() -> None:
    signer = SIGNERS["ES256"]
    token = signer.signing.sign(TYPE, CLAIMS)
    raw = raw_signature(token)
    assert len(raw) == 64
    r, s = raw[:32], raw[32:]
    der = encode_dss_signature(int.from_bytes(r), int.from_bytes(s))
    wrong = [
        der, raw + b"\0", b"\0" + raw, raw[:-1], b"", r, b"\0" * 64, s + r,
        r + b"\0" * 32, b"\0" * 32 + s, r + ORDER.to_bytes(32),
    ]  # fmt: skip
    for each in wrong:
        _assert_refused(signer, f"{token.rpartition('.')[0]}.{encode(each)}")


def test_the_other_spelling_of_an_es256_signature_assert_refused() -> None:
    signer = SIGNERS["ES256"]
    for _ in range(20):
        token = signer.signing.sign(TYPE, CLAIMS)
        raw = raw_signature(token)
        assert is_low(raw)
        assert signer.signing.verify(TYPE, token)
        _assert_refused(signer, f"{token.rpartition('.')[0]}.{encode(twin(raw))}", "spelling")


def test_an_altered_token_is_refused_wherever_it_was_altered(signer: Signer, token: str) -> None:
    for position, character in enumerate(token):
        swapped = "B" if character == "A" else chr(ord(character) ^ 1)
        _assert_refused(signer, token[:position] + swapped + token[position + 1 :])


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
        encode(b"[" * 3000) + ".e30.AA",
    ],
)
def test_what_is_not_a_compact_jwt_assert_refused(signer: Signer, token: str, form: str) -> None:
    _assert_refused(signer, form.format(token=token, signed=token.rpartition(".")[0]))


@given(text=st.one_of(st.text(), st.from_regex(r"[\w-]+\.[\w-]+\.[\w-]+", fullmatch=True)))
def test_no_text_makes_the_reader_fail_otherwise(signer: Signer, text: str) -> None:
    _assert_refused(signer, text)


@given(start=st.integers(0, 300), length=st.integers(0, 90), replacement=st.text(max_size=3))
def test_no_piece_of_a_token_can_be_replaced(
    signer: Signer, token: str, start: int, length: int, replacement: str
) -> None:
    altered = token[:start] + replacement + token[start + length :]
    assume(altered != token)
    _assert_refused(signer, altered)
