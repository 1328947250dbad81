"""What ends a session, and what still works for how long afterwards, with a moving clock.

This is the table of `docs/SECURITY.md`, *When a session ends*, cell by cell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from shared.credentials.passwords import PasswordHasher
from shared.errors import InvalidCredentials, NotAuthenticated
from shared.model.sessions import FRESH_SECONDS, SESSION_SECONDS, Session
from shared.model.users import User
from shared.store.contract import Store
from tests.support.stores import CLIENT, NOW, TOKENS, accounts_of, log_in, sessions_of, sign_up

PASSWORD, NEW = "correct horse battery staple", "another long passphrase"
HASHER = PasswordHasher(4)


class Device:
    """A browser: it holds a session's cookie and replaces it when a new one comes."""

    def __init__(self, store: Store, user: User, now: float = NOW) -> None:
        self._store = store
        self._token = TOKENS.issue(user, now).text

    def session(self, now: float) -> Session:
        return sessions_of(self._store).read(self._token, now)

    def is_signed_in(self, now: float) -> bool:
        """Tell what /api/user says."""
        try:
            _, renewed = sessions_of(self._store).current_user(self._token, now)
        except NotAuthenticated:
            return False
        self._token = renewed.text if renewed else self._token
        return True

    def may_change_things(self, now: float) -> bool:
        """Tell whether the store still takes the session, for reading and for a proof."""
        outcomes = {
            self._works(sessions_of(self._store).account, now),
            self._works(self._prove_again, now),
        }
        assert len(outcomes) == 1
        return outcomes.pop()

    def _works(self, function: Callable[[Session], object], now: float) -> bool:
        try:
            function(self.session(now))
        except NotAuthenticated:
            return False
        return True

    def _prove_again(self, session: Session) -> None:
        attempt = self._store.begin_reauthentication(session, CLIENT)
        if attempt.credentials is None:
            raise NotAuthenticated
        self._store.end_login(attempt)

    def log_out(self, _now: float) -> None:
        sessions_of(self._store).log_out([self._token], [], client=CLIENT)

    def log_out_everywhere(self, now: float) -> None:
        sessions_of(self._store).log_out_everywhere(self.session(now), [], client=CLIENT)

    def change_password(self, now: float) -> None:
        user = accounts_of(self._store).change_password(
            self.session(now), current=PASSWORD, new=NEW, client=CLIENT
        )
        self._token = TOKENS.issue(user, now).text

    def delete_account(self, now: float) -> None:
        session = self.session(now)
        accounts_of(self._store).delete(session, password=PASSWORD, client=CLIENT)


@dataclass(frozen=True)
class Row:
    """What still works after an operation, on the device that did it and on another one."""

    operation: Callable[[Device, float], None]
    goes_on_here: bool
    goes_on_there: bool


ROWS = {
    "nothing": Row(lambda _device, _now: None, goes_on_here=True, goes_on_there=True),
    "logout": Row(Device.log_out, goes_on_here=False, goes_on_there=True),
    "everywhere": Row(Device.log_out_everywhere, goes_on_here=False, goes_on_there=False),
    "password": Row(Device.change_password, goes_on_here=True, goes_on_there=False),
    "deletion": Row(Device.delete_account, goes_on_here=False, goes_on_there=False),
}


def _sign_up(store: Store, email: str = "ada@example.com") -> User:
    return sign_up(store, HASHER, email, PASSWORD)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_what_works_after_an_operation_and_for_how_long(store: Store, row: Row) -> None:
    user = _sign_up(store)
    here, there = Device(store, user), Device(store, user)
    other = Device(store, _sign_up(store, "other@example.com"))
    moment = NOW + 60
    row.operation(here, moment)
    for device, goes_on in ((here, row.goes_on_here), (there, row.goes_on_there), (other, True)):
        assert device.may_change_things(moment + 1) == goes_on
        # The signature alone is believed for ten minutes from its issue, and no second longer.
        assert device.is_signed_in(NOW + FRESH_SECONDS - 1)
        assert device.is_signed_in(moment + FRESH_SECONDS) == goes_on
        assert device.is_signed_in(NOW + SESSION_SECONDS - 1) == goes_on
        assert device.may_change_things(NOW + SESSION_SECONDS - 1) == goes_on
        assert not device.is_signed_in(moment + SESSION_SECONDS)


def test_a_renewed_copy_of_a_session_ends_with_it(store: Store) -> None:
    user = _sign_up(store)
    device = Device(store, user)
    stolen = Device(store, user)
    stolen._token = device._token
    assert stolen.is_signed_in(NOW + FRESH_SECONDS)
    device.log_out(NOW + FRESH_SECONDS + 1)
    assert not stolen.may_change_things(NOW + FRESH_SECONDS + 2)
    assert not stolen.is_signed_in(NOW + 2 * FRESH_SECONDS + 1)


def test_a_new_account_at_a_deleted_ones_address_is_out_of_reach_of_its_sessions(
    store: Store,
) -> None:
    old = Device(store, _sign_up(store))
    old.delete_account(NOW)
    new = _sign_up(store)
    assert not old.may_change_things(NOW + 1)
    assert not old.is_signed_in(NOW + FRESH_SECONDS)
    assert store.user(new.id) == new


def test_the_old_password_ends_with_its_change_and_the_new_one_works(store: Store) -> None:
    device = Device(store, _sign_up(store))
    device.change_password(NOW)
    assert log_in(store, HASHER, "ada@example.com", NEW).epoch == 1
    with pytest.raises(InvalidCredentials):
        log_in(store, HASHER, "ada@example.com", PASSWORD)
