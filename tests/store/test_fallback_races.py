"""What happens in the middle of something else: a reconciliation, an outage, a broken file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from shared.credentials.id_tokens import Identity
from shared.credentials.passwords import PasswordHasher
from shared.database.faults import ConnectRetryable
from shared.errors import StoreUnreachable
from shared.rules import account_linking
from shared.store.fallback import FallbackStore
from shared.store.json_file.store import JsonFileStore
from shared.transfer.reconciling import quarantine_of, reconcile
from tests.support.outage import PASSWORD, Site, running_site, stale, token_of
from tests.support.postgres import Server
from tests.support.stores import CLIENT
from tests.support.transfers import Target, finish

ADA, BOB = "ada@example.com", "bob@example.com"
Start = Callable[..., Site]


@pytest.fixture
def start(postgres: Server, database: str, tmp_path: Path) -> Iterator[Start]:
    """Start instances on one users file, each with a line of its own to the one database."""
    with ExitStack() as stack:
        yield lambda mode, **settings: stack.enter_context(
            running_site(postgres, database, tmp_path, FALLBACK=mode, **settings)
        )


@pytest.fixture
def reconciled(postgres: Server, database: str) -> Callable[[Site], object]:
    """Reconcile a site's file, as another process would."""
    target = Target(postgres, database)

    def run(site: Site) -> object:
        users = JsonFileStore(site.app.settings.store, is_fallback=True)
        return finish(reconcile(target.database, users, quarantine_of(site.file)))

    return run


def _store(site: Site) -> FallbackStore:
    assert isinstance(site.app.store, FallbackStore)
    return site.app.store


def _pending(site: Site) -> str:
    """Let Ada sign up in an outage, and end it."""
    site.leave()
    token = token_of(site.sign_up(ADA))
    site.come_back()
    return token


