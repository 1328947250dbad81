"""What a new password must be, and what is asked of nobody."""

from __future__ import annotations

import hashlib
import unicodedata
import uuid
from pathlib import Path

import bcrypt
import pytest
from werkzeug.test import TestResponse

from shared.credentials import password_policy
from shared.credentials.password_policy import check_new_password
from shared.credentials.passwords import PasswordHasher
from shared.errors import InvalidCredentials, InvalidInput
from shared.model.users import User
from shared.store.contract import Store
from tests.support.emulator import Emulator
from tests.support.in_process import served
from tests.support.stores import credentials, log_in, sign_up

COMMON = "among the most common ones"
CLOSE = "too close to your address, your name or this application's"
SHORT = "at least 8 characters"


def _refusal(
    password: str,
    *,
    email: str = "ada.lovelace@example.com",
    name: str | None = "Ada Lovelace",
    min_length: int = 8,
) -> str | None:
    try:
        check_new_password(
            password, min_length=min_length, field="newPassword", email=email, name=name
        )
    except InvalidInput as error:
        return error.sentence
    return None


def _wide(text: str) -> str:
    """Write ASCII in the full-width forms of East Asian keyboards."""
    return "".join(chr(ord(character) + 0xFEE0) for character in text)


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("", SHORT),
        ("sevench", SHORT),
        ("ééééééé", SHORT),
        (unicodedata.normalize("NFD", "ééééééé"), SHORT),
        ("😀" * 7, SHORT),
        ("12345678", COMMON),
        ("password", COMMON),
        ("PassWord", COMMON),
        (_wide("PASSWORD"), COMMON),
        ("qwertyuiop", COMMON),
        ("aicoder2024", CLOSE),
        ("AI-Coder 2024!", CLOSE),
        ("ai_coder_ai_coder", CLOSE),
        ("ada.lovelace@example.com", CLOSE),
        ("Ada.Lovelace@Example.com1", CLOSE),
        ("AdaLovelace1", CLOSE),
        ("ada lovelace", CLOSE),
        ("lovelace10121815", CLOSE),
        ("example.com!", CLOSE),
        ("!!Example1999", CLOSE),
        (_wide("AdaLovelace1"), CLOSE),
        ("lovelace and babbage", None),
        ("correct horse battery staple", None),
        ("aaaaaaaaz", None),
        ("48151623", None),
        ("!?!?!?!?", None),
        ("only lower case", None),
        ("ALLUPPER", None),
        ("éééééééé", None),
        (unicodedata.normalize("NFD", "éééééééé"), None),
        ("😀😁😂🤣😃😄😅😆", None),
        ("with spaces\tand\nlines", None),
        ("пароль для входа", None),
    ],
)
def test_a_new_password_is_long_enough_uncommon_and_not_made_of_the_context(
    password: str, reason: str | None
) -> None:
    sentence = _refusal(password)
    assert sentence is None if reason is None else reason in (sentence or "")


@pytest.mark.parametrize(
    ("password", "email", "name", "is_close"),
    [
        ("ada@example.com1", "ada@example.com", None, True),
        ("correct horse battery", "horse@example.com", None, False),
        ("horse1234", "horse@example.com", None, True),
        ("horse1234", "grace@example.com", None, False),
        ("example1234", "ada@example.com", None, True),
        ("workshop.2024", "ada@mail.workshop.co.uk", None, True),
        ("mail.workshop.co.uk", "ada@mail.workshop.co.uk", None, True),
        ("bookmark7", "mark@example.com", None, False),
        ("ada12345x", "ada@example.org", "Ada", False),  # three letters are no word
        ("user123456!", "user123456@example.com", None, True),
        ("user-9876", "user123456@example.com", None, True),
        ("Müller1980", "a@example.com", "Jörg Müller", True),
        ("jörgmüller", "a@example.com", "Jörg Müller", True),
        ("localhost", "a@localhost", None, True),
        ("no address at all", "no address", None, False),
        ("no address!", "no address", None, True),
    ],
)
def test_the_context_is_the_address_its_parts_and_the_name(
    password: str, email: str, name: str | None, is_close: bool
) -> None:
    sentence = _refusal(password, email=email, name=name)
    assert (sentence is not None and CLOSE in sentence) == is_close


def test_the_refusal_names_the_member_that_the_caller_says() -> None:
    with pytest.raises(InvalidInput) as caught:
        check_new_password(
            "password", min_length=8, field="newPassword", email="ada@example.com", name=None
        )
    assert caught.value.field == "newPassword"


def test_the_least_length_is_a_setting_and_the_list_holds_below_the_default() -> None:
    assert "at least 15 characters" in (_refusal("fourteen chars", min_length=15) or "")
    assert _refusal("fifteen letters", min_length=15) is None
    assert COMMON in (_refusal("qwerty", min_length=6) or "")
    assert _refusal("uqwrty", min_length=6) is None


