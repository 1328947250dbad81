"""Hashes of other systems verify what their makers verify, and cost no more than is allowed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
import sys
import threading
import time
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import argon2
import bcrypt
import pytest
import werkzeug.security
from django.contrib.auth import hashers
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.application import Application
from shared.credentials import foreign_hashes
from shared.credentials.passwords import MEMORY_BUDGET, Budget, PasswordHasher
from shared.credentials.settings import CredentialSettings
from shared.errors import Overloaded
from shared.formats import hash_recognition
from shared.formats.foreign_hashes import ForeignHash, fingerprint, parse
from shared.formats.hash_recognition import recognise
from shared.formats.password_hashes import MIN_ROUNDS
from shared.settings import Settings
from tests.support.emulator import ROOT, environment
from tests.support.foreign_hashes import (
    CHEAP,
    FOREIGN,
    PASSWORD,
    PEPPER,
    SIGNER_KEY,
    STORED,
    WRITTEN,
)

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "'crypt' is deprecated", DeprecationWarning)
    import passlib.hash

HASHER = PasswordHasher(MIN_ROUNDS, peppers=(PEPPER,))


@pytest.mark.parametrize("name", STORED)
def test_a_hash_of_each_scheme_is_its_passwords_and_no_other_ones(name: str) -> None:
    assert HASHER.verify(PASSWORD, STORED[name])
    for other in ("", PASSWORD[:-1], PASSWORD + "x", PASSWORD.upper(), PASSWORD + "\0"):
        assert not HASHER.verify(other, STORED[name]), other


@pytest.mark.parametrize("name", FOREIGN)
def test_the_hash_of_a_password_with_another_salt_or_key_is_not_its(name: str) -> None:
    """One character changes, in the salt and then in the key."""
    stored = FOREIGN[name]
    if "SSHA" in stored:
        salt, key = len(stored) - 4, 8
    else:
        *_, last = stored.split("$")
        key = len(stored) - 12
        salt = len(stored) - len(last) + 4 if "$2" in stored else len(stored) - len(last) - 6
        if "$P$" in stored or "$S$" in stored:
            salt = len(stored) - len(last) + 3
    for place in (salt, key):
        other = "B" if stored[place] == "A" else "A"
        assert not HASHER.verify(PASSWORD, stored[:place] + other + stored[place + 1 :])


def test_the_public_vectors_verify() -> None:
    key = "jxspr8Ki0RYycVU8zykbdLGjFQ3McFUH0uiiTvC8pVMXAn210wjLNmdZJzxUECKbm0QsEmYUSDzZvpjeJ9WmXA=="
    hash_ = (
        "lSrfV15cpx95/sZS2W9c9Kp6i/LVgQNDNC/qzrCnh1SAyZvqmZqAjTdn3aoItz+VHjoZilo78198JAdRuid5lQ=="
    )
    for peppers in ((), (key,)):
        stored = hash_recognition.firebase(
            hash_, "42xEC+ixf3L2lw==", "Bw==", rounds=8, mem_cost=14, signer_key=key,
            peppers=peppers,
        )  # fmt: skip
        assert PasswordHasher(MIN_ROUNDS, peppers=peppers).verify("user1password", stored)
    assert HASHER.verify("password", recognise("$P$8ohUJ.1sdFw09/bMaAQPTGDNi2BIUt1"))


_PASSWORDS = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40
)
_SALTS = st.text("abcXYZ019", min_size=8, max_size=16)
_some = settings(max_examples=25, deadline=None)


def _agrees(password: str, other: str, written: str) -> None:
    stored = recognise(written)
    assert HASHER.verify(password, stored)
    assert HASHER.verify(other, stored) == (other == password)


class _CheapArgon2(hashers.Argon2PasswordHasher):  # type: ignore[misc]  # no types
    time_cost, memory_cost, parallelism = 1, 64, 2


class _CheapBcrypt(hashers.BCryptSHA256PasswordHasher):  # type: ignore[misc]  # no types
    rounds = 4


class _CheapScrypt(hashers.ScryptPasswordHasher):  # type: ignore[misc]  # no types
    work_factor = 2**4


@_some
@given(_PASSWORDS, _PASSWORDS, _SALTS)
def test_what_django_hashes_verifies(password: str, other: str, salt: str) -> None:
    for hasher in (hashers.PBKDF2PasswordHasher(), hashers.PBKDF2SHA1PasswordHasher()):
        _agrees(password, other, hasher.encode(password, salt, iterations=2))
    for hasher in (_CheapArgon2(), _CheapScrypt()):
        _agrees(password, other, hasher.encode(password, salt))
    _agrees(password, other, _CheapBcrypt().encode(password, bcrypt.gensalt(4)))


@_some
@given(_PASSWORDS, _PASSWORDS)
def test_what_werkzeug_hashes_verifies(password: str, other: str) -> None:
    for method in ("scrypt:16:2:2", "pbkdf2:sha256:3", "pbkdf2:sha512:3", "pbkdf2:sha1:3"):
        _agrees(password, other, werkzeug.security.generate_password_hash(password, method))


@_some
@given(_PASSWORDS, _PASSWORDS)
def test_what_passlib_hashes_verifies_and_passlib_verifies_what_is_stored(
    password: str, other: str
) -> None:
    handlers = passlib.hash
    for handler, costs in (
        (handlers.pbkdf2_sha1, {"rounds": 2}),
        (handlers.pbkdf2_sha256, {"rounds": 2}),
        (handlers.pbkdf2_sha512, {"rounds": 2}),
        (handlers.scrypt, {"rounds": 4, "block_size": 2}),
        (handlers.phpass, {"rounds": 7}),
        (handlers.ldap_salted_sha1, {}),
        (handlers.ldap_salted_sha256, {}),
        (handlers.ldap_salted_sha512, {}),
    ):
        written = handler.using(**costs).hash(password)
        _agrees(password, other, written)
        stored = recognise(written)
        if handler.identify(stored) and "$i=" not in stored:
            assert handler.verify(password, stored)


@_some
@given(
    _PASSWORDS, _PASSWORDS, st.integers(1, 3), st.integers(1, 4), st.integers(16, 64),
    st.integers(8, 32),
)  # fmt: skip
def test_what_argon2_cffi_hashes_verifies_and_the_other_way_round(
    password: str, other: str, passes: int, lanes: int, length: int, salt: int
) -> None:
    theirs = argon2.PasswordHasher(passes, 8 * lanes + passes, lanes, length, salt)
    written = theirs.hash(password)
    _agrees(password, other, written)
    assert theirs.verify(recognise(written), password)


@_some
@given(_PASSWORDS, st.binary(min_size=1, max_size=20), st.integers(1, 6), st.integers(1, 4))
def test_what_firebase_better_auth_and_keycloak_do_put_together_by_hand_verifies(
    password: str, salt: bytes, mem_cost: int, rounds: int
) -> None:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    raw = password.encode()
    derived = hashlib.scrypt(raw, salt=salt + b"\7", n=2**mem_cost, r=rounds, p=1, dklen=32)
    encryptor = Cipher(algorithms.AES256(derived), modes.CTR(bytes(16))).encryptor()
    hash_ = base64.b64encode(encryptor.update(base64.b64decode(SIGNER_KEY))).decode()
    for peppers in ((), (SIGNER_KEY,)):
        stored = hash_recognition.firebase(
            hash_, base64.b64encode(salt).decode(), "Bw==", rounds=rounds, mem_cost=mem_cost,
            signer_key=SIGNER_KEY, peppers=peppers,
        )  # fmt: skip
        hasher = PasswordHasher(MIN_ROUNDS, peppers=peppers)
        assert hasher.verify(password, stored)
        assert not hasher.verify(password + "x", stored)

    if rounds == 1:  # Better Auth has no cheaper parameters.
        normal, text = unicodedata.normalize("NFKC", password), salt.hex().ljust(16, "0")
        key = hashlib.scrypt(normal.encode(), salt=text.encode(), n=2**14, r=16, p=1,
                             maxmem=2**26, dklen=64)  # fmt: skip
        assert HASHER.verify(password, recognise(f"{text}:{key.hex()}"))

    key = hashlib.pbkdf2_hmac("sha512", raw, salt, rounds, 64)
    assert HASHER.verify(password, hash_recognition.pbkdf2("sha512", rounds, salt, key))


@_some
@given(_PASSWORDS, st.sampled_from(("", " ", "\t\n", "\x0b", "\u3000")))
def test_what_wordpress_drupal_devise_and_meteor_do_put_together_by_hand_verifies(
    password: str, blank: str
) -> None:
    blanks = " \t\n\r\x0b"
    trimmed = password.strip(blanks)
    salt = bcrypt.gensalt(4)
    digest = hmac.new(b"wp-sha384", trimmed.encode(), hashlib.sha384).digest()
    wordpress = "$wp" + bcrypt.hashpw(base64.b64encode(digest), salt).decode()
    is_same = (blank + password + blank).strip(blanks) == trimmed
    assert HASHER.verify(password, recognise(wordpress))
    assert HASHER.verify(blank + password + blank, recognise(wordpress)) == is_same

    phpass = recognise(passlib.hash.phpass.using(rounds=7).hash(trimmed), "wordpress")
    assert HASHER.verify(blank + password + blank, phpass) == is_same

    plain = bcrypt.hashpw((password + PEPPER).encode()[:72], salt).decode()
    devise = recognise(plain, "devise", key=PEPPER, peppers=(PEPPER,))
    assert HASHER.verify(password, devise)
    assert HASHER.verify(password + "x", devise) == (len(password.encode()) >= 72)

    plain = bcrypt.hashpw(hashlib.sha256(password.encode()).hexdigest().encode(), salt).decode()
    assert HASHER.verify(password, recognise(plain, "meteor"))
    assert not HASHER.verify(password + "x", recognise(plain, "meteor"))


def test_a_password_that_drupal_6_hashed_with_md5_before_verifies() -> None:
    once = hashlib.md5(PASSWORD.encode(), usedforsecurity=False).hexdigest()
    digest = hashlib.sha512(b"saltsalt" + once.encode()).digest()
    for _ in range(2**7):
        digest = hashlib.sha512(digest + once.encode()).digest()
    # phpass' digits come in the order of the bits, of the least first.
    bits = int.from_bytes(digest, "little")
    digits = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    text = "".join(digits[bits >> 6 * place & 63] for place in range(43))
    for password in (PASSWORD, f" {PASSWORD}\n"):
        assert HASHER.verify(password, recognise(f"U$S$5saltsalt{text}"))
    assert not HASHER.verify(once, recognise(f"U$S$5saltsalt{text}"))


@pytest.mark.parametrize(
    ("name", "longest"), [("phpass", 4096), ("wordpress-6.8", 4096), ("drupal-7", 512)]
)
def test_a_password_longer_than_its_maker_takes_is_wrong_and_not_computed(
    name: str, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = []

    def compute(*_: object) -> bytes:
        computed.append(1)
        return b""

    for function in ("_computed", "_matches_bcrypt"):
        monkeypatch.setattr(foreign_hashes, function, compute)
    assert not HASHER.verify("x" * longest, STORED[name])
    assert not HASHER.verify("x" * (longest + 1), STORED[name])
    assert len(computed) == 1


ODD = ("", "\0", PASSWORD + "\0", "\0" + PASSWORD, "x" * 16_384, "́" * 5000, "😀" * 100, "\u3000")


@pytest.mark.parametrize("name", FOREIGN)
def test_no_password_raises(name: str) -> None:
    for odd in ODD:
        assert not HASHER.verify(odd, CHEAP[name])
    assert not foreign_hashes.matches("\ud800", parse(CHEAP[name]), (PEPPER,))


class Work:
    """Counts what is computed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.foreign: list[ForeignHash] = []
        self.dummies = 0
        matches, checkpw = foreign_hashes.matches, bcrypt.checkpw

        def counted_matches(password: str, stored: ForeignHash, peppers: tuple[str, ...]) -> bool:
            self.foreign.append(stored)
            return matches(password, stored, peppers)

        def counted_checkpw(password: bytes, stored: bytes) -> bool:
            self.dummies += stored.endswith(b"." * 53)
            return checkpw(password, stored)

        monkeypatch.setattr(foreign_hashes, "matches", counted_matches)
        monkeypatch.setattr(bcrypt, "checkpw", counted_checkpw)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    return Work(monkeypatch)


