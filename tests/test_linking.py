"""Whose account a provider's word opens: the linking table of `docs/SECURITY.md`, row by row."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace

import pytest

from shared import external
from shared.config import Settings
from shared.errors import AuthError, EmailTaken, LinkRequired, TooManyAttempts
from shared.identity import Identity
from shared.passwords import PasswordHasher
from shared.store import Store, open_store
from shared.users import ExternalIdentity, User
from tests.support.stores import CLIENT, credentials, log_in, session_of, sign_up

PASSWORD = "correct horse battery staple"
HASHER = PasswordHasher(4)
GOOGLE_ISSUER = "https://accounts.google.com"
FIREBASE_ISSUER = "https://securetoken.google.com/project"
EMAIL = "ada@example.com"
GOOGLE = Identity(GOOGLE_ISSUER, "1", EMAIL, "google", "Ada")
FIREBASE = Identity(
    FIREBASE_ISSUER,
    "f1",
    EMAIL,
    "firebase-google",
    "Ada",
    also=(ExternalIdentity(GOOGLE_ISSUER, "1"),),
)
OTHER = replace(GOOGLE, subject="2")


def _authoritative(identity: Identity) -> Identity:
    return replace(identity, is_authoritative=True)


def _sign_in(store: Store, identity: Identity, signed_in: User | None = None) -> tuple[User, bool]:
    """Give the user, and whether they are new."""
    session = session_of(signed_in) if signed_in else None
    user, event = external.sign_in(store, identity, session, client=CLIENT)
    return user, event == "signup"


def _local(store: Store, provider: str = "local", password: str | None = PASSWORD) -> User:
    user = User(str(uuid.uuid4()), EMAIL, None, provider)
    return store.create_user(user, password and HASHER.hash(password))


def _may_log_in(store: Store) -> bool:
    try:
        log_in(store, HASHER, EMAIL, PASSWORD)
    except AuthError:
        return False
    return True


def _identities(store: Store, user: User) -> set[ExternalIdentity]:
    account = store.account(user.id, sid="")
    assert account is not None
    return set(account.identities)


@pytest.mark.parametrize("identity", [GOOGLE, FIREBASE, _authoritative(GOOGLE)])
def test_a_new_address_gets_a_new_user_without_a_password(store: Store, identity: Identity) -> None:
    user, is_new = _sign_in(store, identity)
    assert is_new
    assert (user.email, user.name, user.provider) == (EMAIL, "Ada", identity.provider)
    assert _identities(store, user) == set(identity.identities)
    found = credentials(store, EMAIL)
    assert found is not None
    assert found.password_hash is None


@pytest.mark.parametrize("order", [(GOOGLE, FIREBASE), (FIREBASE, GOOGLE)])
def test_a_person_through_google_and_through_firebase_is_one_user(
    store: Store, order: tuple[Identity, Identity]
) -> None:
    first, _ = _sign_in(store, order[0])
    for identity in (*order, *order):
        again, is_new = _sign_in(store, identity)
        assert (again, is_new) == (first, False)
    assert _identities(store, first) == set(FIREBASE.identities)


@pytest.mark.parametrize("order", [(GOOGLE, FIREBASE), (FIREBASE, GOOGLE)])
def test_they_are_one_user_even_if_the_address_has_changed_between(
    store: Store, order: tuple[Identity, Identity]
) -> None:
    first, _ = _sign_in(store, order[0])
    again, _ = _sign_in(store, replace(order[1], email="new@example.com"))
    assert again == first
    assert credentials(store, "new@example.com") is None


@dataclass(frozen=True)
class Row:
    """A user who has the address already, who asks, and what becomes of that."""

    provider: str = "local"
    has_password: bool = True
    is_authoritative: bool = False
    is_signed_in: bool = False
    error: type[AuthError] | None = None
    keeps_password: bool = False
    keeps_sessions: bool = False


ROWS = {
    "a password, not signed in, Google not authoritative": Row(error=LinkRequired),
    "a password, not signed in, Google authoritative": Row(is_authoritative=True),
    "a password, signed in": Row(is_signed_in=True, keeps_password=True, keeps_sessions=True),
    "a password, signed in, Google authoritative": Row(
        is_signed_in=True, is_authoritative=True, keeps_password=True, keeps_sessions=True
    ),
    "Google's of the old server, without a subject": Row(provider="google", has_password=False),
    "Firebase's of the old server": Row(provider="firebase-google", has_password=False),
    "Google's of the old server with a password": Row(provider="google", error=LinkRequired),
    "nothing that anybody could prove": Row(has_password=False, error=EmailTaken),
    "nothing to prove, Google authoritative": Row(has_password=False, is_authoritative=True),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("identity", [GOOGLE, FIREBASE], ids=["google", "firebase"])
def test_an_account_with_the_address_is_joined_only_on_proof(
    store: Store, identity: Identity, row: Row
) -> None:
    holder = _local(store, row.provider, PASSWORD if row.has_password else None)
    identity = replace(identity, is_authoritative=row.is_authoritative)
    signed_in = holder if row.is_signed_in else None
    if row.error:
        with pytest.raises(row.error):
            _sign_in(store, identity, signed_in)
        assert store.user(holder.id) == holder
        assert _identities(store, holder) == set()
        assert _may_log_in(store) == row.has_password
        return
    user, is_new = _sign_in(store, identity, signed_in)
    assert (user.id, is_new) == (holder.id, False)
    assert _identities(store, user) == set(identity.identities)
    assert _may_log_in(store) == row.keeps_password
    assert (user.epoch == holder.epoch) == row.keeps_sessions
    assert user.provider == (holder.provider if row.is_signed_in else identity.provider)
    assert _sign_in(store, identity) == (user, False)


def test_another_person_with_the_address_never_gets_the_account(store: Store) -> None:
    owner, _ = _sign_in(store, GOOGLE)
    for identity in (OTHER, _authoritative(OTHER)):
        with pytest.raises(EmailTaken):
            _sign_in(store, identity)
    assert _identities(store, owner) == set(GOOGLE.identities)


def test_a_session_of_somebody_else_is_no_proof_and_their_account_is_left_alone(
    store: Store,
) -> None:
    holder = _local(store)
    eve = store.create_user(User(str(uuid.uuid4()), "eve@example.com", None, "local"), "hash")
    with pytest.raises(LinkRequired):
        _sign_in(store, GOOGLE, signed_in=eve)
    other, is_new = _sign_in(store, replace(GOOGLE, email="new@example.com"), signed_in=eve)
    assert is_new
    assert other.id not in (eve.id, holder.id)
    assert _identities(store, eve) == set()


def test_a_session_that_has_ended_is_no_proof(store: Store) -> None:
    holder = _local(store)
    session = session_of(holder)
    store.revoke_session(session, CLIENT)
    with pytest.raises(LinkRequired):
        external.sign_in(store, GOOGLE, session, client=CLIENT)
    current = session_of(holder)
    assert store.revoke_all_sessions(current, CLIENT)
    with pytest.raises(LinkRequired):
        external.sign_in(store, GOOGLE, current, client=CLIENT)


def test_a_linked_user_goes_on_with_both_the_password_and_google(store: Store) -> None:
    holder = _local(store)
    _sign_in(store, GOOGLE, signed_in=holder)
    assert _may_log_in(store)
    assert _sign_in(store, GOOGLE) == (holder, False)


def test_a_sign_up_with_a_password_never_takes_googles_account(store: Store) -> None:
    user, _ = _sign_in(store, GOOGLE)
    with pytest.raises(EmailTaken):
        sign_up(store, HASHER, EMAIL, PASSWORD)
    assert credentials(store, EMAIL) is not None
    assert _sign_in(store, GOOGLE) == (user, False)


def test_new_users_from_one_network_are_counted_as_sign_ups_and_others_are_not(
    store_settings: dict[str, str],
) -> None:
    settings = {"SESSION_SECRET": "x" * 32, "MAX_SIGNUPS": "1"} | store_settings
    with closing(open_store(Settings.from_env(settings))) as limited:
        for _ in range(3):
            _sign_in(limited, GOOGLE)
        with pytest.raises(TooManyAttempts):
            _sign_in(limited, replace(OTHER, email="other@example.com"))


@pytest.mark.parametrize(
    "identity", [GOOGLE, _authoritative(GOOGLE)], ids=["told", "authoritative"]
)
def test_password_and_google_sign_ups_of_one_address_at_once_end_in_one_account(
    store: Store, identity: Identity
) -> None:
    for number in range(10):
        email = f"racer{number}@example.com"
        racers = 4
        barrier = threading.Barrier(racers + 1)
        mine = replace(identity, email=email, subject=f"racer {number}")

        def by_google(_: int, mine: Identity = mine, barrier: threading.Barrier = barrier) -> str:
            barrier.wait()
            try:
                return _sign_in(store, mine)[0].id
            except LinkRequired:
                return ""

        def by_password(email: str = email, barrier: threading.Barrier = barrier) -> str:
            user = User(str(uuid.uuid4()), email, None, "local")
            barrier.wait()
            try:
                return store.create_user(user, HASHER.hash(PASSWORD)).id
            except EmailTaken:
                return ""

        with ThreadPoolExecutor(racers + 1) as threads:
            password = threads.submit(by_password)
            ids = set(threads.map(by_google, range(racers))) | {password.result()}
        found = credentials(store, email)
        assert found is not None
        assert ids - {""} == {found.user.id}
        # A password that Google's word was not joined to by its owner never outlives that.
        has_google = bool(_identities(store, found.user))
        assert has_google == (found.password_hash is None)
