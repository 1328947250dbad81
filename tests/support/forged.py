"""Tokens that no provider made, or that no encoder writes, around one that is genuine."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate

from tests.support.google import Key, claims_now, encode

KEY = Key("key-1")
"""Of the service account's tokens."""
_OTHER_KEY = Key("another-key")
_NESTED = '{"a":' * 100_000


def forged_tokens(key: Key, claims: dict[str, Any]) -> dict[str, str]:
    """Give the tokens by what is wrong with them; all say the claims, as far as they say any."""
    genuine = key.mint(claims)
    header, payload, signature = genuine.split(".")
    text = json.dumps(claims)
    rs256 = {"alg": "RS256", "kid": key.kid}
    public = load_pem_x509_certificate(key.certificate.encode()).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    own = ec.generate_private_key(ec.SECP256R1())
    es256 = f"{encode(json.dumps({'alg': 'ES256', 'kid': key.kid}).encode())}.{payload}"
    other = json.dumps(claims | {"sub": "somebody-else"}).encode()
    return {
        "nothing": "",
        "no JWT": "garbage",
        "dots only": "..",
        "four segments": f"{genuine}.{signature}",
        "an encrypted one's five": f"{header}.{payload}.{payload}.{payload}.{signature}",
        "no signature": f"{header}.{payload}.",
        "half a signature": genuine[: -len(signature) // 2],
        "another key's signature": _OTHER_KEY.mint(claims, kid=key.kid),
        "altered claims": f"{header}.{encode(other)}.{signature}",
        "an altered header": f"{encode(json.dumps(rs256).encode())}.{payload}.{signature}",
        "algorithm none": key.mint(claims, alg="none").rpartition(".")[0] + ".",
        "algorithm None": key.mint(claims, alg="None"),
        "HS256 with the public key": _hs256(rs256, payload, pem),
        "HS256 with the certificate": _hs256(rs256, payload, key.certificate.encode()),
        "HS384": key.mint(claims, alg="HS384"),
        "RS512": key.mint(claims, alg="RS512"),
        "PS256": key.mint(claims, alg="PS256"),
        "ES256": key.mint(claims, alg="ES256"),
        "ES256 with a key of one's own": f"{es256}."
        + encode(own.sign(es256.encode(), ec.ECDSA(hashes.SHA256()))),
        "no algorithm": key.mint(claims, alg=None),
        "an algorithm in small letters": key.mint(claims, alg="rs256"),
        "an algorithm that is a list": key.mint(claims, alg=["RS256"]),
        "unknown kid": _OTHER_KEY.mint(claims),
        "no kid": key.mint(claims, kid=None),
        "an empty kid": key.mint(claims, kid=""),
        "a kid that is a list": key.mint(claims, kid=[key.kid]),
        "a kid that is an object": key.mint(claims, kid={key.kid: key.kid}),
        "a kid that is half of a surrogate pair": key.mint(claims, kid="\ud800"),
        "a key of its own": key.mint(claims, jwk={"kty": "oct", "k": "AA"}),
        "an address for its key": key.mint(claims, jku="https://evil.example/keys"),
        "a certificate of its own": key.mint(claims, x5c=[_OTHER_KEY.certificate]),
        "a critical extension": key.mint(claims, crit=["exp"]),
        "an unencoded payload": key.mint(claims, b64=False),
        "a megabyte": "x" * 1_000_000,
        "a megabyte of a JWT": key.mint(claims | {"padding": "x" * 1_000_000}),
        "not ASCII": "é.é.é",
        "half of a surrogate pair": "\ud800.\ud800.\ud800",
        "not base64": "a.a.a",
        "padding": f"{genuine}=",
        "what base64 decoders skip": key.sign_segments(header, f"!!!!{payload}"),
        "bits that base64 decoders drop": f"{header}.{payload}.{_with_spare_bits(signature)}",
        "not UTF-8": encode(b"{\xff}") + ".e30.AA",
        "UTF-16": key.sign_segments(header, encode(text.encode("utf-16"))),
        "a byte order mark": key.raw_token(rs256, "\ufeff" + text),
        "data after the claims": key.raw_token(rs256, text + "{}"),
        "data after the header": key.sign_segments(
            encode(json.dumps(rs256).encode() + b"{}"), payload
        ),
        "a claim twice": key.raw_token(rs256, '{"sub": "x", ' + text[1:]),
        "a header parameter twice": key.sign_segments(
            encode(json.dumps(rs256)[:-1].encode() + b', "kid": "x"}'), payload
        ),
        "NaN": key.mint(claims | {"exp": float("nan")}),
        "claims that are a list": key.raw_token(rs256, "[]"),
        "a header that is a list": key.sign_segments(encode(b"[]"), payload),
        "no JSON": key.raw_token(rs256, "{"),
        "nested deeply": key.raw_token(rs256, _NESTED),
        "nested as deeply as fits": f"{encode(b'[' * 6000)}.e30.AA",
        "claims nested as deeply as fits": key.raw_token(rs256, "[" * 5000),
        "a number of 5,000 digits": f"{encode(b'9' * 5000)}.e30.AA",
        "a time of 1e308": key.mint(claims | {"exp": 1e308}),
    }


def _hs256(header: dict[str, str], payload: str, secret: bytes) -> str:
    signed = f"{encode(json.dumps(header | {'alg': 'HS256'}).encode())}.{payload}"
    return f"{signed}.{encode(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def _with_spare_bits(signature: str) -> str:
    """Change the last character so that generous decoders give the same 256 bytes."""
    assert len(signature) == 342  # 4 of the last character's 6 bits are no data.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return signature[:-1] + alphabet[alphabet.index(signature[-1]) + 1]


FORGED = forged_tokens(KEY, claims_now())
