"""A hash that came from another system is replaced by the first login, on every store."""

from __future__ import annotations

import uuid

import pytest

from shared.credentials.passwords import PasswordHasher
from shared.errors import InvalidCredentials
from shared.model.users import User
from shared.store.contract import Store
from tests.support.foreign_hashes import FOREIGN, PASSWORD, PEPPER
from tests.support.stores import credentials, disable, log_in

ADA = "ada@example.com"
HASHER = PasswordHasher(4, peppers=(PEPPER,))


def _hash_of(store: Store) -> str | None:
    found = credentials(store, ADA)
    return found.password_hash if found else None


@pytest.mark.parametrize(
    "name", ["firebase", "better-auth", "django-argon2", "devise", "ldap-ssha"]
)
def test_the_right_password_alone_replaces_it(store: Store, name: str) -> None:
    user = store.create_user(User(str(uuid.uuid4()), ADA, None, "local"), FOREIGN[name])
    with pytest.raises(InvalidCredentials):
        log_in(store, HASHER, ADA, "a wrong password")
    assert _hash_of(store) == FOREIGN[name]
    assert log_in(store, HASHER, ADA, PASSWORD) == user
    ours = _hash_of(store)
    assert ours is not None
    assert ours.startswith("$2b$04$")
    assert log_in(store, HASHER, ADA, PASSWORD) == user
    assert _hash_of(store) == ours


def test_who_typed_a_blank_that_the_other_system_did_not_see_comes_in_and_keeps_it(
    store: Store,
) -> None:
    user = store.create_user(User(str(uuid.uuid4()), ADA, None, "local"), FOREIGN["phpass"])
    assert log_in(store, HASHER, ADA, f"{PASSWORD} ") == user
    assert _hash_of(store) == FOREIGN["phpass"]
    assert log_in(store, HASHER, ADA, PASSWORD) == user
    assert (_hash_of(store) or "").startswith("$2b$04$")


def test_who_is_disabled_gets_nothing(store: Store) -> None:
    user = store.create_user(User(str(uuid.uuid4()), ADA, None, "local"), FOREIGN["phpass"])
    disable(store, user.id)
    with pytest.raises(InvalidCredentials):
        log_in(store, HASHER, ADA, PASSWORD)
