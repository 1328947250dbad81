"""What must be read again: encrypted for one user, by one key of several."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.credentials.encryption import CannotDecrypt, Encryption
from shared.environment import InvalidSettings
from shared.model.user_record import ENCRYPTED
from shared.settings import Settings

ONE, TWO = bytes(range(32)), bytes(range(32, 64))
ADA, EVE = "4f1d0c1e-0000-4000-8000-000000000001", "4f1d0c1e-0000-4000-8000-000000000002"
SECRET = "JBSWY3DPEHPK3PXP"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=100))
def test_what_is_encrypted_is_read_again_and_hides_its_text(text: str) -> None:
    sealed = Encryption([ONE]).encrypt(text, ADA)
    assert Encryption([ONE]).decrypt(sealed, ADA) == text
    assert len(sealed) <= 12 + (28 + 4 * 100) * 4 / 3 + 1


def test_a_secret_of_a_second_factor_fits_its_column() -> None:
    for length in (16, 32, 52, 103):
        assert ENCRYPTED.fullmatch(Encryption([ONE]).encrypt("A" * length, ADA))


def test_the_same_of_the_same_user_is_the_same_and_of_another_is_not() -> None:
    encryption = Encryption([ONE])
    assert encryption.encrypt(SECRET, ADA) == encryption.encrypt(SECRET, ADA)
    others = [encryption.encrypt(SECRET, EVE), encryption.encrypt(f"{SECRET}A", ADA)]
    nonces = {sealed[12:28] for sealed in (encryption.encrypt(SECRET, ADA), *others)}
    assert len(nonces) == 3


def test_the_first_key_encrypts_and_all_decrypt() -> None:
    sealed = Encryption([ONE]).encrypt(SECRET, ADA)
    rotated = Encryption([TWO, ONE])
    assert rotated.decrypt(sealed, ADA) == SECRET
    assert rotated.encrypt(SECRET, ADA).split(".")[0] != sealed.split(".")[0]
    with pytest.raises(CannotDecrypt, match="no key of ENCRYPTION_KEY"):
        Encryption([TWO]).decrypt(sealed, ADA)


@pytest.mark.parametrize("change", ["user", "last", "short", "empty", "text", "key"])
def test_what_is_altered_is_not_read(change: str) -> None:
    sealed = Encryption([ONE]).encrypt(SECRET, ADA)
    user = EVE if change == "user" else ADA
    altered = {
        "user": sealed,
        "last": sealed[:-2] + ("A" if sealed[-2] != "A" else "B") + sealed[-1],
        "short": sealed[:20],
        "empty": sealed.split(".")[0] + ".",
        "text": sealed.split(".")[0] + ".ä",
        "key": sealed[1:],
    }[change]
    with pytest.raises(CannotDecrypt):
        Encryption([ONE]).decrypt(altered, user)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("AAAA", "must list keys of 32 random bytes"),
        ("not base64!", "must list keys of 32 random bytes"),
        ("A" * 43 + "=", "must list keys of 32 random bytes"),
        ("{0},", "must list keys of 32 random bytes"),
        ("{0},{0}", "lists the same key twice"),
    ],
)
def test_a_key_that_is_none_stops_the_start(text: str, problem: str) -> None:
    key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    with pytest.raises(InvalidSettings, match=problem) as caught:
        Settings.from_env({"ENCRYPTION_KEY": text.format(key)})
    assert key not in str(caught.value)
    assert Settings.from_env({"ENCRYPTION_KEY": key}).credentials.encryption_keys == (ONE,)
