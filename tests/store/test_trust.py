"""What every store promises of sessions, identities and accounts, run on each of them."""

from __future__ import annotations

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from shared.errors import EmailTaken
from shared.model.clients import Client
from shared.model.users import MAX_IDENTITIES, ExternalIdentity, User
from shared.store.contract import Credentials, ExternalMatch, Store
from tests.support.stores import CLIENT, credentials, id_token, pass_time, session_of, stored

ADA, DAY = "ada@example.com", 86400
GOOGLE = ExternalIdentity("https://accounts.google.com", "1")
FIREBASE = ExternalIdentity("https://securetoken.google.com/project", "f1")
OTHER = ExternalIdentity("https://accounts.google.com", "2")


def _create(
    store: Store,
    email: str = ADA,
    *identities: ExternalIdentity,
    password: str | None = "hash",
) -> User:
    user = User(id=str(uuid.uuid4()), email=email, name=None, provider="local")
    return store.create_user(user, password, identities)


def _find(store: Store, *identities: ExternalIdentity, key: str = ADA) -> ExternalMatch | None:
    return store.find_external(identities, key, id_token(), CLIENT)


def _link(
    store: Store, user: User, *identities: ExternalIdentity, drops: bool = False
) -> User | None:
    found = stored(store, user)[1]
    return store.link(found, identities, provider="google", drops_password=drops, client=CLIENT)


def test_a_revoked_session_has_no_user_and_another_one_of_the_user_has(store: Store) -> None:
    user = _create(store)
    session, other = session_of(user), session_of(user)
    for _ in range(2):
        store.revoke_session(session, CLIENT)
    assert store.user(user.id, sid=session.sid) is None
    assert store.account(user.id, sid=session.sid) is None
    assert store.begin_reauthentication(session, CLIENT).credentials is None
    assert not store.revoke_all_sessions(session, CLIENT)
    assert store.user(user.id, sid=other.sid) == user


def test_the_browsers_previous_session_ends_with_what_begins_a_new_one(store: Store) -> None:
    other = User(str(uuid.uuid4()), "other@example.com", None, "local")
    sessions = [session_of(other) for _ in range(5)]
    clients = [Client(CLIENT.address, session) for session in sessions]
    store.create_user(other, "hash", client=clients[0])
    user = _create(store)
    store.end_login(store.begin_login(user.email, clients[1]))
    found = stored(store, user)[1]
    linked = store.link(found, [GOOGLE], provider="local", drops_password=False, client=clients[2])
    assert linked is not None
    token = id_token()
    assert store.find_external([GOOGLE], user.email, token, clients[3])
    assert [store.user(other.id, sid=session.sid) for session in sessions] == [
        *[None] * 4,
        other,
    ]


def test_what_begins_no_session_ends_none(store: Store) -> None:
    user = _create(store)
    session = session_of(user)
    client = Client(CLIENT.address, session)
    with pytest.raises(EmailTaken):
        store.create_user(User(str(uuid.uuid4()), user.email, None, "local"), "hash", client=client)
    assert store.find_external([GOOGLE], user.email, id_token(), client)
    outdated = replace(stored(store, user)[1], password_hash="another")
    assert not store.link(outdated, [GOOGLE], provider="local", drops_password=False, client=client)
    assert store.user(user.id, sid=session.sid) == user


def test_ending_all_sessions_raises_the_epoch_once(store: Store) -> None:
    user = _create(store)
    session = session_of(user)
    assert store.revoke_all_sessions(session, CLIENT)
    assert not store.revoke_all_sessions(session, CLIENT)
    found = store.user(user.id)
    assert found is not None
    assert found.epoch == user.epoch + 1
    assert store.begin_reauthentication(session, CLIENT).credentials is None
    assert store.begin_reauthentication(session_of(found), CLIENT).credentials is not None


