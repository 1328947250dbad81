"""Counting attempts, with a clock passed in, on each store."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from shared.clients import Client
from shared.config import Settings
from shared.errors import TooManyAttempts
from shared.store import Store, open_store
from shared.throttling import KNOWN_SECONDS
from shared.users import User
from tests.support.stores import NOW

LOCKOUT = 900
HERE, THERE = Client("203.0.113.7"), Client("198.51.100.9")
ADA = "ada@example.com"


@pytest.fixture
def store(store_settings: dict[str, str]) -> Iterator[Store]:
    """A store with Ada in it, and with low limits."""
    limits = {
        "MAX_LOGIN_ATTEMPTS": "3",
        "MAX_ACCOUNT_ATTEMPTS": "6",
        "MAX_CLIENT_ATTEMPTS": "10",
        "MAX_SIGNUPS": "2",
        "LOCKOUT_TIME": str(LOCKOUT * 1000),
    }
    opened = open_store(Settings.from_env({"SESSION_SECRET": "x" * 32} | limits | store_settings))
    opened.create_user(User(str(uuid.uuid4()), ADA, None, "local"), "hash")
    yield opened
    opened.close()


def _may_try(store: Store, client: Client = HERE, now: float = NOW, key: str = ADA) -> bool:
    attempt = store.begin_login(key, client, now)
    assert (attempt.credentials is None) == (attempt.locked_until is not None or key != ADA)
    return attempt.locked_until is None


def _log_in(store: Store, client: Client = HERE, now: float = NOW) -> None:
    attempt = store.begin_login(ADA, client, now)
    assert attempt.credentials is not None
    store.end_login(attempt, now)


def test_an_account_has_its_number_of_attempts_from_one_network(store: Store) -> None:
    assert [_may_try(store) for _ in range(5)] == [True, True, True, False, False]


def test_a_lock_ends_its_time_after_the_last_attempt_that_counted(store: Store) -> None:
    for second in (0, 100, 200):
        assert _may_try(store, now=NOW + second)
    for second in (300, 200 + LOCKOUT - 1):
        attempt = store.begin_login(ADA, HERE, NOW + second)
        assert attempt.locked_until == pytest.approx(NOW + 200 + LOCKOUT, abs=0.001)
    later = NOW + 200 + LOCKOUT
    assert [_may_try(store, now=later) for _ in range(4)] == [True, True, True, False]


def test_who_is_locked_out_on_one_network_can_log_in_from_another(store: Store) -> None:
    while _may_try(store):
        pass
    _log_in(store, THERE)
    assert not _may_try(store)


def test_many_networks_together_have_a_number_of_attempts_too(store: Store) -> None:
    networks = [Client(f"192.0.2.{number}") for number in range(9)]
    assert [_may_try(store, network) for network in networks] == [True] * 6 + [False] * 3


def test_many_networks_cannot_lock_out_the_owner_where_they_logged_in_lately(store: Store) -> None:
    _log_in(store)
    later = NOW + KNOWN_SECONDS - 1
    for number in range(9):
        _may_try(store, Client(f"192.0.2.{number}"), later)
    assert not _may_try(store, THERE, later)
    assert [_may_try(store, HERE, later) for _ in range(4)] == [True, True, True, False]


def test_a_network_is_no_longer_known_after_as_long_as_a_session_lasts(store: Store) -> None:
    _log_in(store)
    later = NOW + KNOWN_SECONDS + 1
    for number in range(6):
        assert _may_try(store, Client(f"192.0.2.{number}"), later)
    assert not _may_try(store, HERE, later)


def test_success_gives_an_account_all_its_attempts_back(store: Store) -> None:
    for _ in range(4):
        assert [_may_try(store) for _ in range(2)] == [True, True]
        _log_in(store)
    assert _may_try(store, THERE)


def test_a_network_has_a_number_of_attempts_over_all_accounts(store: Store) -> None:
    for number in range(10):
        store.begin_login(f"nobody{number}@example.com", HERE, NOW + number)
    with pytest.raises(TooManyAttempts) as raised:
        store.begin_login(ADA, HERE, NOW + 10)
    assert raised.value.retry_after == LOCKOUT - 1
    with pytest.raises(TooManyAttempts):
        store.begin_login(ADA, HERE, NOW + 9 + LOCKOUT - 1)
    _log_in(store, THERE)
    _log_in(store, now=NOW + 9 + LOCKOUT)


def test_what_succeeds_is_not_counted_against_the_network(store: Store) -> None:
    for _ in range(12):
        _log_in(store)


def test_a_success_gives_the_network_back_its_own_attempt_and_no_other(store: Store) -> None:
    for number in range(9):
        store.begin_login(f"nobody{number}@example.com", HERE, NOW)
        _log_in(store)
    store.begin_login("nobody@example.com", HERE, NOW)
    with pytest.raises(TooManyAttempts):
        store.begin_login(ADA, HERE, NOW)


def test_what_a_network_is_denied_is_not_counted_against_the_account(store: Store) -> None:
    for number in range(10):
        store.begin_login(f"nobody{number}@example.com", HERE, NOW)
    for _ in range(9):
        with pytest.raises(TooManyAttempts):
            store.begin_login(ADA, HERE, NOW)
    assert [_may_try(store, THERE) for _ in range(4)] == [True, True, True, False]
    assert [_may_try(store, Client("192.0.2.1")) for _ in range(4)] == [True, True, True, False]


def test_what_one_network_is_denied_is_not_counted_against_the_others(store: Store) -> None:
    for _ in range(9):
        _may_try(store, HERE)
    assert [_may_try(store, THERE) for _ in range(4)] == [True, True, True, False]


def test_denied_attempts_prolong_nobody_elses_count(store: Store) -> None:
    for _ in range(4):
        _may_try(store, HERE)
    _may_try(store, HERE, NOW + LOCKOUT - 1)
    networks = [Client(f"192.0.2.{number}") for number in range(6)]
    assert all(_may_try(store, network, NOW + LOCKOUT) for network in networks)


def test_sign_ups_of_a_network_have_a_number(store: Store) -> None:
    for _ in range(2):
        store.reserve_sign_up(HERE, NOW)
    with pytest.raises(TooManyAttempts) as raised:
        store.reserve_sign_up(HERE, NOW + 1)
    assert raised.value.retry_after == LOCKOUT - 1
    store.reserve_sign_up(THERE, NOW)
    store.reserve_sign_up(HERE, NOW + LOCKOUT)


def test_the_addresses_of_one_ipv6_network_share_its_number(store: Store) -> None:
    for number in range(2):
        store.reserve_sign_up(Client(f"2001:db8::{number + 1}"), NOW)
    with pytest.raises(TooManyAttempts):
        store.reserve_sign_up(Client("2001:db8::ffff:0:0:3"), NOW)
    store.reserve_sign_up(Client("2001:db8:0:1::1"), NOW)


def test_an_address_that_is_nobodys_is_never_locked_whatever_shares_its_count(store: Store) -> None:
    for number in range(9):
        attempt = store.begin_login("nobody@example.com", Client(f"192.0.2.{number}"), NOW)
        assert (attempt.credentials, attempt.locked_until) == (None, None)