def test_the_list_is_the_published_one_and_written_as_it_is_compared() -> None:
    published = "3c1baed62596de36860824eb3f436d5932d37ca8b06e59df78f5a44ec175afe4"
    assert hashlib.sha256(password_policy._LIST.read_bytes()).hexdigest() == published
    lines = password_policy._common_passwords().decode().split("\n")
    assert len(lines) > 19_000
    assert lines == [password_policy._folded(line) for line in lines]
    assert sum(len(line) >= 8 for line in lines) > 3000  # V6.2.4
    assert all(COMMON in (_refusal(line, min_length=1) or "") for line in lines if line)


def test_who_has_a_short_or_common_password_still_logs_in_and_no_list_is_read(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(password_policy, "_LIST", tmp_path / "nothing")
    password_policy._common_passwords.cache_clear()
    for number, password in enumerate(("x", "12345678", "user2@example.com")):
        old = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4, prefix=b"2a")).decode()
        email = f"user{number}@example.com"
        user = User(id=str(uuid.uuid4()), email=email, name=None, provider="local")
        store.create_user(user, old)
        stronger = PasswordHasher(5)
        for _ in range(2):
            assert log_in(store, stronger, email, password) == user
        found = credentials(store, email)
        assert found is not None
        assert str(found.password_hash).startswith("$2b$05$")


def test_passwords_that_differ_only_beyond_what_bcrypt_reads_are_two(store: Store) -> None:
    hasher = PasswordHasher(4)
    long = "a passphrase of which bcrypt alone would read no more than the beginning, "
    assert len(long.encode()) > 72
    user = sign_up(store, hasher, "ada@example.com", f"{long} one")
    assert log_in(store, hasher, user.email, f"{long} one") == user
    for other in (f"{long} two", long, long[:72]):
        with pytest.raises(InvalidCredentials):
            log_in(store, hasher, user.email, other)


def test_over_http_a_passphrase_of_16000_bytes_signs_up_and_logs_in(
    emulator: Emulator, address: str
) -> None:
    password = "pass phrases " * 1230 + "end 123456"
    assert len(password) == 16_000
    with emulator.client() as client:
        login = {"email": address, "password": password}
        assert client.post("/api/signup", json=login).status_code == 201
        assert client.post("/api/login", json=login).status_code == 200
        wrong = login | {"password": password[:-1]}
        assert client.post("/api/login", json=wrong).status_code == 401


@pytest.mark.parametrize(
    ("password", "reason"),
    [("PASSWORD1", COMMON), ("AI-Coder2024", CLOSE), ("Grace Hopper", CLOSE)],
)
def test_over_http_a_refusal_is_400_with_the_field_and_a_sentence_for_the_user(
    emulator: Emulator, address: str, password: str, reason: str
) -> None:
    with emulator.client() as client:
        body = {"email": address, "password": password, "name": "Grace Hopper"}
        response = client.post("/api/signup", json=body)
        assert response.status_code == 400
        assert response.json()["field"] == "password"
        assert reason in response.json()["error"]
        assert client.post("/api/login", json=body).status_code == 401


@pytest.mark.parametrize(
    ("password", "reason"), [("short", SHORT), ("PASSWORD1", COMMON), ("Grace Hopper", CLOSE)]
)
def test_over_http_a_password_is_not_changed_for_one_that_a_sign_up_would_refuse(
    emulator: Emulator, address: str, password: str, reason: str
) -> None:
    old = "correct horse battery staple"
    with emulator.client() as client:
        body = {"email": address, "password": old, "name": "Grace Hopper"}
        assert client.post("/api/signup", json=body).status_code == 201
        change = {"currentPassword": old, "newPassword": password}
        response = client.post("/api/password", json=change)
        assert response.status_code == 400
        assert response.json()["field"] == "newPassword"
        assert reason in response.json()["error"]
        assert client.post("/api/login", json=body).status_code == 200


def test_the_current_password_is_not_a_new_one_and_asking_costs_no_attempt(
    tmp_path: Path,
) -> None:
    old, new = "café au lait, s'il vous", "battery staple, too"
    composed, decomposed = old, unicodedata.normalize("NFD", old)

    def change(current: str, new: str) -> TestResponse:
        return app.post("/api/password", {"currentPassword": current, "newPassword": new}, session)

    settings = {"USERS_FILE": str(tmp_path / "users.json"), "MAX_LOGIN_ATTEMPTS": "2"}
    with served(**settings) as app:
        signed_up = app.post("/api/signup", {"email": "ada@example.com", "password": old})
        session = ("Cookie", signed_up.headers["Set-Cookie"].partition(";")[0])
        before = app.contents()
        for given in (
            (composed, composed),
            (composed, decomposed),
            (decomposed, composed),
            (new, new),
        ):
            answer = change(*given)
            assert answer.json is not None
            assert (answer.status_code, answer.json["code"]) == (400, "password_unchanged")
            assert answer.json["field"] == "newPassword"
            assert answer.json["error"] == "The new password must not be the current one"
        assert app.contents() == before
        assert change("wrong", new).status_code == 403
        assert change(decomposed, new).status_code == 200