def test_a_session_of_nobody_can_be_revoked_and_proves_nothing(store: Store) -> None:
    for user_id in (str(uuid.uuid4()), "not a UUID"):
        session = session_of(User(user_id, "gone@example.com", None, "local"))
        store.revoke_session(session, CLIENT)
        assert not store.revoke_all_sessions(session, CLIENT)
        assert store.begin_reauthentication(session, CLIENT).credentials is None
        assert store.account(user_id, sid=session.sid) is None


def test_a_changed_password_replaces_the_hash_and_raises_the_epoch(store: Store) -> None:
    user = _create(store)
    attempt, found = stored(store, user)
    changed = store.change_password(attempt, found, "new")
    assert changed is not None
    assert changed.epoch == user.epoch + 1
    assert credentials(store, ADA) == Credentials(changed, "new")


def test_of_two_password_changes_at_once_one_wins(store: Store) -> None:
    user = _create(store)
    attempts = [stored(store, user) for _ in range(4)]
    barrier = threading.Barrier(4)

    def change(number: int) -> User | None:
        barrier.wait()
        return store.change_password(*attempts[number], f"new {number}")

    with ThreadPoolExecutor(4) as threads:
        outcomes = list(threads.map(change, range(4)))
    ((winner, changed),) = [(n, user) for n, user in enumerate(outcomes) if user is not None]
    assert credentials(store, ADA) == Credentials(changed, f"new {winner}")


def test_a_first_password_can_be_set(store: Store) -> None:
    user = _create(store, ADA, GOOGLE, password=None)
    attempt, found = stored(store, user)
    assert store.change_password(attempt, found, "first") is not None
    after = credentials(store, ADA)
    assert after is not None
    assert after.password_hash == "first"


def test_a_deleted_user_is_gone_with_their_identities_and_the_address_is_free(store: Store) -> None:
    user = _create(store, ADA, GOOGLE)
    eve = _create(store, "eve@example.com", OTHER)
    first, second = stored(store, user), stored(store, user)
    assert store.delete_user(*first)
    assert not store.delete_user(*second)
    assert store.user(user.id) is None
    assert _find(store, GOOGLE) is None
    assert _create(store, ADA, GOOGLE).id != user.id
    assert store.user(eve.id) == eve


def test_a_user_who_changed_meanwhile_is_not_deleted(store: Store) -> None:
    user = _create(store)
    attempt, found = stored(store, user)
    assert store.change_password(*stored(store, user), "new")
    assert not store.delete_user(attempt, found)
    assert store.user(user.id) is not None


def test_a_user_is_found_by_any_identity_and_without_one_by_the_address(store: Store) -> None:
    user = _create(store, ADA, GOOGLE, FIREBASE)
    local = _create(store, "eve@example.com")
    for given, key in (((GOOGLE,), "x@example.com"), ((FIREBASE, GOOGLE), ADA)):
        match = _find(store, *given, key=key)
        assert match is not None
        assert match == ExternalMatch(
            Credentials(user, "hash"),
            is_linked=True,
            has_all=True,
            has_identities=True,
            at=match.at,
        )
    match = _find(store, OTHER, GOOGLE)
    assert match is not None
    assert (match.credentials.user, match.is_linked, match.has_all) == (user, True, False)
    match = _find(store, OTHER, key="eve@example.com")
    assert match is not None
    assert match == ExternalMatch(
        Credentials(local, "hash"),
        is_linked=False,
        has_all=False,
        has_identities=False,
        at=match.at,
    )
    assert _find(store, OTHER, key="nobody@example.com") is None


def test_a_user_with_as_many_identities_as_one_may_have_gets_no_more(store: Store) -> None:
    few, *more = (ExternalIdentity(FIREBASE.issuer, f"f{n}") for n in range(MAX_IDENTITIES))
    user = _create(store, ADA, few)
    match = _find(store, OTHER, few)
    assert match is not None
    assert not match.has_all
    assert _link(store, user, *more) is not None
    for given, is_linked in (((OTHER, few), True), ((OTHER,), False)):
        match = _find(store, *given)
        assert match is not None
        assert (match.credentials.user.id, match.is_linked, match.has_all) == (
            user.id,
            is_linked,
            True,
        )


