"""What every store promises of mails: asked for, delivered, and what their tokens do."""

from __future__ import annotations

import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from types import FrameType

import pytest

from shared.credentials.mail_tokens import MailToken
from shared.errors import EmailTaken, TooManyAttempts
from shared.model.clients import Client
from shared.model.mails import MAX_AGE, NOTICE_SECONDS, PER_DAY, PER_HOUR, AskedKind
from shared.model.users import ExternalIdentity, User, Verification
from shared.store.contract import Credentials, Store
from tests.support.mails import taken, token_of
from tests.support.stores import (
    CLIENT,
    credentials,
    disable,
    id_token,
    mails_written,
    pass_time,
    session_of,
)

ADA = "ada@example.com"
GOOGLE, OTHER = (ExternalIdentity("https://accounts.google.com", name) for name in "12")


def _create(store: Store, email: str = ADA, password: str | None = "hash") -> User:
    user = User(id=str(uuid.uuid4()), email=email, name=None, provider="local")
    return store.create_user(user, password)


def _ask(store: Store, kind: AskedKind = "password_reset", key: str = ADA) -> None:
    store.mail.ask_for_mail(kind, key, locale="de", client=CLIENT)


def _found(store: Store, key: str = ADA) -> Credentials:
    found = credentials(store, key)
    assert found is not None
    return found


def _asked(store: Store, kind: AskedKind = "password_reset", key: str = ADA) -> MailToken:
    _ask(store, kind, key)
    (mail,) = taken(store)
    return token_of(mail)


def test_a_mail_is_for_the_user_as_the_request_saw_them(store: Store) -> None:
    user = _create(store)
    before = time.time()
    _ask(store)
    (mail,) = taken(store)
    assert (mail.kind, mail.recipient, mail.user_id) == ("password_reset", ADA, user.id)
    assert (mail.epoch, mail.locale, mail.tries) == (0, "de", 0)
    assert mail.asked_from == CLIENT.coarse
    assert abs(mail.created_at - before) < 10
    token = token_of(mail)
    assert (token.user_id, token.epoch, token.email) == (user.id, 0, ADA)


def test_who_asks_for_an_address_that_nobody_has_is_answered_alike(store: Store) -> None:
    _ask(store, key="nobody@example.com")
    assert mails_written(store) == 1
    assert store.mail.status().waiting == 0
    assert store.mail.lease(10) == []
    assert mails_written(store) == 0


def test_whoever_is_asked_for_the_same_is_done(store: Store) -> None:
    """Told by the calls of our functions, which no other work on the machine makes more or less."""
    for email in (ADA, "throttled@example.com", "disabled@example.com"):
        _create(store, email)
    disable(store, _found(store, "disabled@example.com").user.id)
    for _ in range(PER_HOUR):
        _ask(store, key="throttled@example.com")
    called: dict[str, Counter[str]] = {}
    for key in (ADA, "throttled@example.com", "disabled@example.com", "nobody@example.com"):
        _ask(store, key=key)  # The first time its counts are made, and a statement is prepared.
        counts = called[key] = Counter()

        def count(frame: FrameType, event: str, _: object, counts: Counter[str] = counts) -> None:
            if event == "call" and "/shared/" in frame.f_code.co_filename:
                counts[frame.f_code.co_qualname] += 1

        sys.setprofile(count)
        try:
            _ask(store, key=key)
        finally:
            sys.setprofile(None)
    assert called[ADA].total() > 10
    more = {key: (counts - called[ADA], called[ADA] - counts) for key, counts in called.items()}
    assert more == dict.fromkeys(called, (Counter(), Counter()))
    assert [mail.recipient for mail in taken(store)] == ["throttled@example.com"] * 3 + [ADA] * 2


def test_of_a_kind_an_address_gets_so_many_mails_an_hour_and_nobody_is_told(store: Store) -> None:
    _create(store)
    for _ in range(PER_HOUR + 2):
        _ask(store)
    assert len(taken(store)) == PER_HOUR
    _ask(store, "login_link")
    assert [mail.kind for mail in taken(store)] == ["login_link"]
    assert PER_HOUR < PER_DAY


def test_a_stranger_does_not_use_up_the_mails_of_the_owner_at_home(store: Store) -> None:
    _create(store)
    home = Client("198.51.100.77")
    attempt = store.begin_login(ADA, home)
    assert attempt.credentials
    store.end_login(attempt)
    for _ in range(PER_HOUR + 1):
        _ask(store)
    assert len(taken(store)) == PER_HOUR
    for _ in range(PER_HOUR + 1):
        store.mail.ask_for_mail("password_reset", ADA, locale=None, client=home)
    assert len(taken(store)) == PER_HOUR