@pytest.mark.parametrize("name", FOREIGN)
def test_a_refusal_is_followed_by_one_of_our_hashes_and_a_success_is_not(
    name: str, work: Work
) -> None:
    assert HASHER.verify(PASSWORD, FOREIGN[name])
    assert (len(work.foreign), work.dummies) == (1, 0)
    assert HASHER.needs_rehash(PASSWORD, FOREIGN[name])
    assert not HASHER.verify("wrong", CHEAP[name])
    assert (len(work.foreign), work.dummies) == (2, 1)


@pytest.mark.parametrize(
    "stored",
    [
        "$scrypt$ln=20,r=8,p=1$c2FsdHNhbHQ$" + "A" * 86,
        "$scrypt$ln=9999999999,r=8,p=1$c2FsdHNhbHQ$" + "A" * 86,
        "$pbkdf2-sha256$i=1000000000$c2FsdHNhbHQ$" + "A" * 43,
        "$argon2id$v=19$m=4194304,t=1,p=1$c2FsdHNhbHQ$" + "A" * 43,
        "$argon2id$v=19$m=64,t=4294967295,p=1$c2FsdHNhbHQ$" + "A" * 43,
        "$P$S" + "." * 30,
        "$S$S" + "." * 51,
        "{trim}$2b$31$" + "." * 53,
        *(
            stored[: stored.rindex("}" if "SSHA" in stored else "$") + 18]
            for stored in FOREIGN.values()
        ),
        *(stored + "\n" for stored in FOREIGN.values()),
        *(stored[:-1] + "\ud800" for stored in FOREIGN.values()),
        *(written.text for name, written in WRITTEN.items() if name in ("firebase", "aspnet-v3")),
    ],
)
def test_what_is_corrupt_or_out_of_bounds_is_never_computed(stored: str, work: Work) -> None:
    for password in ("", PASSWORD, "x" * 1000):
        work.dummies = 0
        assert not HASHER.verify(password, stored)
        assert (work.foreign, work.dummies) == ([], 1)


