"""Counting attempts, on each store, whose rows grow older instead of a clock that moves."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from shared.application import open_store
from shared.errors import InvalidIdentityToken, TooManyAttempts
from shared.model.clients import Client
from shared.model.throttling import KNOWN_SECONDS
from shared.model.users import TOKEN_MAX_SECONDS, ExternalIdentity, IdToken, User
from shared.settings import Settings
from shared.store.contract import ExternalMatch, Store
from tests.support.stores import id_token, pass_time, session_of

LOCKOUT = 900
MARGIN = 60
"""Seconds that a test may take on a busy machine."""
HERE, THERE = Client("203.0.113.7"), Client("198.51.100.9")
ADA = "ada@example.com"
GOOGLE = ExternalIdentity("https://accounts.google.com", "1")


@pytest.fixture
def store(store_settings: dict[str, str]) -> Iterator[Store]:
    """A store with Ada in it, and with low limits."""
    limits = {
        "MAX_LOGIN_ATTEMPTS": "3",
        "MAX_ACCOUNT_ATTEMPTS": "6",
        "MAX_CLIENT_ATTEMPTS": "10",
        "MAX_SIGNUPS": "2",
        "MAX_LOGINS": "12",
        "LOCKOUT_TIME": str(LOCKOUT * 1000),
    }
    opened = open_store(Settings.from_env({"SESSION_SECRET": "x" * 32} | limits | store_settings))
    opened.create_user(User(str(uuid.uuid4()), ADA, None, "local"), "hash")
    yield opened
    opened.close()


def _may_try(store: Store, client: Client = HERE, key: str = ADA) -> bool:
    attempt = store.begin_login(key, client)
    assert (attempt.credentials is None) == (attempt.locked_for is not None or key != ADA)
    return attempt.locked_for is None


def _log_in(store: Store, client: Client = HERE) -> None:
    attempt = store.begin_login(ADA, client)
    assert attempt.credentials is not None
    store.end_login(attempt)


def _ada(store: Store) -> User:
    found = store.find_external((), ADA, id_token(), HERE)
    assert found is not None
    return found.credentials.user


def _find(store: Store, token: IdToken, key: str = ADA) -> ExternalMatch | None:
    return store.find_external((GOOGLE,), key, token, HERE)


def _link(store: Store) -> None:
    found = store.begin_login(ADA, HERE).credentials
    assert found is not None
    assert store.link(found, (GOOGLE,), provider="local", drops_password=False, client=HERE)


def test_an_account_has_its_number_of_attempts_from_one_network(store: Store) -> None:
    assert [_may_try(store) for _ in range(5)] == [True, True, True, False, False]


def test_a_lock_ends_its_time_after_the_last_attempt_that_counted(store: Store) -> None:
    for _ in range(3):
        assert _may_try(store)
        pass_time(store, 100)
    for left in (LOCKOUT - 100, MARGIN):
        attempt = store.begin_login(ADA, HERE)
        assert attempt.locked_for is not None
        assert left - MARGIN < attempt.locked_for <= left
        pass_time(store, left - MARGIN)
    pass_time(store, MARGIN)
    assert [_may_try(store) for _ in range(4)] == [True, True, True, False]


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
    pass_time(store, KNOWN_SECONDS - MARGIN)
    for number in range(9):
        _may_try(store, Client(f"192.0.2.{number}"))
    assert not _may_try(store, THERE)
    assert [_may_try(store, HERE) for _ in range(4)] == [True, True, True, False]


def test_a_network_is_no_longer_known_after_as_long_as_a_session_lasts(store: Store) -> None:
    _log_in(store)
    pass_time(store, KNOWN_SECONDS)
    for number in range(6):
        assert _may_try(store, Client(f"192.0.2.{number}"))
    assert not _may_try(store, HERE)


def test_a_network_is_not_known_by_a_password_that_a_session_gave_there(store: Store) -> None:
    """Or whoever took the session along could sign in from there untold."""
    _log_in(store, THERE)
    attempt = store.begin_reauthentication(session_of(_ada(store)), HERE)
    assert attempt.credentials
    assert store.change_password(attempt, attempt.credentials, "new")
    for number in range(6):
        assert _may_try(store, Client(f"192.0.2.{number}"))
    assert not _may_try(store, HERE)
    assert _may_try(store, THERE)


def test_success_gives_an_account_all_its_attempts_back(store: Store) -> None:
    for _ in range(4):
        assert [_may_try(store) for _ in range(2)] == [True, True]
        _log_in(store)
    assert _may_try(store, THERE)


def test_a_network_has_a_number_of_attempts_over_all_accounts(store: Store) -> None:
    for number in range(10):
        store.begin_login(f"nobody{number}@example.com", HERE)
    for left in (LOCKOUT, MARGIN):
        with pytest.raises(TooManyAttempts) as raised:
            store.begin_login(ADA, HERE)
        assert left - MARGIN < raised.value.retry_after <= left
        pass_time(store, left - MARGIN)
    _log_in(store, THERE)
    pass_time(store, MARGIN)
    _log_in(store)


def test_what_succeeds_is_not_counted_against_the_network(store: Store) -> None:
    for _ in range(12):
        _log_in(store)


def test_a_success_gives_the_network_back_its_own_attempt_and_no_other(store: Store) -> None:
    for number in range(9):
        store.begin_login(f"nobody{number}@example.com", HERE)
        _log_in(store)
    store.begin_login("nobody@example.com", HERE)
    with pytest.raises(TooManyAttempts):
        store.begin_login(ADA, HERE)


def test_what_a_network_is_denied_is_not_counted_against_the_account(store: Store) -> None:
    for number in range(10):
        store.begin_login(f"nobody{number}@example.com", HERE)
    for _ in range(9):
        with pytest.raises(TooManyAttempts):
            store.begin_login(ADA, HERE)
    assert [_may_try(store, THERE) for _ in range(4)] == [True, True, True, False]
    assert [_may_try(store, Client("192.0.2.1")) for _ in range(4)] == [True, True, True, False]


def test_what_one_network_is_denied_is_not_counted_against_the_others(store: Store) -> None:
    for _ in range(9):
        _may_try(store, HERE)
    assert [_may_try(store, THERE) for _ in range(4)] == [True, True, True, False]


def test_denied_attempts_prolong_nobody_elses_count(store: Store) -> None:
    for _ in range(4):
        _may_try(store, HERE)
    pass_time(store, LOCKOUT - MARGIN)
    _may_try(store, HERE)
    pass_time(store, MARGIN)
    networks = [Client(f"192.0.2.{number}") for number in range(6)]
    assert all(_may_try(store, network) for network in networks)


def test_successes_of_an_account_have_a_number_from_wherever_they_come(store: Store) -> None:
    for number in range(12):
        _log_in(store, Client(f"192.0.2.{number}"))
        pass_time(store, 1)
    for client, left in ((THERE, LOCKOUT - 12), (HERE, MARGIN)):
        with pytest.raises(TooManyAttempts) as raised:
            _log_in(store, client)
        assert left - MARGIN < raised.value.retry_after <= left
        assert raised.value.facts["event"] == "login_throttled"
        pass_time(store, left - MARGIN)
    pass_time(store, MARGIN)
    for _ in range(12):
        _log_in(store, THERE)


def test_who_logs_in_regularly_is_never_refused(store: Store) -> None:
    for _ in range(40):
        _log_in(store)
        pass_time(store, LOCKOUT / 10)


def test_successes_of_one_account_are_not_counted_for_another(store: Store) -> None:
    other = "grace@example.com"
    store.create_user(User(str(uuid.uuid4()), other, None, "local"), "hash")
    for _ in range(12):
        _log_in(store)
    with pytest.raises(TooManyAttempts):
        _log_in(store)
    store.end_login(store.begin_login(other, HERE))


def test_what_fails_is_counted_and_answered_the_same_after_too_many_successes(
    store: Store,
) -> None:
    for _ in range(12):
        _log_in(store)
    with pytest.raises(TooManyAttempts):
        _log_in(store)
    assert [_may_try(store, THERE) for _ in range(4)] == [True, True, True, False]


def test_a_success_too_many_gives_the_network_nothing_back_and_ends_no_session(
    store: Store,
) -> None:
    for number in range(12):
        _log_in(store, Client(f"192.0.2.{number}"))
    session = session_of(_ada(store))
    for _ in range(10):
        attempt = store.begin_login(ADA, Client(HERE.address, session))
        with pytest.raises(TooManyAttempts):
            store.end_login(attempt)
    assert store.user(session.user.id, sid=session.sid) is not None
    with pytest.raises(TooManyAttempts) as raised:
        store.begin_login(ADA, HERE)
    assert raised.value.facts["event"] == "login_throttled"


def test_changes_of_the_password_are_successes_and_one_too_many_changes_nothing(
    store: Store,
) -> None:
    for number in range(12):
        session = session_of(_ada(store))
        attempt = store.begin_reauthentication(session, HERE)
        assert attempt.credentials is not None
        assert store.change_password(attempt, attempt.credentials, f"hash {number}")
    before = _ada(store)
    attempt = store.begin_reauthentication(session_of(before), HERE)
    assert attempt.credentials is not None
    for change in (
        lambda: store.change_password(attempt, attempt.credentials, "new"),
        lambda: store.delete_user(attempt, attempt.credentials),
    ):
        with pytest.raises(TooManyAttempts) as raised:
            change()
        assert raised.value.facts["event"] == "reauthentication_throttled"
    assert _ada(store) == before
    pass_time(store, LOCKOUT)
    assert store.delete_user(attempt, attempt.credentials)


def test_sign_ins_by_a_provider_are_successes_of_the_account(store: Store) -> None:
    _link(store)
    for number in range(12):
        if number % 2:
            _log_in(store)
        else:
            assert _find(store, id_token()) is not None
    pass_time(store, 100)
    with pytest.raises(TooManyAttempts) as raised:
        _find(store, id_token())
    assert LOCKOUT - 100 - MARGIN < raised.value.retry_after <= LOCKOUT - 100
    assert raised.value.facts["event"] == "login_throttled"
    with pytest.raises(TooManyAttempts):
        _log_in(store)
    pass_time(store, LOCKOUT - 100)
    assert _find(store, id_token()) is not None


def test_who_has_only_the_address_takes_none_of_its_owners_successes(store: Store) -> None:
    for _ in range(30):
        match = _find(store, id_token())
        assert match is not None
        assert not match.is_linked
    _log_in(store)


def test_an_id_token_is_taken_a_number_of_times_until_it_expires(store: Store) -> None:
    token, other = id_token(), id_token()
    for _ in range(20):
        assert _find(store, token, key="nobody@example.com") is None
        pass_time(store, 1)
    for seconds in (token.seconds - 20 - MARGIN, MARGIN):
        with pytest.raises(InvalidIdentityToken):
            _find(store, token, key="nobody@example.com")
        pass_time(store, seconds)
    assert _find(store, other, key="nobody@example.com") is None


@pytest.mark.parametrize("first", [600, TOKEN_MAX_SECONDS])
def test_instances_whose_clocks_differ_count_the_uses_of_an_id_token_together(
    store: Store, first: float
) -> None:
    id_ = id_token().id
    others = (first, TOKEN_MAX_SECONDS, 5, 3600)
    for number in range(20):
        token = IdToken(id_, others[number % 4])
        assert _find(store, token, key="nobody@example.com") is None
    for seconds in others:
        with pytest.raises(InvalidIdentityToken):
            _find(store, IdToken(id_, seconds), key="nobody@example.com")


def test_an_id_token_used_too_often_takes_none_of_the_accounts_successes(store: Store) -> None:
    _link(store)
    token = id_token()
    for _ in range(2):
        for _ in range(10):
            assert _find(store, token) is not None
        pass_time(store, LOCKOUT)
    for _ in range(20):
        with pytest.raises(InvalidIdentityToken):
            _find(store, token)
    for _ in range(12):
        _log_in(store)


def test_sign_ups_of_a_network_have_a_number(store: Store) -> None:
    for _ in range(2):
        store.reserve_sign_up(HERE)
    for left in (LOCKOUT, MARGIN):
        with pytest.raises(TooManyAttempts) as raised:
            store.reserve_sign_up(HERE)
        assert left - MARGIN < raised.value.retry_after <= left
        pass_time(store, left - MARGIN)
    store.reserve_sign_up(THERE)
    pass_time(store, MARGIN)
    store.reserve_sign_up(HERE)


def test_the_addresses_of_one_ipv6_network_share_its_number(store: Store) -> None:
    for number in range(2):
        store.reserve_sign_up(Client(f"2001:db8::{number + 1}"))
    with pytest.raises(TooManyAttempts):
        store.reserve_sign_up(Client("2001:db8::ffff:0:0:3"))
    store.reserve_sign_up(Client("2001:db8:0:1::1"))


def test_an_address_that_is_nobodys_is_never_locked_whatever_shares_its_count(store: Store) -> None:
    for number in range(9):
        attempt = store.begin_login("nobody@example.com", Client(f"192.0.2.{number}"))
        assert (attempt.credentials, attempt.locked_for) == (None, None)