def test_a_reset_changes_the_password_ends_all_sessions_and_tells_the_user(store: Store) -> None:
    user = _create(store)
    changed = store.mail.reset_password(_asked(store), "new", CLIENT)
    assert changed is not None
    assert (changed.id, changed.epoch) == (user.id, user.epoch + 1)
    assert credentials(store, ADA) == Credentials(changed, "new")
    assert store.begin_reauthentication(session_of(user), CLIENT).credentials is None
    (mail,) = taken(store)
    assert (mail.kind, mail.recipient) == ("password_changed", ADA)


def test_a_user_without_a_password_gets_one_by_a_reset(store: Store) -> None:
    _create(store, password=None)
    assert store.mail.reset_password(_asked(store), "new", CLIENT)
    assert _found(store).password_hash == "new"


def test_a_token_is_good_for_nobody_else(store: Store) -> None:
    _create(store)
    other = _create(store, "other@example.com")
    token = _asked(store)
    for changed in (
        token._replace(user_id=other.id),
        token._replace(user_id=str(uuid.uuid4())),
        token._replace(epoch=1),
        token._replace(email_digest="0" * 32),
    ):
        assert store.mail.reset_password(changed, "stolen", CLIENT) is None
    assert [_found(store, key).password_hash for key in (ADA, other.email)] == ["hash", "hash"]


def test_a_mail_is_one_deliverers_and_comes_back_after_its_lease(store: Store) -> None:
    _create(store)
    _ask(store)
    (mail,) = store.mail.lease(10)
    assert store.mail.lease(10) == []
    store.mail.postpone(mail.id, 0)
    (again,) = store.mail.lease(10)
    assert again == mail._replace(tries=1)
    store.mail.postpone(mail.id, 1000)
    assert store.mail.lease(10) == []
    assert store.mail.status().waiting == 1
    store.mail.delivered(mail.id)
    assert store.mail.status() == (0, 0)


def test_a_network_that_asks_too_often_is_told_so(store_settings: dict[str, str]) -> None:
    from shared.application import open_store
    from shared.settings import Settings

    store = open_store(
        Settings.from_env({"SESSION_SECRET": "x" * 32, "MAX_CLIENT_ATTEMPTS": "2"} | store_settings)
    )
    for number in range(2):
        _ask(store, key=f"nobody{number}@example.com")
    with pytest.raises(TooManyAttempts):
        _ask(store)
    store.mail.ask_for_mail("login_link", ADA, locale=None, client=Client("198.51.100.7"))
    store.close()


def _sign_up(store: Store, verification: Verification = "asked", email: str = ADA) -> User:
    user = User(id=str(uuid.uuid4()), email=email, name=None, provider="local")
    return store.create_user(user, "hash", client=CLIENT, verification=verification, locale="de")


def test_who_signs_up_is_asked_to_prove_the_address_where_that_is_asked(store: Store) -> None:
    assert _create(store).email_verified is None
    assert taken(store) == []
    assert _sign_up(store, "proved", "bob@example.com").email_verified is True
    assert taken(store) == []
    user = _sign_up(store, "asked", "eve@example.com")
    assert user.email_verified is False
    (mail,) = taken(store)
    assert (mail.kind, mail.recipient, mail.locale) == ("verification", "eve@example.com", "de")


def test_the_owner_of_a_taken_address_is_told_only_where_the_proof_is_required(
    store: Store,
) -> None:
    _create(store)
    cases: list[tuple[Verification, list[str]]] = [("asked", []), ("required", ["address_taken"])]
    for verification, kinds in cases:
        with pytest.raises(EmailTaken):
            _sign_up(store, verification)
        assert [mail.kind for mail in taken(store)] == kinds


def test_an_address_is_proved_once_and_not_by_a_session_that_has_ended(store: Store) -> None:
    user = _sign_up(store)
    token = token_of(taken(store)[0])
    ended = session_of(user)
    store.revoke_session(ended, CLIENT)
    assert store.mail.verify_email(token, sid=ended.sid, client=CLIENT) is None
    proved = store.mail.verify_email(token, sid="", client=CLIENT)
    assert proved == user._replace(email_verified=True)
    assert store.mail.verify_email(token, sid="", client=CLIENT) is None
    assert store.user(user.id) == proved
    _ask(store, "verification")
    assert taken(store) == []


def _request_change(store: Store, user: User, email: str) -> bool:
    attempt = store.begin_reauthentication(session_of(user), CLIENT)
    assert attempt.credentials
    return store.mail.request_email_change(attempt, attempt.credentials, email)


