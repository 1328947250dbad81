"""From what other systems write of a password's hash to the one text that is stored.

`recognise` is for a text; the functions beside it are for systems that give parameters. All of them
raise UnusableHash, whose sentence names the scheme and quotes nothing, for what could never be
verified: `foreign_hashes.parse` has the last word. Only an import needs this module.
"""

from __future__ import annotations

import binascii
import re
import struct
from collections.abc import Callable, Collection
from typing import Literal, get_args

from shared.formats.foreign_hashes import (
    DIGEST_BYTES,
    UNKNOWN,
    Digest,
    UnusableHash,
    base64_bytes,
    base64_text,
    digest_named,
    fingerprint,
)
from shared.formats.password_hashes import BCRYPT, BCRYPT_SHA256, hash_problem

Scheme = Literal["devise", "meteor", "wordpress"]
"""Who writes what somebody else writes, too, and means something else by it."""
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)

MAX_WRITTEN = 1000
"""Characters of a text that is looked at; the longest that any system writes has 250."""

_PRFS: tuple[Digest, ...] = ("sha1", "sha256", "sha512")
_HEADER = struct.Struct(">BIII")
_V2_ITERATIONS = 1000
_V2_BYTES = 1 + 16 + 32


def recognise(
    text: str,
    scheme: Scheme | None = None,
    *,
    key: str | None = None,
    peppers: Collection[str] = (),
) -> str:
    """Give the text that is stored for one that another system wrote. Raises UnusableHash.

    A `scheme` is named where the text alone does not tell: `devise` and `meteor` write plain
    bcrypt, `wordpress` plain phpass and bcrypt of passwords that it trims. `key` is what the text
    lacks: Devise's pepper, or the signer key of Firebase, in base64, which SuperTokens leaves out.
    `peppers` are those of PASSWORD_PEPPERS: Devise's has to be one of them.
    """
    if len(text) > MAX_WRITTEN or not text.isascii():
        raise UnusableHash(UNKNOWN)
    if scheme == "devise":
        return _checked(_devise(text, key, peppers))
    if scheme is not None:
        return _checked((_meteor if scheme == "meteor" else _wordpress)(text))
    for pattern, canonical in _SPELLINGS.items():
        if found := pattern.fullmatch(text):
            return _checked(canonical(found))
    if hash_problem(text) is None:
        return text  # As we store it, from an export of ours.
    return _of_firebase(text, key, peppers)


def lacks_key(text: str, scheme: Scheme | None) -> bool:
    """Tell whether the `key` of `recognise` is part of a text's meaning."""
    return scheme == "devise" or _SUPERTOKENS.fullmatch(text) is not None


def argon2id(*, memory: int, passes: int, lanes: int, salt: bytes, key: bytes) -> str:
    """Give the text of argon2id, version 19; `memory` is in KiB."""
    costs = f"m={memory},t={passes},p={lanes}"
    return _checked(f"$argon2id$v=19${costs}${base64_text(salt)}${base64_text(key)}")


def pbkdf2(digest: Digest, iterations: int, salt: bytes, key: bytes) -> str:
    """Give the text of PBKDF2 with HMAC; the key has its length from the maker."""
    return _checked(f"$pbkdf2-{digest}$i={iterations}${base64_text(salt)}${base64_text(key)}")


def scrypt(
    n: int, r: int, p: int, salt: bytes, key: bytes, *, preparation: Literal["", "nfkc"] = ""
) -> str:
    """Give the text of scrypt; N is a power of two. `nfkc` for passwords in that normal form."""
    if n < 2 or n & (n - 1):
        raise UnusableHash(f"The password's hash is scrypt with N = {n}, which is no power of two.")
    prefix = f"{{{preparation}}}" if preparation else ""
    costs = f"ln={n.bit_length() - 1},r={r},p={p}"
    return _checked(f"{prefix}$scrypt${costs}${base64_text(salt)}${base64_text(key)}")


