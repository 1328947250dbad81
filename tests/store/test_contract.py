"""What every store promises, run on each of them."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared.errors import EmailTaken
from shared.model.users import User
from shared.store.contract import Store
from shared.store.json_file.store import JsonFileStore
from tests.support.stores import credentials


def _user(
    email: str = "ada@example.com", *, name: str | None = "Ada", provider: str = "local"
) -> User:
    return User(id=str(uuid.uuid4()), email=email, name=name, provider=provider)


def test_a_created_user_is_found_by_key_and_by_id(store: Store) -> None:
    user = _user()
    assert store.create_user(user, "hash") == user
    found = credentials(store, "ada@example.com")
    assert found is not None
    assert (found.user, found.password_hash) == (user, "hash")
    assert store.user(user.id) == user


def test_a_user_may_lack_a_name_and_a_password(store: Store) -> None:
    user = _user(name=None, provider="google")
    store.create_user(user, None)
    found = credentials(store, user.email)
    assert found is not None
    assert (found.user, found.password_hash) == (user, None)


def test_nobody_is_found_under_an_unknown_key_or_id(store: Store) -> None:
    store.create_user(_user(), "hash")
    assert credentials(store, "ada@example.org") is None
    assert store.user(str(uuid.uuid4())) is None
    for no_id in ("not a UUID", "", "urn:uuid:" + str(uuid.uuid4()), "\u0661" * 32, "\ud800"):
        assert store.user(no_id) is None


def test_a_second_user_with_the_same_key_is_refused_and_changes_nothing(store: Store) -> None:
    first = _user()
    store.create_user(first, "first")
    with pytest.raises(EmailTaken):
        store.create_user(_user(name="Eve"), "second")
    found = credentials(store, first.email)
    assert found is not None
    assert (found.user, found.password_hash) == (first, "first")


def test_repeating_a_creation_whose_answer_was_lost_gives_the_stored_user(store: Store) -> None:
    user = _user()
    store.create_user(user, "hash")
    assert store.create_user(user, "hash") == user


def test_an_id_that_is_taken_by_another_address_never_gives_that_user(store: Store) -> None:
    user = _user()
    store.create_user(user, "hash")
    impostor = User(id=user.id, email="eve@example.com", name=None, provider="local")
    with pytest.raises(EmailTaken):
        store.create_user(impostor, "hash")
    assert store.user(user.id) == user


def test_of_many_creations_at_once_one_wins(store: Store) -> None:
    barrier = threading.Barrier(20)

    def create(number: int) -> bool:
        barrier.wait()
        try:
            store.create_user(_user(name=str(number)), "hash")
        except EmailTaken:
            return False
        return True

    with ThreadPoolExecutor(20) as threads:
        assert sum(threads.map(create, range(20))) == 1


def test_creations_of_different_users_at_once_are_all_kept(store: Store) -> None:
    users = [_user(f"user{number}@example.com") for number in range(20)]
    with ThreadPoolExecutor(20) as threads:
        list(threads.map(lambda user: store.create_user(user, "hash"), users))
    assert [store.user(user.id) for user in users] == users


def test_a_hash_is_replaced_only_where_the_old_one_still_stands(store: Store) -> None:
    user = _user()
    store.create_user(user, "old")
    assert store.replace_password_hash(user.id, "old", "new")
    assert not store.replace_password_hash(user.id, "old", "newer")
    assert not store.replace_password_hash(str(uuid.uuid4()), "old", "newer")
    found = credentials(store, user.email)
    assert found is not None
    assert found.password_hash == "new"


def test_where_the_old_server_has_no_session_there_is_nobody_and_nothing_to_delete(
    store: Store,
) -> None:
    store.create_user(_user(), "hash")
    sessions = store.express_sessions
    assert (sessions is None) == isinstance(store, JsonFileStore), "they are in the database"
    for sid in ("unknown", "", "' OR ''='", "\0", "\ud800", "s" * 100_000):
        if sessions is not None:
            assert sessions.user(sid, exchanged="") is None
            sessions.delete(sid)
    assert credentials(store, "ada@example.com") is not None


@pytest.mark.parametrize(
    "name",
    [
        "山田 健二",
        "Zoë 😀",
        "Tab\tName",
        "null",
        "NULL",
        "{a,b}",
        "'; DROP TABLE users; --",
        "\\0 \\",
    ],
)
def test_names_come_back_as_they_went_in(store: Store, name: str) -> None:
    user = _user(name=name)
    assert store.create_user(user, "hash") == user
    assert store.user(user.id) == user


def test_a_closed_store_can_be_used_again(store: Store) -> None:
    user = _user()
    store.create_user(user, "hash")
    store.close()
    assert store.user(user.id) == user
