"""What ends sessions is announced: each statement of a request that does, found in the SQL."""

from __future__ import annotations

import importlib
import pkgutil
import re
import time
import uuid
from collections.abc import Callable

import pytest

import shared.store.postgres
from shared.database.statement import Statement
from shared.errors import StoreUnavailable
from shared.model.clients import Client
from shared.model.sessions import Session
from shared.model.users import ExternalIdentity, User
from shared.observe import metrics
from shared.store.announcing import AnnouncingStore
from shared.store.contract import Attempt, Credentials, Store
from tests.support.emulator import ROOT
from tests.support.mails import taken, token_of
from tests.support.stores import CLIENT, id_token, session_of

ADA = "ada@example.com"
GOOGLE = [ExternalIdentity("https://accounts.google.com", "1")]
ENDS_SESSIONS = re.compile(
    r"INSERT INTO revoked_sessions|DELETE FROM users\b|\bepoch = (\(?CASE|\{next_epoch)"
    r"|SET (epoch|disabled_at|\{assignments)"
)
"""What SQL that ends sessions has in it, and what the sources have from which it is made."""


class Announced:
    """An announcing store, and what it has announced."""

    def __init__(self, store: Store) -> None:
        self.ended: list[Session | User] = []
        self.store = AnnouncingStore(store, lambda *ended: self.ended.extend(ended))

    def has(self, session: Session) -> bool:
        ended = {one.sid if isinstance(one, Session) else (one.id, one.epoch) for one in self.ended}
        return bool(ended & {session.sid, (session.user.id, session.user.epoch)})


Event = Callable[[Store, Session], object]


def _with(session: Session) -> Client:
    """Give the client whose browser has the session."""
    return Client(CLIENT.address, session)


def _credentials(
    store: Store, session: Session, client: Client = CLIENT
) -> tuple[Attempt, Credentials]:
    attempt = store.begin_reauthentication(session, client)
    assert attempt.credentials is not None
    return attempt, attempt.credentials


def _log_in(store: Store, session: Session) -> None:
    store.end_login(store.begin_login(session.user.email, _with(session)))


def _sign_up(store: Store, session: Session) -> None:
    other = User(str(uuid.uuid4()), "other@example.com", None, "local")
    store.create_user(other, "hash", client=_with(session))


def _sign_in_again(store: Store, session: Session) -> None:
    _, found = _credentials(store, session)
    assert store.link(found, GOOGLE, provider="local", drops_password=False, client=CLIENT)
    match = store.find_external(GOOGLE, ADA, id_token(), _with(session))
    assert match is not None
    assert match.is_linked


def _link(store: Store, session: Session) -> None:
    _, found = _credentials(store, session)
    client = _with(session)
    assert store.link(found, GOOGLE, provider="local", drops_password=False, client=client)


def _join(store: Store, session: Session) -> None:
    _, found = _credentials(store, session)
    assert store.link(found, GOOGLE, provider="google", drops_password=True, client=CLIENT)


def _reset(store: Store, session: Session) -> None:
    store.mail.ask_for_mail("password_reset", ADA, locale=None, client=CLIENT)
    (mail,) = taken(store)
    assert store.mail.reset_password(token_of(mail), "another hash", CLIENT)


def _reset_by_an_older_link(store: Store, session: Session) -> None:
    """Of an address that is not proved: a stranger cannot end the link by raising the epoch."""
    store.mail.ask_for_mail("password_reset", ADA, locale=None, client=CLIENT)
    (mail,) = taken(store)
    for epoch in (0, 1):
        ended = session_of(session.user._replace(epoch=epoch))
        assert store.revoke_all_sessions(ended, CLIENT)
    latest = session_of(session.user._replace(epoch=2))
    assert store.mail.reset_password(token_of(mail), "another hash", CLIENT)
    assert latest.user.epoch == 2


def _log_in_by_link(store: Store, session: Session, client: Client = CLIENT) -> None:
    store.mail.ask_for_mail("login_link", ADA, locale=None, client=CLIENT)
    (mail,) = taken(store)
    assert store.mail.log_in(token_of(mail), client)


def _log_in_by_link_here(store: Store, session: Session) -> None:
    store.mail.ask_for_mail("verification", ADA, locale=None, client=CLIENT)
    (mail,) = taken(store)
    assert store.mail.verify_email(token_of(mail), sid="", client=CLIENT)
    _log_in_by_link(store, session, _with(session))


def _change_email(store: Store, session: Session, *, by_password: bool = False) -> None:
    assert store.mail.request_email_change(*_credentials(store, session), "new@example.com")
    (mail,) = taken(store)
    attempt = _credentials(store, session)[0] if by_password else None
    changed = store.mail.change_email(token_of(mail), sid="", client=CLIENT, attempt=attempt)
    assert changed is not None