def firebase(
    hash_: str,
    salt: str,
    separator: str,
    *,
    rounds: int,
    mem_cost: int,
    signer_key: str,
    peppers: Collection[str] = (),
) -> str:
    """Give the text of Firebase's scrypt from what its export and its hash parameters say.

    All texts are base64, `mem_cost` is the binary logarithm of N, and `rounds` is r. The signer key
    is the project's and does not come into the table. If it is one of `peppers` the text names it,
    and who has only the table cannot try passwords. If not, it is taken out of the hash, which was
    made of it by exclusive or with a stream that the password yields: then the stream itself is
    stored, and nobody needs the key any more.
    """
    signer, encrypted = base64_bytes(signer_key), base64_bytes(hash_)
    if len(signer) != len(encrypted):
        raise UnusableHash(
            f"The password's hash is Firebase's scrypt of {len(encrypted)} bytes, and the signer "
            f"key has {len(signer)}: it is another project's, or incomplete."
        )
    name = next((fingerprint(one) for one in peppers if _is_base64_of(one, signer)), "")
    if not name:
        encrypted = bytes(ours ^ theirs for ours, theirs in zip(encrypted, signer, strict=True))
    costs = f"ln={mem_cost},r={rounds},sep={base64_text(base64_bytes(separator))}"
    return _checked(
        f"$firebase-scrypt${costs}{f',k={name}' if name else ''}"
        f"${base64_text(base64_bytes(salt))}${base64_text(encrypted)}"
    )


def aspnet(text: str) -> str:
    """Give the text of a PasswordHash of ASP.NET Identity, version 2 or 3, in base64."""
    data = base64_bytes(text)
    if data[:1] == b"\0" and len(data) == _V2_BYTES:
        return pbkdf2("sha1", _V2_ITERATIONS, data[1:17], data[17:])
    if data[:1] != b"\1" or len(data) <= _HEADER.size:
        raise UnusableHash(UNKNOWN)
    _, prf, iterations, salt_length = _HEADER.unpack_from(data)
    salt, key = data[_HEADER.size :][:salt_length], data[_HEADER.size :][salt_length:]
    if prf >= len(_PRFS) or len(salt) != salt_length:
        raise UnusableHash(UNKNOWN)
    return pbkdf2(_PRFS[prf], iterations, salt, key)


def _of_firebase(text: str, key: str | None, peppers: Collection[str]) -> str:
    """Read the four ways to write Firebase's scrypt in one text."""
    if found := _SUPABASE.fullmatch(text):
        n, r, separator, signer, salt, hash_ = found.groups()
    elif found := _KRATOS.fullmatch(text):
        n, r, salt, hash_, separator, signer = found.groups()
    elif found := _CLERK.fullmatch(text):
        hash_, salt, signer, separator, r, n = found.groups()
    elif found := _SUPERTOKENS.fullmatch(text):
        hash_, salt, n, r, separator = found.groups()
        if key is None:
            raise UnusableHash(
                "The password's hash is Firebase's scrypt without the signer key, which has to be "
                "given: base64_signer_key of Firebase's hash parameters."
            )
        signer = key
    else:
        raise UnusableHash(_what_it_is(text))
    return firebase(
        hash_, salt, separator, rounds=int(r), mem_cost=int(n), signer_key=signer, peppers=peppers
    )


def _checked(text: str) -> str:
    if problem := hash_problem(text):
        raise UnusableHash(problem)
    return text


def _is_base64_of(text: str, data: bytes) -> bool:
    try:
        return base64_bytes(text) == data
    except UnusableHash:
        return False


def _devise(text: str, pepper: str | None, peppers: Collection[str]) -> str:
    if not BCRYPT.fullmatch(text):
        raise UnusableHash("The password's hash is not bcrypt, as Devise's are.")
    if not pepper:
        return text
    if pepper not in peppers:
        raise UnusableHash(
            "The password's hash is Devise's with a pepper, and PASSWORD_PEPPERS does not hold it: "
            "it has to be set there, and where the service runs."
        )
    return f"{{pepper:{fingerprint(pepper)}}}{text}"


def _meteor(text: str) -> str:
    stored = recognise(text)
    if not stored.startswith(("$2", "$argon2id$")):
        raise UnusableHash("The password's hash is not bcrypt or argon2id, as Meteor's are.")
    return f"{{sha256-hex}}{stored}"


