"""Every statement may be sent again after its answer was lost, and is done once."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from shared.application import open_store
from shared.credentials.mail_tokens import MailToken
from shared.database.pool import Database
from shared.database.session import Row
from shared.database.statement import Statement, Value
from shared.model.clients import Client
from shared.model.mails import Kind, digest_of
from shared.model.users import ExternalIdentity, User
from shared.settings import Settings
from shared.store.contract import Store
from tests.support.emulator import SECRET
from tests.support.postgres import Server
from tests.support.relay import Relay
from tests.support.stores import CLIENT, id_token, session_of, stored
from tests.support.waiting import until

GOOGLE = ExternalIdentity("https://accounts.google.com", "1")


@pytest.fixture
def forgetful(postgres: Server, database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store whose every statement is sent twice, of which the second one's answer counts."""
    execute = Database.execute

    def twice(self: Database, statement: Statement, /, **parameters: Value) -> list[Row]:
        execute(self, statement, **parameters)
        return execute(self, statement, **parameters)

    monkeypatch.setattr(Database, "execute", twice)
    settings = {"SESSION_SECRET": SECRET, "DATABASE_URL": postgres.url(database)}
    store = open_store(Settings.from_env(settings))
    yield store
    store.close()


def test_what_was_done_at_the_first_time_is_the_answer_to_the_second(
    forgetful: Store, postgres: Server, database: str
) -> None:
    store = forgetful
    user = User(str(uuid.uuid4()), "ada@example.com", None, "local")
    before = session_of(user)
    assert store.create_user(user, "hash", client=CLIENT) == user
    attempt = store.begin_login(user.email, Client(CLIENT.address, before))
    store.end_login(attempt)
    store.revoke_session(session_of(user), CLIENT)
    changed = store.change_password(*stored(store, user), "new")
    assert changed is not None
    found = stored(store, changed)[1]
    linked = store.link(found, (GOOGLE,), provider="google", drops_password=False, client=CLIENT)
    assert linked is not None
    assert store.find_external((GOOGLE,), user.email, id_token(), CLIENT) is not None
    assert store.revoke_all_sessions(session_of(linked), CLIENT)
    last = store.user(user.id)
    assert last is not None
    assert last.epoch == 2
    assert store.delete_user(*stored(store, last))
    assert store.user(user.id) is None
    kinds = Counter(row[0] for row in postgres.run("SELECT kind FROM auth_events", database))
    assert {kind: count for kind, count in kinds.items() if not kind.endswith("_failed")} == {
        "signup": 1,
        "login": 2,
        "logout": 2,
        "password_changed": 1,
        "identity_linked": 1,
        "logout_everywhere": 1,
        "account_deleted": 1,
    }


def test_what_a_link_does_is_done_once(forgetful: Store, postgres: Server, database: str) -> None:
    mail = forgetful.mail
    user = User(str(uuid.uuid4()), "ada@example.com", None, "local")
    forgetful.create_user(user, "hash", client=CLIENT)

    def token(purpose: Kind, found: User | None, to: str = "") -> MailToken:
        assert found is not None
        email_digest, ends_at = digest_of(found.email), int(time.time()) + 600
        to = to or found.email
        return MailToken(
            str(uuid.uuid4()), purpose, found.id, found.epoch, email_digest, to, ends_at
        )

    proved = mail.verify_email(token("verification", user), sid="", client=CLIENT)
    change = token("email_change", proved, "new@example.com")
    changed = mail.change_email(change, sid="", client=CLIENT)
    assert changed is not None
    attempt, _ = stored(forgetful, changed)
    change = token("email_change", changed, user.email)
    again = mail.change_email(change, sid="", client=CLIENT, attempt=attempt)
    assert again == user._replace(email_verified=True, epoch=2)
    assert mail.log_in(token("login_link", again), CLIENT) == again
    assert mail.reset_password(token("password_reset", again), "new", CLIENT)
    kinds = Counter(row[0] for row in postgres.run("SELECT kind FROM auth_events", database))
    assert {kind: count for kind, count in kinds.items() if not kind.endswith("_failed")} == {
        "signup": 1,
        "email_verified": 1,
        "email_changed": 2,
        "login": 1,
        "password_reset": 1,
    }
    mails = postgres.run("SELECT kind, recipient FROM mail_outbox ORDER BY 1, 2", database)
    assert mails == [
        ["email_changed", "ada@example.com"],
        ["email_changed", "new@example.com"],
        ["password_changed", "ada@example.com"],
    ]


def _verify(store: Store, token: MailToken) -> User | None:
    return store.mail.verify_email(token, sid="", client=CLIENT)


def _change_email(store: Store, token: MailToken) -> User | None:
    return store.mail.change_email(token._replace(email="new@example.com"), sid="", client=CLIENT)


def _log_in(store: Store, token: MailToken) -> User | None:
    return store.mail.log_in(token, CLIENT)


def _reset(store: Store, token: MailToken) -> User | None:
    return store.mail.reset_password(token, "new", CLIENT)


@pytest.mark.tcp("the first run goes on alone where its connection was cut")
@pytest.mark.parametrize("use", [_verify, _change_email, _log_in, _reset])
def test_a_link_whose_first_run_has_not_committed_when_it_is_repeated_is_used_all_the_same(
    postgres: Server, database: str, relay: Relay, use: Callable[[Store, MailToken], User | None]
) -> None:
    url = postgres.url(database, port=relay.port)
    store = open_store(Settings.from_env({"SESSION_SECRET": SECRET, "DATABASE_URL": url}))
    user = User(str(uuid.uuid4()), "ada@example.com", None, "local")
    store.create_user(user, "hash", client=CLIENT)
    digest, ends_at = digest_of(user.email), int(time.time()) + 600
    token = MailToken(str(uuid.uuid4()), "verification", user.id, 0, digest, user.email, ends_at)

    def are_waiting(number: int) -> bool:
        query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        rows = postgres.run(f"{query} AND datname = '{database}'")
        return bool(rows == [[number]])

    with (
        closing(store),
        ThreadPoolExecutor(1) as thread,
        postgres.connect(database) as holder,
    ):
        holder.run("BEGIN; SELECT FROM users FOR UPDATE")
        used = thread.submit(use, store, token)
        until(lambda: are_waiting(1))
        relay.cut()
        until(lambda: are_waiting(2))
        holder.run("COMMIT")
        found = used.result()
    assert found is not None
    assert found.id == user.id


def test_a_success_gives_a_network_its_attempt_back_once(
    forgetful: Store, postgres: Server, database: str
) -> None:
    store = forgetful
    store.create_user(User(str(uuid.uuid4()), "ada@example.com", None, "local"), "hash")
    store.begin_login("nobody@example.com", CLIENT)
    store.end_login(store.begin_login("ada@example.com", CLIENT))
    rows = postgres.run("SELECT remaining FROM auth_attempts WHERE key LIKE 'client %'", database)
    # Counting twice is on the safe side: two attempts, each sent twice, and one given back.
    assert rows == [[100 - 4 + 1]]