def test_a_key_that_the_setting_lacks_is_a_wrong_password_and_one_line_of_the_log(
    capsys: pytest.CaptureFixture[str], work: Work
) -> None:
    firebase = WRITTEN["firebase"].stored(SIGNER_KEY)
    for stored, key in ((STORED["devise"], PEPPER), (firebase, SIGNER_KEY)):
        lacking = PasswordHasher(MIN_ROUNDS, peppers=("another",))
        for _ in range(3):
            assert not lacking.verify(PASSWORD, stored)
        (line,) = capsys.readouterr().out.splitlines()
        assert "PASSWORD_PEPPERS lacks a key" in json.loads(line)["message"]
        assert json.loads(line)["fingerprint"] == fingerprint(key)
        assert key not in line
        assert PasswordHasher(MIN_ROUNDS, peppers=("another", key)).verify(PASSWORD, stored)
    assert work.dummies == 6


def test_a_wrong_signer_key_makes_every_password_wrong_without_an_error() -> None:
    stored = WRITTEN["firebase"].stored(SIGNER_KEY)
    for wrong in ("no base64!", base64.b64encode(bytes(64)).decode()):
        renamed = stored.replace(fingerprint(SIGNER_KEY), fingerprint(wrong))
        assert not PasswordHasher(MIN_ROUNDS, peppers=(wrong,)).verify(PASSWORD, renamed)