def _wordpress(text: str) -> str:
    stored = recognise(text)
    if stored.startswith("{wordpress}"):
        return stored
    if not stored.startswith(("$P$", "$2")):
        raise UnusableHash("The password's hash is not bcrypt or phpass, as WordPress's are.")
    return f"{{trim}}{stored}"


def _pbkdf2_of_django(found: re.Match[str]) -> str:
    digest, iterations, salt, key = found.groups()
    return pbkdf2(digest_named(digest), int(iterations), salt.encode(), base64_bytes(key))


def _scrypt_of_django(found: re.Match[str]) -> str:
    n, salt, r, p, key = found.groups()
    return scrypt(int(n), int(r), int(p), salt.encode(), base64_bytes(key))


def _pbkdf2_of_werkzeug(found: re.Match[str]) -> str:
    digest, iterations, salt, key = found.groups()
    return pbkdf2(digest_named(digest), int(iterations), salt.encode(), _hex_bytes(key))


def _scrypt_of_werkzeug(found: re.Match[str]) -> str:
    n, r, p, salt, key = found.groups()
    return scrypt(int(n), int(r), int(p), salt.encode(), _hex_bytes(key))


def _better_auth(found: re.Match[str]) -> str:
    # The salt is the text of its hex digits.
    return scrypt(16384, 16, 1, found[1].encode(), _hex_bytes(found[2]), preparation="nfkc")


def _passlib(found: re.Match[str]) -> str:
    digest, iterations, salt, key = found.groups()
    salt, key = salt.replace(".", "+"), key.replace(".", "+")
    return pbkdf2(
        digest_named(digest or "sha1"), int(iterations), base64_bytes(salt), base64_bytes(key)
    )


def _pbkdf2_of_phc(found: re.Match[str]) -> str:
    digest, iterations, length, salt, text = found.groups()
    key = base64_bytes(text)
    if length is not None and int(length) != len(key):
        raise UnusableHash(
            f"The password's hash is PBKDF2 with a key of {len(key)} bytes, where it says {length}."
        )
    return pbkdf2(digest_named(digest), int(iterations), base64_bytes(salt), key)


def _argon2id_of_phc(found: re.Match[str]) -> str:
    memory, passes, lanes, salt, key = found.groups()
    return argon2id(
        memory=int(memory),
        passes=int(passes),
        lanes=int(lanes),
        salt=base64_bytes(salt),
        key=base64_bytes(key),
    )


def _scrypt_of_phc(found: re.Match[str]) -> str:
    ln, r, p, salt, key = found.groups()
    return scrypt(2 ** min(int(ln), 64), int(r), int(p), base64_bytes(salt), base64_bytes(key))


def _ldap(found: re.Match[str]) -> str:
    length = DIGEST_BYTES[digest_named(f"sha{found[1] or 1}")]
    data = base64_bytes(found[2])
    if len(data) <= length:
        raise UnusableHash("The password's hash is LDAP's without a salt.")
    padded = base64_text(data) + "=" * (-len(base64_text(data)) % 4)
    return f"{{SSHA{found[1]}}}{padded}"


def _hex_bytes(text: str) -> bytes:
    try:
        return binascii.unhexlify(text)
    except binascii.Error:
        raise UnusableHash(UNKNOWN) from None


_BASE64, _HEX = "([A-Za-z0-9+/]+=*)", "([0-9A-Fa-f]+)"
_MAYBE_BASE64 = "([A-Za-z0-9+/]*=*)"
_NUMBER, _SALT = "([0-9]{1,10})", r"([^$\s]+)"
_BASE64_OF_PASSLIB, _DIGEST = "([A-Za-z0-9./]+)", "([a-z0-9]{1,10})"

_SUPABASE = re.compile(
    rf"\$fbscrypt\$v=1,n={_NUMBER},r={_NUMBER},p=1,ss={_MAYBE_BASE64},sk={_BASE64}"
    rf"\${_BASE64}\${_BASE64}"
)
_KRATOS = re.compile(
    rf"\$firescrypt\$ln={_NUMBER},r={_NUMBER},p=1\${_BASE64}\${_BASE64}\${_MAYBE_BASE64}\${_BASE64}"
)
_CLERK = re.compile(rf"{_BASE64}\${_BASE64}\${_BASE64}\${_MAYBE_BASE64}\${_NUMBER}\${_NUMBER}")
_SUPERTOKENS = re.compile(
    rf"\$f_scrypt\${_BASE64}\${_BASE64}\$m={_NUMBER}\$r={_NUMBER}\$s={_MAYBE_BASE64}"
)

