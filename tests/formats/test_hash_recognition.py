"""Which text is stored for a hash that another system wrote."""

from __future__ import annotations

import base64
import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.formats import hash_recognition
from shared.formats.foreign_hashes import Digest, UnusableHash, fingerprint
from shared.formats.hash_recognition import Scheme, recognise
from shared.formats.password_hashes import hash_problem
from tests.support.foreign_hashes import PEPPER, SIGNER_KEY, STORED, WRITTEN, Written

FIREBASE = WRITTEN["firebase"].text
_, _, _FIREBASE_COSTS, SALT, HASH = FIREBASE.split("$")


@pytest.mark.parametrize("name", STORED)
def test_what_is_stored_of_each_scheme_has_one_spelling_and_fits_the_column(name: str) -> None:
    assert hash_problem(STORED[name]) is None
    assert len(STORED[name]) <= 160
    assert recognise(STORED[name]) == STORED[name], "as it comes back from an export of ours"


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("bcrypt-2y", WRITTEN["bcrypt-2y"].text),
        ("better-auth", "{nfkc}$scrypt$ln=14,r=16,p=1$MDAxMTIy"),
        ("django-pbkdf2", "$pbkdf2-sha256$i=260000$U3ludGgzdGljU2FsdDAwMDBEamFuZw$Y9ld"),
        ("django-argon2", "$argon2id$v=19$m=102400,t=2,p=8$MDEyMzQ1Njc4OWFiY2RlZg$Cz0j"),
        ("django-bcrypt-sha256", "{sha256-hex}$2b$12$abcdefghijklmnopqrstuu"),
        ("django-scrypt", "$scrypt$ln=14,r=8,p=5$U3ludGgzdGljU2FsdA$6TJu"),
        ("werkzeug-scrypt", "$scrypt$ln=15,r=8,p=1$"),
        ("werkzeug-pbkdf2", "$pbkdf2-sha256$i=1000000$"),
        ("passlib-pbkdf2", "$pbkdf2-sha256$i=29000$AAECAwQFBgcICQoLDA0ODw$"),
        ("phc-pbkdf2", "$pbkdf2-sha256$i=100000$AAECAwQFBgcICQoLDA0ODw$"),
        ("aspnet-v3", "$pbkdf2-sha512$i=100000$AAECAwQFBgcICQoLDA0ODw$"),
        ("aspnet-v2", "$pbkdf2-sha1$i=1000$AAECAwQFBgcICQoLDA0ODw$"),
        ("wordpress-6.8", "{wordpress}$2y$10$abcdefghijklmnopqrstuu"),
        ("phpass", "{trim}$P$Bsynth3ti"),
        ("drupal-7", "{trim}$S$Dsynth3ti"),
        ("devise", f"{{pepper:{fingerprint(PEPPER)}}}$2a$10$abcdefghijklmnopqrstuu"),
        ("meteor", "{sha256-hex}$2b$10$abcdefghijklmnopqrstuu"),
        ("ldap-ssha", WRITTEN["ldap-ssha"].text),
    ],
)
def test_each_system_has_its_place_in_few_families(name: str, stored: str) -> None:
    assert STORED[name].startswith(stored)