@pytest.mark.parametrize("method", ["user", "begin_login"])
def test_who_is_brought_between_two_questions_is_known_all_the_time(
    start: Start,
    reconciled: Callable[[Site], object],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    site = start("full")
    token = _pending(site)
    postgres = _store(site)._postgres
    ask = getattr(postgres, method)

    def ask_and_reconcile(*arguments: object, **named: object) -> object:
        answer = ask(*arguments, **named)
        reconciled(site)
        return answer

    monkeypatch.setattr(postgres, method, ask_and_reconcile)
    if method == "user":
        assert site.call("GET", "/api/user", stale(token)).status_code == 200
    else:
        assert site.log_in(ADA).status_code == 200
    assert not site.pending()


def test_a_logout_whose_user_is_brought_meanwhile_is_kept_or_not_acknowledged(
    start: Start, reconciled: Callable[[Site], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = start("full")
    token = _pending(site)
    file = _store(site)._file
    revoke = file.revoke_session

    def reconcile_and_revoke(*arguments: object) -> None:
        reconciled(site)
        site.leave()
        revoke(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(file, "revoke_session", reconcile_and_revoke)
        assert site.call("POST", "/api/logout", token).status_code == 503
    site.come_back()
    assert site.call("POST", "/api/logout", token).status_code == 200
    assert site.call("GET", "/api/user", stale(token)).status_code == 401


def test_a_sign_up_with_google_is_never_taken_without_its_identity(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = start("full")
    store = _store(site)
    find = store._postgres.find_external

    def find_and_leave(*arguments: Any, **options: Any) -> object:
        found = find(*arguments, **options)
        site.leave()
        return found

    monkeypatch.setattr(store._postgres, "find_external", find_and_leave)
    google = Identity("https://accounts.google.com", "1", ADA, is_authoritative=True)
    with pytest.raises(StoreUnreachable):
        account_linking.sign_in(store, google, None, client=CLIENT)
    assert not site.pending()


def test_what_is_stored_about_a_pending_user_is_shown_as_long_as_the_session_lasts(
    start: Start, postgres: Server, database: str
) -> None:
    site, other = start("full"), start("off")
    token = _pending(site)
    assert site.call("GET", "/api/account", token).status_code == 200
    Target(postgres, database).apply(json.loads(site.file.read_text()))
    assert other.call("POST", "/api/logout", token, everywhere=True).status_code == 200
    assert site.call("GET", "/api/account", token).status_code == 401
    site.leave()
    assert site.call("GET", "/api/account", token).status_code == 503


def test_logins_of_who_is_pending_do_not_use_up_the_networks_attempts(
    start: Start, postgres: Server, database: str
) -> None:
    site = start("full", MAX_CLIENT_ATTEMPTS="3")
    _pending(site)
    assert [site.log_in(ADA).status_code for _ in range(6)] == [200] * 6
    kinds = postgres.run("SELECT DISTINCT kind FROM auth_events", database)
    assert kinds == [["login"]]


def test_a_record_without_an_address_is_nobody_elses(start: Start) -> None:
    site = start("full")
    token = _pending(site)
    records = json.loads(site.file.read_text())
    site.file.write_text(json.dumps([{"id": "x", "email": ""}, *records]))
    assert site.call("GET", "/api/user", stale(token)).status_code == 200


@pytest.mark.parametrize("kind", ["damaged", "link", "folder"])
def test_a_users_file_that_cannot_be_read_stops_nobody_whom_postgres_knows(
    start: Start, tmp_path: Path, kind: str
) -> None:
    site = start("full")
    token = token_of(site.sign_up(ADA))
    if kind == "damaged":
        site.file.write_text("[")
    elif kind == "folder":
        site.file.mkdir()
    else:
        (tmp_path / "elsewhere.json").write_text("[]")
        site.file.symlink_to(tmp_path / "elsewhere.json")
    assert site.call("GET", "/api/user", stale(token)).status_code == 200
    assert site.log_in(ADA).status_code == 200
    assert site.sign_up(BOB).status_code == 201
    assert site.call("GET", "/api/account", token).status_code == 200
    assert site.call("POST", "/api/logout", token).status_code == 200
    assert site.log_in("eve@example.com").status_code == 503, "who may be in the file has to wait"


def test_the_log_tells_that_there_is_no_snapshot_though_the_database_answers(
    start: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site = start("readonly")
    site.sign_up(ADA)

    @contextmanager
    def refuse(deadline: float) -> Iterator[None]:
        raise StoreUnreachable(cause="cannot connect: 53300 too many connections")
        yield

    monkeypatch.setattr(_store(site)._postgres.database, "direct_connection", refuse)
    monkeypatch.setattr(site.app.application.janitor, "_next", 0.0)
    capsys.readouterr()
    site.log_in(ADA)
    assert "no snapshot: cannot connect: 53300" in capsys.readouterr().out


def test_who_deleted_their_account_elsewhere_is_gone_though_the_file_has_them(
    start: Start, postgres: Server, database: str
) -> None:
    site, other = start("full"), start("off")
    token = _pending(site)
    Target(postgres, database).apply(json.loads(site.file.read_text()))
    assert other.call("DELETE", "/api/account", token, password=PASSWORD).status_code == 204
    assert site.log_in(ADA).status_code == 401
    assert site.call("GET", "/api/user", stale(token)).status_code == 401
    assert site.call("GET", "/api/account", token).status_code == 401
    assert site.sign_up(ADA).status_code == 201, "the address is free"


def test_an_address_stays_taken_in_an_outage_after_its_owner_changed_the_password(
    start: Start,
) -> None:
    site = start("full")
    token = token_of(site.sign_up(ADA))
    site.take_snapshot()
    change = {"currentPassword": PASSWORD, "newPassword": "another horse battery"}
    assert site.call("POST", "/api/password", token, **change).status_code == 200
    site.leave()
    assert site.sign_up(ADA).status_code == 409
    assert site.log_in(ADA).status_code == 503


def test_who_has_seen_a_snapshot_believes_no_older_file_once_it_is_gone(start: Start) -> None:
    site = start("full")
    user = {"id": "5a3c1f5e-8a7b-4f6e-9d2c-1b0a9f8e7d6c", "email": ADA}
    site.file.write_text(json.dumps([user | {"password": PasswordHasher(4).hash(PASSWORD)}]))
    site.leave()
    assert site.log_in(ADA).status_code == 200
    site.come_back()
    site.take_snapshot()
    site.app.settings.store.snapshot_file.unlink()
    site.leave()
    assert site.log_in(ADA).status_code == 503


def test_while_the_file_cannot_be_read_every_wrong_password_has_one_answer(start: Start) -> None:
    site = start("full")
    site.sign_up(ADA)
    site.file.write_text("[")
    answers = [site.log_in(ADA, "a wrong password"), site.log_in("nobody@example.com")]
    first, second = ((answer.json or {}) | {"request_id": ""} for answer in answers)
    assert first == second
    assert first["status"] == 503


@pytest.mark.tcp("the start is told at a login")
def test_a_health_check_beside_a_server_that_starts_does_not_make_it_away(start: Start) -> None:
    site = start("full")
    site.sign_up(ADA)
    database = _store(site)._postgres.database

    def start_slowly(*_: object) -> None:
        raise ConnectRetryable("57P03 the database system is starting up", starting=True)

    database.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shared.database.pool.connect", start_slowly)
        with pytest.raises(StoreUnreachable):
            database.execute_within(1, "SELECT 1")
    assert not database.breaker.is_open
    assert site.log_in(ADA).status_code == 200
