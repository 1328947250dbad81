"""What is a stored hash of another system, and what only looks like one."""

from __future__ import annotations

import pytest

from shared.formats.foreign_hashes import UnusableHash, parse
from shared.formats.password_hashes import hash_problem
from tests.support.foreign_hashes import FOREIGN


@pytest.mark.parametrize("stored", FOREIGN.values(), ids=FOREIGN)
def test_a_text_that_was_cut_off_lengthened_or_spelt_differently_is_none(stored: str) -> None:
    assert hash_problem(stored) is None
    costs = stored.rindex("$") if "$" in stored else 0
    for changed in (
        stored[:costs],
        stored[: costs + 6],
        stored + "\n",
        stored + "\0",
        stored + "=",
        " " + stored,
        stored[:-1] + "\ud800",
        stored[:-1] + "é",
        stored + "A" * 255,
        "{trim}" + "{trim}" + stored,
        "{pepper:0123}" + stored,
        "{rot13}" + stored,
    ):
        assert hash_problem(changed) is not None
        with pytest.raises(UnusableHash):
            parse(changed)


@pytest.mark.parametrize(
    "stored",
    [
        "$2b$10$" + "." * 53,
        "$pbkdf2-sha256$i=01000$c2FsdHNhbHQ$" + "A" * 43,
        "$pbkdf2-sha256$i=1000$c2FsdHNhbHQ$" + "A" * 42 + "B",
        "$pbkdf2-sha256$i=0$c2FsdHNhbHQ$" + "A" * 43,
        "$pbkdf2-sha256$i=99999999999$c2FsdHNhbHQ$" + "A" * 43,
        "$scrypt$ln=0,r=8,p=1$c2FsdHNhbHQ$" + "A" * 43,
        "$scrypt$ln=9999999999,r=8,p=1$c2FsdHNhbHQ$" + "A" * 43,
        "$argon2id$v=19$m=7,t=1,p=1$c2FsdHNhbHQ$" + "A" * 43,
        "$argon2id$v=19$m=64,t=0,p=1$c2FsdHNhbHQ$" + "A" * 43,
        "$argon2id$v=19$m=64,t=1,p=0$c2FsdHNhbHQ$" + "A" * 43,
        "$argon2id$v=19$m=64,t=1,p=1$c2FsdA$" + "A" * 43,
        "$argon2id$v=19$m=128,t=65,p=16$c2FsdHNhbHQ$" + "A" * 43,
        "$scrypt$ln=16,r=1,p=1$c2FsdHNhbHQ$" + "A" * 43,
        "$firebase-scrypt$ln=17,r=1,sep=Bw$c2FsdA$" + "A" * 86,
        "{pepper:0123456789abcdef}$firebase-scrypt$ln=14,r=8,sep=Bw$c2FsdA$" + "A" * 86,
        "{pepper:0123456789ABCDEF}$2b$10$" + "." * 53,
        "{trim}$2b$15$" + "." * 53,
        "{SSHA}" + "A" * 27,
        "{SSHA}" + "A" * 27 + "=",
        "{SSHA1}" + "A" * 32,
    ],
)
def test_a_stored_text_has_one_spelling_and_every_cost_its_bounds(stored: str) -> None:
    with pytest.raises(UnusableHash):
        parse(stored)