@pytest.mark.parametrize(
    "written",
    [
        Written(FIREBASE),
        Written(f"$firescrypt$ln=14,r=8,p=1${SALT}${HASH}$Bw==${SIGNER_KEY}"),
        Written(f"{HASH}${SALT}${SIGNER_KEY}$Bw==$8$14"),
        Written(f"$f_scrypt${HASH}${SALT}$m=14$r=8$s=Bw==", key=SIGNER_KEY),
    ],
)
def test_the_ways_to_write_firebases_scrypt_are_one_and_none_keeps_the_signer_key(
    written: Written,
) -> None:
    assert written.stored() == STORED["firebase"]
    name = fingerprint(SIGNER_KEY)
    kept = written.stored(SIGNER_KEY)
    assert kept == f"$firebase-scrypt$ln=14,r=8,sep=Bw,k={name}${SALT[:-2]}${HASH.rstrip('=')}"
    parameters = hash_recognition.firebase(
        HASH, SALT, "Bw==", rounds=8, mem_cost=14, signer_key=SIGNER_KEY
    )
    assert parameters == STORED["firebase"]
    key = base64.b64decode(SIGNER_KEY)
    for stored in (kept, parameters):
        assert key not in base64.b64decode(stored.split("$")[-1] + "==")
        assert SIGNER_KEY[:20] not in stored


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("$H$9Bsynth3tiWr68tgUr1fB2bBS2cW0o.", "$P$9Bsynth3tiWr68tgUr1fB2bBS2cW0o."),
        ("{ssha}3HYXY1RXiZmbOpJr8U2NBIVfc/hzYWx0", "{SSHA}3HYXY1RXiZmbOpJr8U2NBIVfc/hzYWx0"),
        (f"bcrypt${WRITTEN['bcrypt'].text}", WRITTEN["bcrypt"].text),
        (f"U{WRITTEN['drupal-7'].text}", f"{{trim-md5-hex}}{WRITTEN['drupal-7'].text}"),
        (WRITTEN["phpass"].text, WRITTEN["phpass"].text),
    ],
)
def test_spellings_that_mean_the_same_are_stored_alike(written: str, stored: str) -> None:
    assert recognise(written) == stored


def test_a_scheme_that_looks_like_another_has_to_be_named() -> None:
    bcrypt = WRITTEN["bcrypt"].text
    assert recognise(bcrypt) == recognise(bcrypt, "devise") == bcrypt
    assert recognise(bcrypt, "meteor") == f"{{sha256-hex}}{bcrypt}"
    assert recognise(bcrypt, "wordpress") == f"{{trim}}{bcrypt}"
    others: tuple[tuple[str, Scheme, str], ...] = (
        (STORED["aspnet-v2"], "devise", "not bcrypt, as Devise's are"),
        (STORED["aspnet-v2"], "meteor", "not bcrypt or argon2id, as Meteor's are"),
        (STORED["drupal-7"], "wordpress", "not bcrypt or phpass, as WordPress's are"),
    )
    for text, scheme, sentence in others:
        with pytest.raises(UnusableHash, match=sentence):
            recognise(text, scheme)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is of no form that can be verified."),
        ("correct horse 42", "is of no form that can be verified."),
        ("!LmNd0tHqVtE", "is of no form that can be verified."),
        ("x" * 1_000_000, "is of no form that can be verified."),
        (f"{WRITTEN['bcrypt'].text}\n", "is of no form that can be verified."),
        ("\ud800" * 60, "is of no form that can be verified."),
        ("$argon2i$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$a2V5", "is argon2i or argon2d, which cannot"),
        ("$argon2id$v=16$m=65536,t=3,p=4$c2FsdHNhbHQ$a2V5", "is argon2id of a version other than"),
        ("$6$saltsalt$" + "x" * 86, "is SHA-256 or SHA-512 crypt, which cannot"),
        ("5f4dcc3b5aa765d61d8327deb882cf99", "is a bare digest, which cannot be verified here."),
        ("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "is a digest without a salt, which cannot"),
        ("{SSHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "is LDAP's without a salt."),
        ("$2b$15$" + "." * 53, "has a cost outside 4 to 14."),
        ("scrypt:32767:8:1$salt$" + "0" * 128, "is scrypt with N = 32767, which is no power"),
        (
            "scrypt:1048576:8:1$salt$" + "0" * 128,
            "is scrypt with N = 2^20, r = 8 and p = 1, which takes more than 128 MiB.",
        ),
        (
            "scrypt:131072:8:3$salt$" + "0" * 128,
            "is scrypt with N = 2^17, r = 8 and p = 3, which takes more than a second.",
        ),
        ("scrypt:2:33:1$salt$" + "0" * 128, "N must be 2 or more, r 1 to 32 and p 1 to 32."),
        (
            f"$argon2id$v=19$m=2097152,t=1,p=1$c2FsdHNhbHQ${'A' * 43}",
            "is argon2id with m = 2097152, t = 1 and p = 1, which takes more than 128 MiB.",
        ),
        (
            f"$argon2id$v=19$m=65536,t=17,p=1$c2FsdHNhbHQ${'A' * 43}",
            "is argon2id with m = 65536, t = 17 and p = 1, which takes more than a second.",
        ),
        (f"$argon2id$v=19$m=65536,t=1,p=64$c2FsdHNhbHQ${'A' * 43}", "1 to 16 lanes"),
        (
            f"pbkdf2_sha256$4000001$salt${'A' * 43}=",
            "is PBKDF2 (sha256) with 4000001 iterations for a key of 32 bytes, which takes",
        ),
        (f"pbkdf2:sha256:2000001$salt${'0' * 128}", "for a key of 64 bytes, which takes more"),
        (f"pbkdf2:md5:1000$salt${'0' * 32}", "is made with md5, which cannot be verified here."),
        (f"pbkdf2:secretsecretsecret:1000$salt${'0' * 64}", "is of no form that can be verified."),
        ("pbkdf2_sha256$1000$salt$AAAA", "has a key of fewer than 16 bytes."),
        (
            f"$pbkdf2-sha256$i=1000,l=64$c2FsdHNhbHQ${'A' * 43}",
            "is PBKDF2 with a key of 32 bytes, where it says 64.",
        ),
        ("$P$Q" + "." * 30, "is phpass with 2^28 iterations, which takes more than a second."),
        ("$S$4" + "." * 51, "is Drupal 7's with fewer than 2^7 iterations."),
        (f"$fbscrypt$v=1,n=20,r=8,p=1,ss=Bw==,sk={SIGNER_KEY}${SALT}${HASH}", "than 128 MiB."),
        (f"$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==,sk=QUJD${SALT}${HASH}", "another project's, or inc"),
        (f"$f_scrypt${HASH}${SALT}$m=14$r=8$s=Bw==", "without the signer key, which has to be"),
        (f"pbkdf2_sha256$1000${'s' * 240}${'A' * 43}=", "is of no form that can be verified."),
    ],
)
def test_what_can_never_be_verified_is_refused_in_a_sentence_that_quotes_nothing(
    text: str, sentence: str
) -> None:
    with pytest.raises(UnusableHash) as refused:
        recognise(text)
    assert sentence in str(refused.value)
    assert str(refused.value).startswith("The password's hash ")
    assert not any(part in str(refused.value) for part in text.split("$") if len(part) > 10)


