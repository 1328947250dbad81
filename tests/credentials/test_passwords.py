"""How passwords are hashed, today's way and the old server's."""

from __future__ import annotations

import unicodedata

import bcrypt
import pytest

from shared.credentials import passwords
from shared.credentials.passwords import PasswordHasher

HASHER = PasswordHasher(4)


def _old(password: str, rounds: int = 4) -> str:
    """Hash as the old server did: the first 72 bytes as typed."""
    salt = bcrypt.gensalt(rounds, prefix=b"2a")
    return bcrypt.hashpw(password.encode()[:72], salt).decode()


@pytest.mark.parametrize(
    "password", ["x", "correct horse", "pässwörd", "😀" * 18, "x" * 72, "x" * 73, "é" * 2000, " "]
)
def test_a_password_verifies_against_its_own_hash_only(password: str) -> None:
    stored = HASHER.hash(password)
    assert HASHER.verify(password, stored)
    assert not HASHER.verify(password + "x", stored)
    assert not HASHER.verify(password[:-1], stored)
    assert not HASHER.needs_rehash(password, stored)
    assert stored != HASHER.hash(password)


def test_passwords_that_differ_only_after_72_bytes_differ() -> None:
    stored = HASHER.hash("x" * 72 + "one")
    assert HASHER.verify("x" * 72 + "one", stored)
    assert not HASHER.verify("x" * 72 + "two", stored)
    assert not HASHER.verify("x" * 72, stored)
    assert not HASHER.verify("x" * 72, HASHER.hash("x" * 73))


def test_a_long_password_is_stored_in_the_published_format() -> None:
    # From passlib's documentation of bcrypt_sha256, version 2.
    published = (
        "$bcrypt-sha256$v=2,t=2b,r=12$n79VH.0Q2TMWmt3Oqt9uku$Kq4Noyk3094Y2QlB8NdRT8SvGiI4ft2"
    )
    password = "password"
    salt22 = published.split("$")[3]
    condensed = passwords._condensed(password.encode(), salt22)
    digest = bcrypt.hashpw(condensed, f"$2b$12${salt22}".encode()).decode()[-31:]
    assert published.endswith(digest)


@pytest.mark.parametrize("prefix", ["$2a$", "$2b$", "$2y$"])
def test_old_hashes_verify_whatever_their_prefix(prefix: str) -> None:
    stored = prefix + _old("correct horse")[4:]
    assert HASHER.verify("correct horse", stored)
    assert not HASHER.verify("correct horsf", stored)


def test_an_old_hash_is_verified_as_the_old_server_made_it() -> None:
    assert HASHER.verify("y" * 97, _old("y" * 97))
    decomposed = unicodedata.normalize("NFD", "café-naïve-pass")
    assert HASHER.verify(decomposed, _old(decomposed))
    assert not HASHER.verify(unicodedata.normalize("NFC", decomposed), _old(decomposed))


def test_a_new_password_is_the_same_in_every_normal_form() -> None:
    for text in ("café-naïve-pass", "é" * 60):
        stored = HASHER.hash(unicodedata.normalize("NFD", text))
        assert HASHER.verify(unicodedata.normalize("NFC", text), stored)
        assert HASHER.verify(unicodedata.normalize("NFD", text), stored)


@pytest.mark.parametrize(
    "stored",
    [
        None,
        "",
        "plain text",
        "$2b$04$short",
        "$2b$31$" + "." * 53,
        "$2b$15$" + "." * 53,
        "$2b$03$" + "." * 53,
        "$2b$00$" + "." * 53,
        "$2x$04$" + "." * 53,
        "$argon2id$v=19$m=65536,t=3,p=4$abc$def",
        "$bcrypt-sha256$v=2,t=2b,r=31$" + "." * 22 + "$" + "." * 31,
        "$bcrypt-sha256$v=2,t=2b,r=0$" + "." * 22 + "$" + "." * 31,
        "$2b$04$" + "\u00e9" * 53,
    ],
)
def test_a_missing_foreign_or_costly_hash_is_a_wrong_password(stored: str | None) -> None:
    assert not HASHER.verify("", stored)
    assert not HASHER.verify("x" * 100, stored)


@pytest.mark.parametrize("password", ["plain", "x" * 100, unicodedata.normalize("NFD", "é" * 9)])
def test_a_no_costs_the_same_work_whatever_is_stored(
    password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasher = PasswordHasher(7)
    stored = [
        None,
        "corrupt",
        "$2b$07$" + "z" * 53,  # of the right form, and refused by bcrypt
        "$2b$31$" + "." * 53,
        hasher.hash("another"),
        hasher.hash("another" * 20),
        HASHER.hash("another"),
        HASHER.hash("another" * 20),
        _old("another", rounds=5),
        _old("another" * 20, rounds=6),
    ]
    work: list[int] = []
    checkpw = bcrypt.checkpw

    def counting(candidate: bytes, target: bytes) -> bool:
        outcome = checkpw(candidate, target)
        work[-1] += 2 ** int(target[4:6])
        return outcome

    monkeypatch.setattr(bcrypt, "checkpw", counting)
    for hash_ in stored:
        work.append(0)
        assert not hasher.verify(password, hash_)
    assert len(set(work)) == 1, work


def test_a_hash_below_todays_rules_needs_a_new_one() -> None:
    higher = PasswordHasher(5)
    decomposed = unicodedata.normalize("NFD", "café-naïve-pass")
    assert higher.needs_rehash("x", HASHER.hash("x"))
    assert higher.needs_rehash("x" * 100, HASHER.hash("x" * 100))
    assert HASHER.needs_rehash("y" * 97, _old("y" * 97))
    assert HASHER.needs_rehash(decomposed, _old(decomposed))
    assert not HASHER.needs_rehash("x", _old("x"))
    assert not HASHER.needs_rehash("x", higher.hash("x"))
    assert not HASHER.needs_rehash(decomposed, HASHER.hash(decomposed))
