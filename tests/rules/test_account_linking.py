"""Whose account a provider's word opens: the linking table of `docs/SECURITY.md`, row by row."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace

import pytest

from shared.application import open_store
from shared.credentials.id_tokens import Identity
from shared.credentials.passwords import PasswordHasher
from shared.errors import AuthError, EmailTaken, LinkRequired, TooManyAttempts
from shared.model.sessions import FRESH_SECONDS, Session
from shared.model.users import MAX_IDENTITIES, SOURCE_ISSUER, ExternalIdentity, User
from shared.rules import account_linking
from shared.settings import Settings
from shared.store.contract import Store
from tests.support.stores import CLIENT, TOKENS, credentials, log_in, session_of, sign_up

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


def _sign_in(store: Store, identity: Identity, session: Session | None = None) -> tuple[User, bool]:
    """Give the user, and whether they are new."""
    user, event, _ = account_linking.sign_in(store, identity, session, client=CLIENT)
    return user, event == "signup"


def _session(user: User, *, age: float = 0.0, method: str = "password") -> Session:
    """Begin a session so many seconds ago, by the stores' clocks."""
    return session_of(user, now=time.time() - age, method=method)


def _local(
    store: Store, provider: str = "local", password: str | None = PASSWORD, email: str = EMAIL
) -> User:
    user = User(str(uuid.uuid4()), email, None, provider)
    return store.create_user(user, password and HASHER.hash(password))


def _may_log_in(store: Store, email: str = EMAIL) -> bool:
    try:
        log_in(store, HASHER, email, PASSWORD)
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


def _revoked(store: Store, user: User) -> Session:
    session = _session(user)
    store.revoke_session(session, CLIENT)
    return session


def _renewed(user: User) -> Session:
    begun, now = _session(user, age=FRESH_SECONDS + 1), time.time()
    return TOKENS.read(TOKENS.issue(user, now, renews=begun).text, now)


SESSIONS: dict[str, Callable[[Store, User], Session | None]] = {
    "none": lambda _store, _user: None,
    "of a sign-up just now": lambda _store, user: _session(user, method="signup"),
    "of the old server": lambda _store, user: _session(user, method="express"),
    "of Google": lambda _store, user: _session(user, method="google"),
    "of a login too long ago": lambda _store, user: _session(user, age=FRESH_SECONDS + 1),
    "of a login too long ago, renewed": lambda _store, user: _renewed(user),
    "ended": _revoked,
    "of another epoch": lambda _store, user: _session(user._replace(epoch=user.epoch + 1)),
    "of somebody else": lambda _store, user: _session(user._replace(id=str(uuid.uuid4()))),
}
"""What an attacker may have put into the browser of whoever signs in: none of it is a proof."""
PROOFS: dict[str, Callable[[User], Session]] = {
    "of a login just now": lambda user: _session(user),
    "of a login nine minutes ago": lambda user: _session(user, age=FRESH_SECONDS - 60),
}


@dataclass(frozen=True)
class Row:
    """A user who has the address already, and what becomes of that without a proof."""

    provider: str = "local"
    has_password: bool = True
    is_authoritative: bool = False
    error: type[AuthError] | None = None