@pytest.mark.parametrize("name", ["phpass", "wordpress-6.8", "drupal-7", "better-auth"])
def test_a_hash_stays_while_only_its_maker_takes_what_was_typed_for_the_password(
    name: str,
) -> None:
    """Of ours the user would be locked out by the next login without the blank."""
    typed = "correct horse \uff14\uff12" if name == "better-auth" else f"{PASSWORD} "
    assert HASHER.verify(typed, STORED[name])
    assert not HASHER.needs_rehash(typed, STORED[name])
    assert HASHER.needs_rehash(PASSWORD, STORED[name])


class Load:
    """Stands for the computing, and counts what is in flight."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._memory = self._number = 0
        self.most_memory = self.most = 0

    @contextmanager
    def _running(self, memory: int) -> Iterator[None]:
        with self._lock:
            self._memory += memory
            self._number += 1
            self.most_memory = max(self.most_memory, self._memory)
            self.most = max(self.most, self._number)
        yield
        with self._lock:
            self._memory -= memory
            self._number -= 1

    def matches(self, _: str, stored: ForeignHash, __: tuple[str, ...]) -> bool:
        with self._running(stored.memory):
            time.sleep(0.005)  # So that several run at once.
        return True


def test_200_logins_at_once_need_no_more_memory_than_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = Load()
    monkeypatch.setattr(foreign_hashes, "matches", load.matches)
    first = PasswordHasher(MIN_ROUNDS, concurrency=12)
    second = PasswordHasher(MIN_ROUNDS, shares=first)
    every = [*FOREIGN.values()]
    with ThreadPoolExecutor(200) as pool:
        outcomes = pool.map(
            lambda number: (first, second)[number % 2].verify(PASSWORD, every[number % len(every)]),
            range(200),
        )
        assert all(outcomes)
    assert MEMORY_BUDGET // 2 < load.most_memory <= MEMORY_BUDGET
    assert 2 < load.most <= 12


def test_who_waits_too_long_for_memory_is_refused_as_overloaded() -> None:
    budget = Budget(2)
    with budget.holding(1), ThreadPoolExecutor(2) as pool:
        for _ in range(2):

            def wait() -> None:
                with budget.holding(2, 0.05):
                    pytest.fail("the memory is held")

            with pytest.raises(Overloaded):
                pool.submit(wait).result()
        with budget.holding(1):
            pass
    with budget.holding(2):
        pass


@pytest.mark.parametrize("error", [ValueError, OverflowError])
def test_a_hash_that_a_library_does_not_take_is_nobodys_password(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(*_: object) -> bool:
        raise error

    monkeypatch.setattr(foreign_hashes, "matches", fail)
    assert not PasswordHasher(MIN_ROUNDS).verify(PASSWORD, STORED["better-auth"])


def test_each_application_has_its_own_peppers_and_all_have_one_budget() -> None:
    host = Application(Settings())
    blog = Application(Settings(application="blog"), host)
    peppers = CredentialSettings(password_peppers=(PEPPER,), bcrypt_rounds=MIN_ROUNDS)
    shop = Application(Settings(application="shop", credentials=peppers), host)
    assert shop.hasher.verify(PASSWORD, STORED["devise"])
    assert not blog.hasher.verify(PASSWORD, STORED["devise"])
    with ThreadPoolExecutor(1) as pool:
        with blog.hasher._memory.holding(MEMORY_BUDGET):
            heavy = pool.submit(shop.hasher.verify, PASSWORD, STORED["firebase"])
            _wait_for(lambda: host.hasher._memory._waiting)
        assert heavy.result(timeout=60)


RESIDENT = """
import re
from concurrent.futures import ThreadPoolExecutor
from shared.credentials.passwords import PasswordHasher
from tests.support.foreign_hashes import PASSWORD, STORED

