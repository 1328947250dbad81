"""How a session lives: the rules with a clock passed in, and the cookie over HTTP."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import pytest

from shared.credentials.passwords import PasswordHasher
from shared.errors import NotAuthenticated, StoreFault, StoreUnavailable
from shared.model.sessions import FRESH_SECONDS, SESSION_SECONDS, Session
from shared.model.users import User
from shared.rules.sessions import Sessions
from shared.store.contract import Store
from shared.store.json_file.store import JsonFileStore
from shared.store.settings import StoreSettings
from tests.support.emulator import Emulator, running_emulator
from tests.support.postgres import Server
from tests.support.stores import CLIENT, NOW, TOKENS, log_in, sessions_of


def _signed_up(store: Store) -> User:
    user = User(id=str(uuid.uuid4()), email="ada@example.com", name=None, provider="local")
    return store.create_user(user, "hash")


def test_a_fresh_session_is_believed_without_a_look_into_the_store(store: Store) -> None:
    nobody = User(id=str(uuid.uuid4()), email="gone@example.com", name=None, provider="local")
    token = TOKENS.issue(nobody, NOW).text
    assert sessions_of(store).current_user(token, NOW + FRESH_SECONDS - 1) == (
        nobody,
        None,
    )


def test_a_stale_session_is_looked_up_and_renewed_with_what_the_store_says(store: Store) -> None:
    user = _signed_up(store)
    outdated = User(id=user.id, email="old@example.com", name="Old", provider="local")
    token = TOKENS.issue(outdated, NOW).text
    later = NOW + FRESH_SECONDS
    found, renewed = sessions_of(store).current_user(token, later)
    assert found == user
    assert renewed is not None
    assert TOKENS.read(renewed.text, later).is_fresh(later)
    assert TOKENS.read(renewed.text, later).user == user


def test_a_stale_session_ends_with_its_user_or_its_epoch(store: Store) -> None:
    user = _signed_up(store)
    gone = User(id=str(uuid.uuid4()), email="x@example.com", name=None, provider="local")
    earlier = User(id=user.id, email=user.email, name=None, provider="local", epoch=7)
    for stale in (gone, earlier):
        token = TOKENS.issue(stale, NOW).text
        with pytest.raises(NotAuthenticated):
            sessions_of(store).current_user(token, NOW + FRESH_SECONDS)


def _on_a_list(store: Store) -> Sessions:
    """Give the rules where whatever is asked of is on the list of revocations."""
    return Sessions(lambda: store, TOKENS, lambda _: True)


def test_a_fresh_session_on_the_list_is_looked_up_and_goes_on_as_it_is(store: Store) -> None:
    user = _signed_up(store)
    outdated = user._replace(name="Old", is_degraded=True)
    token = TOKENS.issue(outdated, NOW).text
    assert _on_a_list(store).current_user(token, NOW + 1) == (outdated, None)


def test_a_fresh_session_on_the_list_has_ended_if_the_store_says_so(store: Store) -> None:
    user = _signed_up(store)
    gone = User(id=str(uuid.uuid4()), email="x@example.com", name=None, provider="local")
    for ended in (gone, user._replace(epoch=7)):
        token = TOKENS.issue(ended, NOW).text
        with pytest.raises(NotAuthenticated):
            _on_a_list(store).current_user(token, NOW + 1)
    token = TOKENS.issue(user, NOW).text
    store.revoke_session(TOKENS.read(token, NOW), CLIENT)
    with pytest.raises(NotAuthenticated):
        _on_a_list(store).current_user(token, NOW + 1)


@pytest.mark.parametrize("error", [StoreUnavailable(), StoreFault("XX000", "it is broken")])
def test_a_fresh_session_on_the_list_goes_on_where_the_store_cannot_tell(
    store: Store, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = _signed_up(store)

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(store, "user", fail)
    token = TOKENS.issue(user, NOW).text
    assert _on_a_list(store).current_user(token, NOW + 1) == (user, None)
    with pytest.raises(type(error)):
        _on_a_list(store).current_user(token, NOW + FRESH_SECONDS)


def test_only_a_fresh_session_is_asked_for_on_the_list(store: Store) -> None:
    asked: list[Session] = []

    def is_listed(session: Session) -> bool:
        asked.append(session)
        return False

    sessions = Sessions(lambda: store, TOKENS, is_listed)
    token = TOKENS.issue(_signed_up(store), NOW).text
    sessions.current_user(token, NOW + FRESH_SECONDS)
    assert asked == []
    sessions.current_user(token, NOW + FRESH_SECONDS - 1)
    assert len(asked) == 1


def test_a_session_is_not_renewed_beyond_its_end(store: Store) -> None:
    user = _signed_up(store)
    moment, token = NOW, TOKENS.issue(user, NOW).text
    while moment + FRESH_SECONDS * 100 < NOW + SESSION_SECONDS:
        moment += FRESH_SECONDS * 100
        _, renewed = sessions_of(store).current_user(token, moment)
        assert renewed is not None
        token = renewed.text
    with pytest.raises(NotAuthenticated):
        sessions_of(store).current_user(token, NOW + SESSION_SECONDS)


def test_there_is_no_session_without_a_sound_token(store: Store) -> None:
    for token in (None, "", "x.y.z"):
        with pytest.raises(NotAuthenticated):
            sessions_of(store).current_user(token, NOW)


def test_over_http_a_stale_cookie_is_renewed_and_an_ended_one_is_401(
    emulator: Emulator, address: str
) -> None:
    with emulator.client() as client:
        user = client.post(
            "/api/signup", json={"email": address, "password": "correct horse"}
        ).json()
        known = User(id=user["id"], email=address, name=None, provider="local")
        client.cookies.clear()
        stale = TOKENS.issue(known, time.time() - FRESH_SECONDS - 1).text
        response = client.get("/api/user", headers={"Cookie": f"session={stale}"})
        assert response.json() == user
        assert client.cookies["session"] != stale
        assert client.get("/api/user").json() == user
        client.cookies.clear()
        ended = TOKENS.issue(known, time.time() - SESSION_SECONDS - 1).text
        response = client.get("/api/user", headers={"Cookie": f"session={ended}"})
        assert response.status_code == 401


def test_during_an_outage_a_fresh_session_goes_on_and_a_stale_one_is_503(
    postgres: Server, database: str, tmp_path: Path
) -> None:
    user = User(id=str(uuid.uuid4()), email="ada@example.com", name=None, provider="local")
    with (
        running_emulator(
            DATABASE_URL=postgres.url(database, port=1), DATABASE_TIMEOUT="2"
        ) as emulator,
        emulator.client() as client,
    ):
        fresh = TOKENS.issue(user, time.time()).text
        response = client.get("/api/user", headers={"Cookie": f"session={fresh}"})
        assert response.status_code == 200
        stale = TOKENS.issue(user, time.time() - FRESH_SECONDS - 1).text
        response = client.get("/api/user", headers={"Cookie": f"session={stale}"})
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) > 0
        assert "set-cookie" not in response.headers


def test_the_epoch_in_the_table_ends_the_sessions_before_it(
    postgres: Server, database: str
) -> None:
    with (
        running_emulator(DATABASE_URL=postgres.url(database)) as emulator,
        emulator.client() as client,
    ):
        user = client.post(
            "/api/signup", json={"email": "ada@example.com", "password": "correct horse"}
        ).json()
        known = User(id=user["id"], email=user["email"], name=None, provider="local")
        stale = TOKENS.issue(known, time.time() - FRESH_SECONDS - 1).text
        headers = {"Cookie": f"session={stale}"}
        assert client.get("/api/user", headers=headers).status_code == 200
        client.cookies.clear()
        postgres.run("UPDATE users SET epoch = epoch + 1", database)
        assert client.get("/api/user", headers=headers).status_code == 401


def test_a_hash_that_cannot_be_renewed_does_not_turn_a_correct_login_away(tmp_path: Path) -> None:
    class HalfAway(JsonFileStore):
        def replace_password_hash(self, *_: str) -> bool:
            raise StoreUnavailable(cause="the disk is full")

    store = HalfAway(StoreSettings(users_file=tmp_path / "users.json"))
    user = User(id=str(uuid.uuid4()), email="ada@example.com", name=None, provider="local")
    store.create_user(user, PasswordHasher(4).hash("correct horse"))
    assert log_in(store, PasswordHasher(5), "ada@example.com", "correct horse") == user