ROWS = {
    "a password, Google not authoritative": Row(error=LinkRequired),
    "a password, Google authoritative": Row(is_authoritative=True),
    "Google's of the old server, without a subject": Row(provider="google", has_password=False),
    "Firebase's of the old server": Row(provider="firebase-google", has_password=False),
    "Google's of the old server with a password": Row(provider="google", error=LinkRequired),
    "nothing that anybody could prove": Row(has_password=False, error=EmailTaken),
    "nothing to prove, Google authoritative": Row(has_password=False, is_authoritative=True),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_without_a_proof_an_account_is_left_alone_or_loses_its_password_and_sessions(
    store: Store, row: Row
) -> None:
    for number, (name, session) in enumerate(SESSIONS.items()):
        email = f"ada{number}@example.com"
        holder = _local(store, row.provider, PASSWORD if row.has_password else None, email)
        other, asking = _session(holder), session(store, holder)
        also = (ExternalIdentity(GOOGLE_ISSUER, f"{number}"),)
        identity = replace(
            FIREBASE,
            subject=f"f{number}",
            email=email,
            also=also,
            is_authoritative=row.is_authoritative,
        )
        if row.error:
            with pytest.raises(row.error):
                _sign_in(store, identity, asking)
            assert store.user(holder.id, sid=other.sid) == holder, name
            assert _identities(store, holder) == set(), name
            assert _may_log_in(store, email) == row.has_password, name
            continue
        user, is_new = _sign_in(store, identity, asking)
        assert (user.id, is_new) == (holder.id, False), name
        assert _identities(store, user) == set(identity.identities), name
        assert not _may_log_in(store, email), name
        assert user.epoch == holder.epoch + 1, name
        assert user.provider == identity.provider, name
        assert _sign_in(store, identity) == (user, False), name


@pytest.mark.parametrize("session", PROOFS.values(), ids=PROOFS)
@pytest.mark.parametrize("provider", ["local", "google"])
@pytest.mark.parametrize("identity", [GOOGLE, FIREBASE, _authoritative(GOOGLE)])
def test_who_has_just_logged_in_with_the_password_links_and_keeps_password_and_sessions(
    store: Store, identity: Identity, provider: str, session: Callable[[User], Session]
) -> None:
    holder = _local(store, provider)
    proved = holder._replace(email_verified=True)  # By Google, whose address it is, too.
    assert _sign_in(store, identity, session(holder)) == (proved, False)
    assert _identities(store, holder) == set(identity.identities)
    assert _may_log_in(store)
    assert _sign_in(store, identity) == (proved, False)


def test_a_password_that_is_gone_is_proven_by_no_session(store: Store) -> None:
    holder = _local(store, "local", None)
    with pytest.raises(EmailTaken):
        _sign_in(store, GOOGLE, _session(holder))
    assert _identities(store, holder) == set()


def test_another_person_with_the_address_never_gets_the_account(store: Store) -> None:
    owner, _ = _sign_in(store, GOOGLE)
    for identity in (OTHER, _authoritative(OTHER)):
        with pytest.raises(EmailTaken):
            _sign_in(store, identity)
    assert _identities(store, owner) == set(GOOGLE.identities)


@pytest.mark.parametrize("issuer", [f"{SOURCE_ISSUER}django", FIREBASE_ISSUER])
def test_the_id_that_a_user_had_in_another_system_keeps_no_identity_away_and_lets_none_in(
    issuer: str, store: Store
) -> None:
    old = ExternalIdentity(issuer, "17")
    user = User(str(uuid.uuid4()), EMAIL, None, "local")
    store.create_user(user, HASHER.hash(PASSWORD), [old])
    with pytest.raises(LinkRequired):
        _sign_in(store, GOOGLE)
    assert _sign_in(store, _authoritative(GOOGLE))[0].id == user.id
    assert _identities(store, user) == {old, *GOOGLE.identities}
    with pytest.raises(EmailTaken):
        _sign_in(store, _authoritative(OTHER))


def test_the_owner_alone_can_give_the_account_a_second_person_at_google(store: Store) -> None:
    """Such as one whose Workspace account was made anew."""
    holder = _local(store)
    _sign_in(store, GOOGLE, _session(holder))
    for worthless in (None, _session(holder, method="google")):
        with pytest.raises(EmailTaken):
            _sign_in(store, OTHER, worthless)
    proved = holder._replace(email_verified=True)
    assert _sign_in(store, OTHER, _session(holder)) == (proved, False)
    assert _identities(store, holder) == {*GOOGLE.identities, *OTHER.identities}


def test_who_has_as_many_identities_as_one_may_have_signs_in_and_gets_no_more(
    store: Store,
) -> None:
    holder = _local(store)
    proved, _ = _sign_in(store, GOOGLE, _session(holder))
    assert proved == holder._replace(email_verified=True)
    for number in range(MAX_IDENTITIES + 5):
        again = replace(FIREBASE, subject=f"another {number}")
        assert _sign_in(store, again) == (proved, False)
    assert len(_identities(store, holder)) == MAX_IDENTITIES
    with pytest.raises(EmailTaken):
        _sign_in(store, OTHER, _session(holder))


def test_a_session_at_another_address_links_nothing_to_its_own_account(store: Store) -> None:
    _local(store)
    eve = store.create_user(User(str(uuid.uuid4()), "eve@example.com", None, "local"), "hash")
    with pytest.raises(LinkRequired):
        _sign_in(store, GOOGLE, _session(eve))
    new, is_new = _sign_in(store, replace(GOOGLE, email="new@example.com"), _session(eve))
    assert is_new
    assert new.id != eve.id
    assert _identities(store, eve) == set()


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