def test_of_two_users_the_first_identity_decides(store: Store) -> None:
    user = _create(store, ADA, FIREBASE)
    _create(store, "eve@example.com", GOOGLE)
    match = _find(store, FIREBASE, GOOGLE, key="eve@example.com")
    assert match is not None
    assert (match.credentials.user, match.has_all) == (user, True)


def test_an_identity_belongs_to_one_user(store: Store) -> None:
    user = _create(store, ADA, GOOGLE)
    eve = _create(store, "eve@example.com")
    with pytest.raises(EmailTaken):
        _create(store, "mallory@example.com", GOOGLE)
    assert credentials(store, "mallory@example.com") is None
    assert _link(store, eve, GOOGLE, OTHER) is None
    assert store.user(eve.id) == eve
    match = _find(store, GOOGLE)
    assert match is not None
    assert match.credentials.user == user
    assert _find(store, OTHER, key="mallory@example.com") is None


def test_linking_adds_the_identities_that_are_missing(store: Store) -> None:
    user = _create(store, ADA, GOOGLE)
    linked = _link(store, user, FIREBASE, GOOGLE)
    assert linked is not None
    assert (linked.epoch, linked.provider) == (user.epoch, "google")
    account = store.account(user.id, sid="")
    assert account is not None
    assert set(account.identities) == {GOOGLE, FIREBASE}
    assert account.has_password


def test_linking_can_drop_the_password_and_with_it_all_sessions(store: Store) -> None:
    user = _create(store)
    linked = _link(store, user, GOOGLE, drops=True)
    assert linked is not None
    assert linked.epoch == user.epoch + 1
    assert credentials(store, ADA) == Credentials(linked, None)


def test_a_user_who_changed_meanwhile_is_not_linked(store: Store) -> None:
    user = _create(store)
    found = stored(store, user)[1]
    assert store.change_password(*stored(store, user), "new")
    linked = store.link(found, (GOOGLE,), provider="google", drops_password=True, client=CLIENT)
    assert linked is None
    assert _find(store, GOOGLE, key="nobody@example.com") is None


def test_of_two_creations_with_one_identity_one_wins(store: Store) -> None:
    barrier = threading.Barrier(8)

    def create(number: int) -> bool:
        barrier.wait()
        try:
            _create(store, f"user{number}@example.com", GOOGLE)
        except EmailTaken:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(create, range(8))) == 1


def test_an_account_tells_all_but_the_hash(store: Store) -> None:
    user = _create(store, ADA, GOOGLE)
    account = store.account(user.id, sid="")
    assert account is not None
    assert account.user == user
    assert account.identities == [GOOGLE]
    assert account.created_at is not None
    assert account.created_at.endswith("Z")
    assert account.updated_at is not None
    assert "hash" not in repr(account).replace("has_password", "")


def test_a_logout_while_the_clock_runs_ahead_revives_no_session_that_was_logged_out_before(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, now = _create(store), time.time()
    first, second = session_of(user, now=now), session_of(user, now=now)
    store.revoke_session(first, CLIENT)
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: now + 31 * DAY)
        store.revoke_session(second, CLIENT)
        store.clean_up()
    for session in (first, second):
        assert store.user(user.id, sid=session.sid) is None


def test_what_has_expired_is_cleaned_up_and_nothing_else(store: Store) -> None:
    user = _create(store)
    old, young = (session_of(user, now=time.time() - days * DAY) for days in (29, 20))
    store.revoke_session(old, CLIENT)
    store.revoke_session(young, CLIENT)
    pass_time(store, 9 * DAY)
    store.clean_up()
    assert store.user(user.id, sid=young.sid) is None
    assert store.user(user.id) == user