def test_a_pepper_that_no_login_would_have_is_refused() -> None:
    with pytest.raises(UnusableHash, match="PASSWORD_PEPPERS does not hold it") as refused:
        recognise(WRITTEN["devise"].text, "devise", key=PEPPER, peppers=("another",))
    assert PEPPER not in str(refused.value)


@pytest.mark.parametrize(
    "header",
    [
        struct.pack(">BIII", 1, 3, 1000, 16),
        struct.pack(">BIII", 1, 1, 1000, 200),
        struct.pack(">BIII", 2, 1, 1000, 16),
        b"\0\1",
        b"\1",
    ],
)
def test_a_hash_of_aspnet_whose_header_is_wrong_is_none(header: bytes) -> None:
    with pytest.raises(UnusableHash):
        recognise(base64.b64encode(header + bytes(48)).decode())


_DIGESTS = st.sampled_from(("sha1", "sha256", "sha512"))
_BYTES = st.binary(min_size=8, max_size=32)
_KEYS = st.binary(min_size=16, max_size=64)


@given(_DIGESTS, _BYTES, _KEYS, st.integers(1, 8), st.integers(1, 1000))
def test_what_the_constructors_make_is_what_is_stored(
    digest: Digest, salt: bytes, key: bytes, few: int, some: int
) -> None:
    for stored in (
        hash_recognition.pbkdf2(digest, some, salt, key),
        hash_recognition.scrypt(2**few, few, few, salt, key),
        hash_recognition.argon2id(memory=8 * some, passes=few, lanes=1, salt=salt, key=key),
    ):
        assert recognise(stored) == stored


@given(
    st.text() | st.from_regex(r"\$[a-z0-9-]+\$[a-z0-9=,]{0,20}\$[A-Za-z0-9+/]*\$?", fullmatch=True)
)
def test_no_text_at_all_fails_in_another_way(text: str) -> None:
    with contextlib.suppress(UnusableHash):
        assert hash_problem(recognise(text)) is None
