"""Which event ends which link: the table of docs/SECURITY.md, a case a cell, on every store."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable
from contextlib import closing
from typing import Any, cast

import pytest

from shared.credentials.mail_tokens import MailToken
from shared.errors import InvalidMailToken
from shared.model.mails import LIFETIMES, AskedKind, Kind, Mail
from shared.model.users import ExternalIdentity, User, Verification
from shared.store.contract import Credentials, Store
from shared.transfer import rollback
from tests.support.emulator import ROOT
from tests.support.mails import TOKENS, taken, token_of
from tests.support.postgres import Server
from tests.support.stores import CLIENT, credentials, disable, opened_store, session_of
from tests.support.transfers import HASH, Target, finish
from tests.support.transfers import user as imported

ADA = "ada@example.com"
OTHER_HASH = f"{HASH[:-1]}a"
_numbers = itertools.count(1)
PURPOSES: tuple[Kind, ...] = ("verification", "password_reset", "login_link", "email_change")


@pytest.fixture(scope="module")
def store(shared_store: Store) -> Store:
    """One for all tests, whose users have addresses of their own."""
    return shared_store


def _attempt(store: Store, user: User) -> Any:
    attempt = store.begin_reauthentication(session_of(user), CLIENT)
    assert attempt.credentials
    return attempt


def _token(store: Store, purpose: Kind, user: User) -> MailToken:
    """Have a mail sent as a user does, and give what its link says."""
    if purpose == "email_change":
        attempt = _attempt(store, user)
        assert store.mail.request_email_change(attempt, attempt.credentials, f"new.{user.email}")
    else:
        kind = cast("AskedKind", purpose)
        store.mail.ask_for_mail(kind, user.email, locale=None, client=CLIENT)
    (mail,) = taken(store)
    assert mail.kind == purpose
    return token_of(mail)


def _use(store: Store, token: MailToken) -> User | None:
    mail = store.mail
    if token.purpose == "verification":
        return mail.verify_email(token, sid="", client=CLIENT)
    if token.purpose == "email_change":
        return mail.change_email(token, sid="", client=CLIENT)
    if token.purpose == "password_reset":
        return mail.reset_password(token, f"hash {uuid.uuid4()}", CLIENT)
    return mail.log_in(token, CLIENT)


def _account(store: Store, user: User) -> Credentials | None:
    found = store.user(user.id)
    return found and credentials(store, found.email)


def _change_password(store: Store, user: User) -> None:
    attempt = _attempt(store, user)
    assert store.change_password(attempt, attempt.credentials, "another hash")


def _reset_password(store: Store, user: User) -> None:
    assert _use(store, _token(store, "password_reset", user))


def _log_out_everywhere(store: Store, user: User) -> None:
    assert store.revoke_all_sessions(session_of(user), CLIENT)


def _change_address(store: Store, user: User, to: str = "") -> User:
    to = to or f"third.{user.email}"
    attempt = _attempt(store, user)
    assert store.mail.request_email_change(attempt, attempt.credentials, to)
    (mail,) = taken(store)
    changed = _use(store, token_of(mail))
    assert changed is not None
    assert changed.email == to
    return changed


def _change_address_and_back(store: Store, user: User) -> None:
    changed = _change_address(store, user)
    taken(store)
    _change_address(store, changed, user.email)


def _prove_address(store: Store, user: User) -> None:
    assert _use(store, _token(store, "verification", user))


def _log_in_by_link(store: Store, user: User) -> None:
    assert _use(store, _token(store, "login_link", user))


def _join(store: Store, user: User) -> None:
    found = _attempt(store, user).credentials
    google = [ExternalIdentity("https://accounts.google.com", user.id)]
    assert store.link(
        found, google, provider="google", drops_password=True, client=CLIENT, proves_address=True
    )


def _delete(store: Store, user: User) -> None:
    attempt = _attempt(store, user)
    assert store.delete_user(attempt, attempt.credentials)


def _disable(store: Store, user: User) -> None:
    disable(store, user.id)


EVENTS: dict[str, Callable[[Store, User], object]] = {
    "the password is changed": _change_password,
    "the password is reset": _reset_password,
    "log out everywhere": _log_out_everywhere,
    "the address is changed": _change_address,
    "the address is changed, and changed back": _change_address_and_back,
    "the address is proved": _prove_address,
    "signed in by a link, on an unproved address": _log_in_by_link,
    "a sign-in with Google joined or adopted the account": _join,
    "the account is deleted": _delete,
    "the account is disabled³": _disable,
}
OF_IMPORTS = "an import or a rollback changed or removed the password, or removed an identity"
OF_THE_TOKEN = ("the link is used", "its time is over")
ENDS, STAYS, UNLESS_UNPROVED = "ends", "stays", "ends¹"


def _table() -> dict[str, dict[str, str]]:
    """Read the table of the document."""
    text = (ROOT / "docs" / "SECURITY.md").read_text()
    section = text.split("## Links in mails\n")[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("| ")
    ]
    head = next(row for row in rows if row[0] == "after")
    columns = [cell.strip("`") for cell in head[1:]]
    names = (*EVENTS, OF_IMPORTS, *OF_THE_TOKEN)
    return {row[0]: dict(zip(columns, row[1:], strict=True)) for row in rows if row[0] in names}


TABLE = _table()


def test_the_table_has_a_cell_for_each_event_and_purpose() -> None:
    assert set(TABLE) == {*EVENTS, OF_IMPORTS, *OF_THE_TOKEN}
    for cells in TABLE.values():
        assert set(cells) == set(PURPOSES)
        assert set(cells.values()) <= {ENDS, STAYS, UNLESS_UNPROVED}


def _created(store: Store, verification: Verification) -> User:
    number = next(_numbers)
    created = store.create_user(
        User(id=str(uuid.uuid4()), email=f"user{number}@example.com", name=None, provider="local"),
        "hash",
        client=CLIENT,
        verification=verification,
    )
    taken(store)
    return created


@pytest.fixture
def user(store: Store) -> User:
    """Who has signed up and not proved the address."""
    return _created(store, "asked")


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("event", EVENTS)
def test_an_event_ends_a_link_or_not(store: Store, user: User, event: str, purpose: Kind) -> None:
    token, cell = _token(store, purpose, user), TABLE[event][purpose]
    EVENTS[event](store, user)
    taken(store)
    before = _account(store, user)
    used = _use(store, token)
    assert (ENDS if used is None else STAYS) == {UNLESS_UNPROVED: STAYS}.get(cell, cell)
    if used is None:
        assert _account(store, user) == before
        assert taken(store) == []  # Nothing was told that did not happen.


@pytest.mark.parametrize("verification", ["proved", "from_before"])
@pytest.mark.parametrize(
    ("event", "purpose"),
    [
        (event, purpose)
        for event, cells in TABLE.items()
        for purpose, cell in cells.items()
        if cell == UNLESS_UNPROVED
    ],
)
def test_only_a_stranger_could_end_the_links_of_an_address_that_is_not_proved(
    store: Store, event: str, purpose: Kind, verification: Verification
) -> None:
    user = _created(store, verification)
    token = _token(store, purpose, user)
    EVENTS[event](store, user)
    taken(store)
    assert _use(store, token) is None


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("takes_back", [False, True])
def test_an_import_or_a_rollback_that_changes_the_password_ends_a_link(
    postgres: Server, target: Target, takes_back: bool, purpose: Kind
) -> None:
    url = postgres.url(target.name)
    with closing(opened_store(ENVIRONMENT="development", DATABASE_URL=url)) as store:
        row = imported(1, email=ADA)
        target.apply([row])
        change = target.apply([row | {"password": OTHER_HASH}])[0] if takes_back else None
        found = store.user(row["id"])
        assert found
        token = _token(store, purpose, found)
        if change:
            finish(rollback.roll_back(target.database, str(change.batch), run_by="test"))
        else:
            target.apply([row | {"password": OTHER_HASH}])
        assert _use(store, token) is None
    assert TABLE[OF_IMPORTS][purpose] == ENDS


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_link_that_was_used_has_ended(store: Store, user: User, purpose: Kind) -> None:
    token = _token(store, purpose, user)
    assert _use(store, token)
    before = _account(store, user)
    assert _use(store, token) is None
    assert _account(store, user) == before
    assert TABLE["the link is used"][purpose] == ENDS


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_link_ends_with_its_time_which_begins_when_it_is_sent(purpose: Kind) -> None:
    sent = 1_800_000_000.5
    mail = Mail(
        str(uuid.uuid4()), purpose, ADA, str(uuid.uuid4()), 0, "0" * 32, None, None, sent - 60, 0
    )
    text, seconds = TOKENS.issue(mail, sent), LIFETIMES[purpose]
    assert TOKENS.read(text, purpose, now=sent + seconds - 1)
    with pytest.raises(InvalidMailToken):
        TOKENS.read(text, purpose, now=sent + seconds)
    assert TABLE["its time is over"][purpose] == ENDS
