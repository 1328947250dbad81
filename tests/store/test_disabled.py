"""Who is disabled comes in nowhere, on every store, and is answered as for a wrong password."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from shared.credentials.passwords import PasswordHasher
from shared.errors import EmailTaken, InvalidCredentials, NotAuthenticated
from shared.model.users import ExternalIdentity, User
from shared.store.contract import Store
from tests.support.in_process import Served, served
from tests.support.stores import (
    CLIENT,
    accounts_of,
    disable,
    id_token,
    session_of,
    sessions_of,
    sign_up,
    stored,
)

ADA, PASSWORD, NEW = "ada@example.com", "correct horse battery", "a wholly new password"
GOOGLE = ExternalIdentity("https://accounts.google.com", "1")
HASHER = PasswordHasher(4)


@pytest.fixture
def ada(store: Store) -> User:
    """Who has a password and an identity, and is about to be disabled."""
    user = User(str(uuid.uuid4()), ADA, None, "local")
    return store.create_user(user, HASHER.hash(PASSWORD), [GOOGLE])


def test_no_session_goes_on_and_nothing_is_shown_or_changed(store: Store, ada: User) -> None:
    session, change, deletion = session_of(ada), stored(store, ada), stored(store, ada)
    disable(store, ada.id)
    assert store.user(ada.id) is None
    with pytest.raises(NotAuthenticated):
        sessions_of(store).account(session)
    accounts = accounts_of(store, HASHER)
    with pytest.raises(NotAuthenticated):
        accounts.change_password(session, current=PASSWORD, new=NEW, client=CLIENT)
    with pytest.raises(NotAuthenticated):
        accounts.delete(session, password=PASSWORD, client=CLIENT)
    assert store.change_password(*change, "hash") is None  # Nor what had begun before.
    assert not store.delete_user(*deletion)


def test_no_identity_signs_in_or_is_added(store: Store, ada: User) -> None:
    bob = store.create_user(User(str(uuid.uuid4()), "bob@example.com", None, "google"), None)
    found = store.find_external((), bob.email, id_token(), CLIENT)
    assert found is not None
    for user in (ada, bob):
        disable(store, user.id)
    for identities, key in (((GOOGLE,), "new@example.com"), ((), ADA)):
        with pytest.raises(InvalidCredentials):
            store.find_external(identities, key, id_token(), CLIENT)
    other = ExternalIdentity(GOOGLE.issuer, "2")
    linked = store.link(
        found.credentials, (other,), provider="google", drops_password=False, client=CLIENT
    )
    assert linked is None  # Who was disabled between the two statements of a sign-in.


def test_the_address_stays_taken(store: Store, ada: User) -> None:
    disable(store, ada.id)
    with pytest.raises(EmailTaken):
        sign_up(store, HASHER, ADA, PASSWORD)


@pytest.fixture
def app(store_settings: dict[str, str]) -> Iterator[Served]:
    with served(BCRYPT_ROUNDS="4", **store_settings) as running:
        yield running


def test_the_right_password_is_answered_as_a_wrong_one(app: Served) -> None:
    def log_in(password: str) -> tuple[int, str, list[str]]:
        response = app.post("/api/login", {"email": ADA, "password": password})
        body = {
            name: value for name, value in (response.json or {}).items() if name != "request_id"
        }
        return response.status_code, str(body), [name for name, _ in response.headers]

    created = app.post("/api/signup", {"email": ADA, "password": PASSWORD})
    wrong = log_in("a wrong password")
    disable(app.store, (created.json or {})["id"])
    assert log_in(PASSWORD) == wrong
    assert wrong[0] == 401