_SPELLINGS: dict[re.Pattern[str], Callable[[re.Match[str]], str]] = {
    BCRYPT: lambda found: found[0],
    BCRYPT_SHA256: lambda found: found[0],
    re.compile(
        rf"(?:argon2)?\$argon2id\$v=19\$m={_NUMBER},t={_NUMBER},p={_NUMBER}\${_BASE64}\${_BASE64}"
    ): _argon2id_of_phc,
    re.compile(
        rf"\$scrypt\$ln={_NUMBER},r={_NUMBER},p={_NUMBER}\${_BASE64}\${_BASE64}"
    ): _scrypt_of_phc,
    re.compile(
        rf"\$pbkdf2-{_DIGEST}\$i={_NUMBER}(?:,l={_NUMBER})?\${_BASE64}\${_BASE64}"
    ): _pbkdf2_of_phc,
    re.compile(
        rf"\$pbkdf2(?:-(sha256|sha512))?\${_NUMBER}\${_BASE64_OF_PASSLIB}\${_BASE64_OF_PASSLIB}"
    ): _passlib,
    re.compile(rf"pbkdf2_(sha256|sha1)\${_NUMBER}\${_SALT}\${_BASE64}"): _pbkdf2_of_django,
    re.compile(rf"scrypt\${_NUMBER}\${_SALT}\${_NUMBER}\${_NUMBER}\${_BASE64}"): _scrypt_of_django,
    re.compile(rf"bcrypt\$({BCRYPT.pattern})"): lambda found: found[1],
    re.compile(rf"bcrypt_sha256\$({BCRYPT.pattern})"): lambda found: f"{{sha256-hex}}{found[1]}",
    re.compile(rf"pbkdf2:{_DIGEST}:{_NUMBER}\${_SALT}\${_HEX}"): _pbkdf2_of_werkzeug,
    re.compile(rf"scrypt:{_NUMBER}:{_NUMBER}:{_NUMBER}\${_SALT}\${_HEX}"): _scrypt_of_werkzeug,
    re.compile(r"([0-9A-Fa-f]{16,64}):([0-9A-Fa-f]{128})"): _better_auth,
    re.compile(rf"\$wp({BCRYPT.pattern})"): lambda found: f"{{wordpress}}{found[1]}",
    re.compile(r"\$[PH](\$[./0-9A-Za-z]{31})"): lambda found: f"$P{found[1]}",
    re.compile(r"\$S\$[./0-9A-Za-z]{52}"): lambda found: f"{{trim}}{found[0]}",
    re.compile(r"U(\$S\$[./0-9A-Za-z]{52})"): lambda found: f"{{trim-md5-hex}}{found[1]}",
    re.compile(rf"\{{(?i:SSHA)(256|512|)\}}{_BASE64}"): _ldap,
    re.compile(r"A[AQ][A-Za-z0-9+/]{40,}=*"): lambda found: aspnet(found[0]),
}
"""Each way to write a hash that says all that is needed, and what is stored of it."""

_NAMED = (
    (r"\$argon2i\$|\$argon2d\$|argon2\$argon2[id]\$", "argon2i or argon2d"),
    (r"(argon2)?\$argon2id\$", "argon2id of a version other than 19, or with more than m, t and p"),
    (r"\$1\$|\$apr1\$|md5\$", "MD5"),
    (r"\$5\$|\$6\$", "SHA-256 or SHA-512 crypt"),
    (r"sha1\$", "SHA-1"),
    (r"\{SHA(256|512)?\}|\{MD5\}", "a digest without a salt"),
    (r"([0-9A-Fa-f]{32}|[0-9A-Fa-f]{40}|[0-9A-Fa-f]{64})$", "a bare digest"),
    (r"\{CRYPT\}", "of the crypt of a Unix"),
)


def _what_it_is(text: str) -> str:
    for pattern, name in _NAMED:
        if re.match(pattern, text):
            return f"The password's hash is {name}, which cannot be verified here."
    return UNKNOWN