def test_a_new_address_counts_from_its_proof_on_and_the_old_one_is_told(store: Store) -> None:
    user = _create(store)
    assert _request_change(store, user, "new@example.com")
    assert store.user(user.id) == user
    (mail,) = taken(store)
    assert (mail.kind, mail.recipient) == ("email_change", "new@example.com")
    token = token_of(mail)
    changed = store.mail.change_email(token, sid="", client=CLIENT)
    assert changed == user._replace(
        email="new@example.com", email_verified=True, epoch=user.epoch + 1
    )
    assert credentials(store, ADA) is None
    assert _found(store, "new@example.com").user == changed
    (notice,) = taken(store)
    assert (notice.kind, notice.recipient) == ("email_changed", ADA)
    assert store.mail.change_email(token, sid="", client=CLIENT) is None


@pytest.mark.parametrize("kind", ["password_reset", "login_link"])
def test_a_stranger_cannot_end_the_links_of_who_has_the_mailbox(
    store: Store, kind: AskedKind
) -> None:
    strangers = _sign_up(store)
    taken(store)
    token = _asked(store, kind)
    assert store.revoke_all_sessions(session_of(strangers), CLIENT)
    strangers = strangers._replace(epoch=strangers.epoch + 1)
    if kind == "password_reset":
        owner = store.mail.reset_password(token, "new", CLIENT)
    else:
        owner = store.mail.log_in(token, CLIENT)
    assert owner
    assert (owner.email_verified, owner.epoch) == (True, strangers.epoch + 1)
    assert store.begin_reauthentication(session_of(strangers), CLIENT).credentials is None


def test_who_has_not_proved_an_address_has_nothing_told_to_it(store: Store) -> None:
    """Or whoever signs up with it, and goes on to another one, could repeat that without end."""
    user = _sign_up(store)
    taken(store)
    assert _request_change(store, user, "new@example.com")
    (mail,) = taken(store)
    assert store.mail.change_email(token_of(mail), sid="", client=CLIENT)
    assert taken(store) == []


def test_a_changed_password_is_told_some_times_an_hour(store: Store) -> None:
    user = _create(store)
    for number in range(PER_HOUR + 1):
        attempt = store.begin_reauthentication(session_of(user), CLIENT)
        assert attempt.credentials
        changed = store.change_password(attempt, attempt.credentials, f"hash {number}")
        assert changed
        user = changed
    assert [mail.kind for mail in taken(store)] == PER_HOUR * ["password_changed"]


def test_the_owner_of_an_address_is_told_that_somebody_wants_it(store: Store) -> None:
    user, owner = _create(store), _create(store, "owner@example.com")
    assert _request_change(store, user, owner.email)
    (mail,) = taken(store)
    assert (mail.kind, mail.recipient, mail.user_id) == ("address_taken", owner.email, owner.id)


def test_an_address_that_was_taken_meanwhile_is_refused(store: Store) -> None:
    user = _create(store)
    assert _request_change(store, user, "new@example.com")
    token = token_of(taken(store)[0])
    _create(store, "new@example.com")
    with pytest.raises(EmailTaken):
        store.mail.change_email(token, sid="", client=CLIENT)
    assert store.user(user.id) == user


def test_a_link_leaves_the_password_of_an_account_of_which_nothing_is_known(store: Store) -> None:
    user = _create(store)
    token = _asked(store, "login_link")
    assert store.mail.log_in(token, CLIENT) == user._replace(email_verified=True)
    assert _found(store).password_hash == "hash"


def test_a_link_takes_from_an_unproved_account_what_a_stranger_may_have_set(store: Store) -> None:
    user = _sign_up(store)
    taken(store)
    strangers = session_of(user)
    owner = store.mail.log_in(_asked(store, "login_link"), CLIENT)
    assert owner == user._replace(name=None, email_verified=True, epoch=user.epoch + 1)
    assert _found(store).password_hash is None
    assert store.begin_reauthentication(strangers, CLIENT).credentials is None


def test_a_login_by_link_ends_the_browsers_previous_session(store: Store) -> None:
    other = _create(store, "other@example.com")
    _create(store)
    session = session_of(other)
    token = _asked(store, "login_link")
    assert store.mail.log_in(token, Client(CLIENT.address, session))
    assert store.user(other.id, sid=session.sid) is None