EVENTS: dict[str, Event] = {
    "logout": lambda store, session: store.revoke_session(session, CLIENT),
    "logout everywhere": lambda store, session: store.revoke_all_sessions(session, CLIENT),
    "a new password": lambda store, session: store.change_password(
        *_credentials(store, session), "another hash"
    ),
    "deletion": lambda store, session: store.delete_user(*_credentials(store, session)),
    "a login in the same browser": _log_in,
    "a sign-up in the same browser": _sign_up,
    "a sign-in with Google in the same browser": _sign_in_again,
    "linking in the same browser": _link,
    "a sign-in with Google that joins": _join,
    "a reset by a link": _reset,
    "a reset by an older link": _reset_by_an_older_link,
    "a sign-in by a link, address not proved": _log_in_by_link,
    "a sign-in by a link in the same browser": _log_in_by_link_here,
    "a change of the address": _change_email,
    "a change of the address by the password": lambda store, session: _change_email(
        store, session, by_password=True
    ),
}


def _session(store: Store) -> Session:
    user = User(str(uuid.uuid4()), ADA, None, "local")
    created = store.create_user(user, "hash", client=CLIENT, verification="unproved")
    taken(store)
    return session_of(created, now=time.time())


@pytest.mark.parametrize("event", EVENTS)
def test_what_ends_a_session_is_announced(store: Store, event: str) -> None:
    session = _session(store)
    announced = Announced(store)
    EVENTS[event](announced.store, session)
    found = store.user(session.user.id, sid=session.sid)
    assert found is None or found.epoch != session.user.epoch, "it has ended"
    assert announced.has(session)


@pytest.mark.parametrize("event", EVENTS)
def test_no_other_session_is_announced(store: Store, event: str) -> None:
    session = _session(store)
    announced = Announced(store)
    EVENTS[event](announced.store, session)
    others = [User(str(uuid.uuid4()), ADA, None, "local")]
    if (now := store.user(session.user.id)) is not None:
        others.append(now)
    assert not any(announced.has(session_of(user)) for user in others)


def test_each_of_the_latest_epochs_is_announced_where_a_link_is_older(store: Store) -> None:
    session = _session(store)
    announced = Announced(store)
    _reset_by_an_older_link(announced.store, session)
    for epoch in (0, 1, 2):
        assert announced.has(session_of(session.user._replace(epoch=epoch)))
    assert not announced.has(session_of(session.user._replace(epoch=3)))


def test_nothing_is_announced_of_what_is_refused(store: Store) -> None:
    session = _session(store)
    announced = Announced(store)
    attempt, found = _credentials(store, session)
    assert store.revoke_all_sessions(session, CLIENT)
    assert not announced.store.revoke_all_sessions(session, CLIENT)
    assert announced.store.change_password(attempt, found, "another hash") is None
    assert not announced.store.delete_user(attempt, found)
    assert announced.ended == []


def test_nothing_is_announced_of_what_fails(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    session = _session(store)
    announced = Announced(store)

    def fail(*_: object) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(store, "revoke_session", fail)
    with pytest.raises(StoreUnavailable):
        announced.store.revoke_session(session, CLIENT)
    assert announced.ended == []


def _statements() -> set[str]:
    """Name the statements of requests that end sessions."""
    package = shared.store.postgres
    modules = [
        importlib.import_module(f"{package.__name__}.{found.name}")
        for found in pkgutil.iter_modules(package.__path__)
    ]
    return {
        value.name
        for module in modules
        for value in vars(module).values()
        if isinstance(value, Statement) and ENDS_SESSIONS.search(value.sql)
    }


@pytest.mark.parametrize("store_settings", ["postgres"], indirect=True)
def test_no_statement_that_ends_sessions_is_forgotten(store: Store) -> None:
    expected = _statements()
    assert {"revoke_session", "revoke_all", "end_login", "create", "delete_user"} <= expected
    run = set()
    for event in EVENTS.values():
        store.database.execute("TRUNCATE users, identities, revoked_sessions, auth_attempts")  # type: ignore[attr-defined]
        session = _session(store)
        before = {name: found.number for name, found in metrics.QUERIES.by_label(0).items()}
        event(store, session)
        after = metrics.QUERIES.by_label(0)
        run |= {name for name in after if after[name].number > before.get(name, 0)}
    assert expected - run == set(), "each is run by an event, of which the tests above ask"


def test_who_else_ends_sessions_is_known() -> None:
    """What is not of a request is known elsewhere after ten minutes: docs/OPERATIONS.md."""
    found = {
        str(path.relative_to(ROOT))
        for folder in ("functions", "shared")
        for path in (ROOT / folder).rglob("*.py")
        if ENDS_SESSIONS.search(path.read_text())
    }
    requests = {f"shared/store/postgres/{name}.py" for name in ("statements", "mail_statements")}
    transfers = ("pending_sign_ups", "rollback", "writing")
    others = {f"shared/transfer/{name}.py" for name in transfers}
    assert found == {*requests, *others, "shared/store/postgres/email_keys.py"}