def resident(what):
    with open("/proc/self/status") as file:  # getrusage's peak begins with the parent's.
        return int(re.search(rf"{what}:\\s*(\\d+) kB", file.read())[1]) * 1024

hasher = PasswordHasher(4, concurrency=16)
assert hasher.verify(PASSWORD, STORED["firebase"])
before = resident("VmRSS")
with ThreadPoolExecutor(32) as pool:
    assert all(pool.map(lambda _: hasher.verify(PASSWORD, STORED["firebase"]), range(32)))
print(resident("VmHWM") - before, resident("VmRSS") - before)
"""


def test_the_process_grows_by_what_the_hashes_need_and_shrinks_after_them() -> None:
    done = subprocess.run(
        [sys.executable, "-c", RESIDENT],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        check=True,
    )
    most, after = map(int, done.stdout.split())
    assert most < MEMORY_BUDGET + 32 * 2**20
    assert after < 16 * 2**20


def test_who_waits_for_memory_keeps_nobody_else_from_computing() -> None:
    hasher = PasswordHasher(MIN_ROUNDS)
    with ThreadPoolExecutor(1) as pool:
        with hasher._memory.holding(MEMORY_BUDGET):
            heavy = pool.submit(hasher.verify, PASSWORD, STORED["django-argon2"])
            _wait_for(lambda: hasher._memory._waiting)
            for name in ("bcrypt", "passlib-pbkdf2", "ldap-ssha"):
                assert hasher.verify(PASSWORD, STORED[name])
            assert not heavy.done()
        assert heavy.result(timeout=60)


def test_a_big_one_is_served_before_small_ones_that_came_later() -> None:
    budget, order = Budget(10), []

    def take(size: int) -> None:
        with budget.holding(size):
            order.append(size)

    with ThreadPoolExecutor(3) as pool:
        with budget.holding(1):
            big = pool.submit(take, 99)
            _wait_for(lambda: budget._waiting)
            small = [pool.submit(take, 1) for _ in range(2)]
            time.sleep(0.02)  # In which a small one would have overtaken.
            assert order == []
        for future in (big, *small):
            future.result(timeout=60)
    assert order == [99, 1, 1]


def test_who_comes_again_at_once_does_not_overtake_whoever_waits() -> None:
    budget, order = Budget(1), []

    def take(who: str) -> None:
        with budget.holding(1):
            order.append(who)

    with ThreadPoolExecutor(1) as pool:
        with budget.holding(1):
            waiting = pool.submit(take, "waiting")
            _wait_for(lambda: budget._waiting)
        take("again")
        waiting.result(timeout=60)
    assert order == ["waiting", "again"]


def _wait_for(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.001)


def test_what_fails_gives_its_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bool:
        raise MemoryError

    hasher = PasswordHasher(MIN_ROUNDS)
    with monkeypatch.context() as patched:
        patched.setattr(foreign_hashes, "matches", fail)
        for _ in range(3):
            with pytest.raises(MemoryError):
                hasher.verify(PASSWORD, STORED["django-argon2"])
    assert hasher.verify(PASSWORD, STORED["django-argon2"])