def test_the_owner_is_told_of_what_changes_an_account(store: Store) -> None:
    user = _create(store)
    attempt = store.begin_reauthentication(session_of(user), CLIENT)
    assert attempt.credentials
    changed = store.change_password(attempt, attempt.credentials, "new")
    assert changed
    assert [mail.kind for mail in taken(store)] == ["password_changed"]
    _ask(store)
    attempt = store.begin_reauthentication(session_of(changed), CLIENT)
    assert attempt.credentials
    assert store.delete_user(attempt, attempt.credentials)
    (mail,) = taken(store)  # And no link, which would be of no use.
    assert (mail.kind, mail.recipient) == ("account_deleted", ADA)


def _by_password(store: Store, client: Client) -> bool:
    attempt = store.begin_login(ADA, client)
    assert attempt.credentials
    return store.end_login(attempt)


def _by_link(store: Store, client: Client) -> bool:
    assert store.mail.log_in(_asked(store, "login_link"), client)
    return True


def _by_identity(store: Store, client: Client) -> bool:
    match = store.find_external((GOOGLE,), ADA, id_token(), client)
    assert match is not None
    return match.is_told


def _by_linking(store: Store, client: Client) -> bool:
    match = store.find_external((OTHER,), ADA, id_token(), client)
    assert match is not None
    found = match.credentials
    assert store.link(found, (OTHER,), provider="local", drops_password=False, client=client)
    return True


WAYS_IN = (_by_password, _by_link, _by_identity, _by_linking)


@pytest.mark.parametrize("sign_in", WAYS_IN)
def test_a_sign_in_from_a_new_network_is_told_to_who_has_known_ones(
    store: Store, sign_in: Callable[[Store, Client], bool]
) -> None:
    user = User(id=str(uuid.uuid4()), email=ADA, name=None, provider="local")
    store.create_user(user, "hash", (GOOGLE,), client=CLIENT)
    elsewhere = Client("192.0.2.1")
    assert sign_in(store, elsewhere)  # Or nothing would have the mail delivered.
    (mail,) = taken(store)
    assert (mail.kind, mail.recipient) == ("new_sign_in", ADA)
    assert mail.asked_from == elsewhere.coarse
    for way in WAYS_IN[:-1]:
        for known in (CLIENT, elsewhere):
            assert way(store, known) == (way is _by_link)
            assert taken(store) == []


@pytest.mark.parametrize("sign_in", WAYS_IN)
def test_the_first_network_is_no_news_and_an_unproved_address_is_not_told(
    store: Store, sign_in: Callable[[Store, Client], bool]
) -> None:
    user = User(id=str(uuid.uuid4()), email=ADA, name=None, provider="local")
    store.create_user(user, "hash", (GOOGLE,))
    sign_in(store, CLIENT)
    assert taken(store) == []
    attempt = store.begin_reauthentication(session_of(user), CLIENT)
    assert attempt.credentials
    assert store.delete_user(attempt, attempt.credentials)
    taken(store)
    strangers = User(id=str(uuid.uuid4()), email=ADA, name=None, provider="local")
    store.create_user(strangers, "hash", (GOOGLE,), client=CLIENT, verification="unproved")
    sign_in(store, Client("192.0.2.1"))
    assert taken(store) == []


def test_new_networks_are_told_of_once_a_week(store: Store) -> None:
    _create(store)
    for address, kinds in (
        ("198.51.100.1", []),  # The first is not compared with anything.
        ("198.51.100.1", []),
        ("192.0.2.1", ["new_sign_in"]),
        ("192.0.2.1", []),
        ("203.0.113.99", []),  # The week is not over.
    ):
        assert _by_password(store, Client(address)) == bool(kinds)
        assert [mail.kind for mail in taken(store)] == kinds, address
    pass_time(store, NOTICE_SECONDS)
    assert _by_password(store, Client("203.0.114.99"))
    assert [mail.kind for mail in taken(store)] == ["new_sign_in"]


def test_a_sign_in_is_told_where_the_password_was_given_before_by_a_session(store: Store) -> None:
    user, elsewhere = _create(store), Client("192.0.2.1")
    _by_password(store, CLIENT)
    attempt = store.begin_reauthentication(session_of(user), elsewhere)
    assert attempt.credentials
    assert store.change_password(attempt, attempt.credentials, "new")
    assert [mail.kind for mail in taken(store)] == ["password_changed"]
    assert _by_password(store, elsewhere)
    assert [mail.kind for mail in taken(store)] == ["new_sign_in"]


def test_what_nobody_delivers_any_more_is_forgotten(store: Store) -> None:
    _create(store)
    _ask(store)
    pass_time(store, 2 * MAX_AGE - 60)
    store.clean_up()
    assert mails_written(store) == 1
    pass_time(store, 120)
    store.clean_up()
    assert mails_written(store) == 0
