"""What serves while Postgres is away, by `FALLBACK`, and that it opens nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from werkzeug.test import TestResponse

from shared.application import open_store
from shared.errors import StoreFault, StoreRefused, StoreUnreachable
from shared.model.sessions import FRESH_SECONDS
from shared.settings import Settings
from tests.support.certificates import Authority
from tests.support.emulator import environment
from tests.support.outage import PASSWORD, Site, new_user, running_site, stale, token_of
from tests.support.postgres import Server
from tests.support.stores import CLIENT, TOKENS, disable

ADA, BOB, EVE = "ada@example.com", "bob@example.com", "eve@example.com"
MODES = ("full", "readonly", "off")


@pytest.fixture
def start(postgres: Server, database: str, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Starts instances on one database, with one users file, at most one at a time in use."""
    with ExitStack() as stack:

        def run(mode: str, **settings: str) -> Site:
            site = running_site(postgres, database, tmp_path, FALLBACK=mode, **settings)
            return stack.enter_context(site)

        yield run


# Every policy


@pytest.mark.parametrize("mode", MODES)
def test_a_fresh_session_goes_on_and_a_stale_one_waits(
    start: Callable[..., Site], mode: str
) -> None:
    site = start(mode)
    token = token_of(site.sign_up(ADA))
    site.leave()
    assert site.call("GET", "/api/user", token).status_code == 200
    answer = site.call("GET", "/api/user", stale(token))
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "Set-Cookie" not in answer.headers, "an outage is no logout"
    site.come_back()
    assert site.call("GET", "/api/user", stale(token)).status_code == 200


@pytest.mark.parametrize("mode", MODES)
def test_what_changes_an_account_waits_for_postgres(start: Callable[..., Site], mode: str) -> None:
    site = start(mode)
    token = token_of(site.sign_up(ADA))
    site.take_snapshot() if mode != "off" else None
    site.leave()
    change = {"currentPassword": PASSWORD, "newPassword": "another horse battery"}
    for answer in (
        site.call("POST", "/api/password", token, **change),
        site.call("DELETE", "/api/account", token, password=PASSWORD),
        site.call("GET", "/api/account", token),
        site.call("POST", "/api/logout", token, everywhere=True),
    ):
        assert answer.status_code == 503
        assert "Set-Cookie" not in answer.headers
    site.come_back()
    assert site.log_in(ADA).status_code == 200


@pytest.mark.parametrize("mode", MODES)
def test_a_logout_that_cannot_be_kept_is_not_acknowledged_and_can_be_tried_again(
    start: Callable[..., Site], mode: str
) -> None:
    site = start(mode)
    token = token_of(site.sign_up(ADA))
    site.leave()
    answer = site.call("POST", "/api/logout", token)
    assert answer.status_code == 503
    assert "Set-Cookie" not in answer.headers
    site.come_back()
    assert site.call("POST", "/api/logout", token).status_code == 200
    assert site.call("GET", "/api/user", stale(token)).status_code == 401


@pytest.mark.parametrize("mode", MODES)
def test_health_tells_the_policy_the_outage_and_what_waits(
    start: Callable[..., Site], mode: str
) -> None:
    site = start(mode)
    before = time.time() - 1
    assert site.health()["fallback"] == {
        "mode": mode,
        "since": None,
        "pending": 0,
        "snapshot": None,
    }
    site.leave()
    site.sign_up(ADA)
    health = site.health()
    assert health["database"] == {"status": "disconnected", "message": "Database not connected"}
    assert health["fallback"]["pending"] == (1 if mode == "full" else 0)
    since = time.strptime(health["fallback"]["since"], "%Y-%m-%dT%H:%M:%S.%fZ")
    assert time.mktime(since) - time.timezone >= before - 1
    site.come_back()
    assert site.health()["database"]["status"] == "connected"


@pytest.mark.parametrize("mode", ["full", "readonly"])
@pytest.mark.parametrize("fault", ["password", "database", "certificate", "schema"])
def test_a_database_that_answers_is_not_away_whatever_it_says(
    postgres: Server, database: str, tmp_path: Path, mode: str, fault: str
) -> None:
    stranger = str(Authority(tmp_path).certificate)
    url = {
        "password": postgres.url(database, password="wrong"),
        "database": postgres.url("nowhere"),
        "certificate": postgres.url(database, sslrootcert=stranger),
        "schema": postgres.url(database),
    }[fault]
    file = tmp_path / "users.json"
    file.write_text("[]")
    if fault == "schema":
        postgres.run("ALTER TABLE auth_attempts RENAME COLUMN remaining TO left_over", database)
    variables = environment(DATABASE_URL=url, USERS_FILE=str(file), FALLBACK=mode)
    with closing(open_store(Settings.from_env(variables))) as store:
        with pytest.raises(StoreRefused):
            store.reserve_sign_up(CLIENT)
        with pytest.raises(StoreRefused):
            store.begin_login(ADA, CLIENT)
        assert store.database_status is not None
        fallback = store.database_status.fallback()
    assert (fallback.since, fallback.pending) == (None, 0)
    assert file.read_text() == "[]"


def test_the_log_tells_of_each_request_whether_the_fallback_served_it(
    start: Callable[..., Site], capsys: pytest.CaptureFixture[str]
) -> None:
    site = start("full", MAX_CLIENT_ATTEMPTS="4")

    def logged(answer: TestResponse) -> tuple[int, object]:
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        (line,) = [line for line in lines if line["message"].startswith(("login ", "signup "))]
        return answer.status_code, line.get("offline")

    capsys.readouterr()
    assert logged(site.sign_up(ADA)) == (201, None)
    assert logged(site.log_in(ADA)) == (200, None)
    assert logged(site.log_in(ADA, "a wrong password")) == (401, None)
    site.take_snapshot()
    site.leave()
    capsys.readouterr()
    assert logged(site.sign_up(BOB)) == (201, True)
    assert logged(site.sign_up(BOB)) == (409, True), "the file has it"
    assert logged(site.sign_up(ADA)) == (409, True), "the snapshot has it"
    assert logged(site.log_in(ADA)) == (200, True)
    site.come_back()
    capsys.readouterr()
    assert logged(site.log_in(BOB)) == (200, None), "Postgres has counted it"
    site.leave()
    for _ in range(4):
        assert logged(site.log_in(EVE)) == (503, True)
    assert logged(site.log_in(EVE)) == (429, True), "memory has counted it"


# Without a fallback


def test_off_answers_503_with_a_time_to_come_back_at_once(start: Callable[..., Site]) -> None:
    site = start("off")
    site.leave()
    site.log_in(ADA)
    for answer in (site.sign_up(ADA), site.log_in(ADA)):
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
    assert not site.file.exists()


# full


def test_a_sign_up_in_an_outage_is_pending_and_signed_in(start: Callable[..., Site]) -> None:
    site = start("full")
    site.leave()
    answer = site.sign_up("Ada@Example.com")
    assert answer.status_code == 201
    (record,) = site.pending()
    assert record["email"] == ADA
    assert record["id"] == (answer.json or {})["id"]
    assert site.call("GET", "/api/user", token_of(answer)).status_code == 200
    assert site.sign_up(ADA).status_code == 409
    assert site.log_in(ADA).status_code == 200


def test_who_is_pending_is_served_when_postgres_is_back_and_lacks_them_still(
    start: Callable[..., Site],
) -> None:
    site = start("full")
    site.leave()
    token = token_of(site.sign_up(ADA))
    site.come_back()
    assert site.log_in(ADA).status_code == 200
    assert site.log_in(ADA, "a wrong password").status_code == 401
    assert site.call("GET", "/api/user", stale(token)).status_code == 200
    assert site.call("GET", "/api/account", token).status_code == 200
    assert site.sign_up(ADA).status_code == 409, "the address is taken"
    change = {"currentPassword": PASSWORD, "newPassword": "another horse battery"}
    assert site.call("POST", "/api/password", token, **change).status_code == 503
    assert site.call("DELETE", "/api/account", token, password=PASSWORD).status_code == 503
    assert len(site.pending()) == 1


def test_a_logout_of_who_is_pending_is_kept_with_them(start: Callable[..., Site]) -> None:
    site = start("full")
    site.leave()
    token = token_of(site.sign_up(ADA))
    assert site.call("POST", "/api/logout", token).status_code == 200
    site.come_back()
    other = token_of(site.log_in(ADA))
    assert site.call("GET", "/api/user", stale(token)).status_code == 401
    assert site.call("GET", "/api/user", stale(other)).status_code == 200
    assert site.call("POST", "/api/logout", other, everywhere=True).status_code == 200
    assert site.call("GET", "/api/user", stale(other)).status_code == 401


def test_a_logout_of_who_is_pending_holds_wherever_it_happened(start: Callable[..., Site]) -> None:
    site, other = start("full"), start("off")
    site.leave()
    token = token_of(site.sign_up(ADA))
    assert other.call("POST", "/api/logout", token).status_code == 200
    site.come_back()
    assert site.call("GET", "/api/user", stale(token)).status_code == 401


def test_a_logout_in_the_file_holds_too_once_postgres_has_the_user(
    start: Callable[..., Site],
) -> None:
    site, other = start("full"), start("off")
    site.leave()
    token = token_of(site.sign_up(ADA))
    # As another copy of the file may have brought it, or the sign-up itself, its answer lost.
    other.app.store.create_user(TOKENS.read(token, time.time()).user, None)
    assert site.call("POST", "/api/logout", token).status_code == 200
    site.come_back()
    assert other.call("GET", "/api/user", stale(token)).status_code == 200
    assert site.call("GET", "/api/user", stale(token)).status_code == 401


def test_every_login_in_an_outage_is_degraded(start: Callable[..., Site]) -> None:
    site = start("full")
    site.leave()
    assert not TOKENS.read(token_of(site.sign_up(ADA)), time.time()).user.is_degraded
    assert TOKENS.read(token_of(site.log_in(ADA)), time.time()).user.is_degraded
    site.come_back()
    assert not TOKENS.read(token_of(site.log_in(ADA)), time.time()).user.is_degraded


@pytest.mark.parametrize("mode", ["full", "readonly"])
def test_a_wrong_password_and_an_unknown_address_wait_alike(
    start: Callable[..., Site], mode: str
) -> None:
    site = start(mode)
    site.sign_up(ADA)
    site.take_snapshot()
    site.leave()
    answers = [site.log_in(ADA, "a wrong password"), site.log_in("nobody@example.com")]
    assert {answer.status_code for answer in answers} == {503}
    first, second = ((answer.json or {}) | {"request_id": ""} for answer in answers)
    assert first == second


def test_guesses_in_an_outage_are_counted(start: Callable[..., Site]) -> None:
    site = start("full", MAX_LOGIN_ATTEMPTS="5")
    site.leave()
    site.sign_up(ADA)
    for _ in range(5):
        assert site.log_in(ADA, "a wrong password").status_code == 503
    assert site.log_in(ADA).status_code == 503, "even the right one"


def test_successes_in_an_outage_are_counted_and_those_of_who_is_pending_also_after_it(
    start: Callable[..., Site],
) -> None:
    site = start("full", MAX_LOGINS="3")
    site.sign_up(ADA)
    site.take_snapshot()
    site.leave()
    site.sign_up(BOB)
    for email in (ADA, BOB):
        answers = [site.log_in(email) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200] * 3 + [429] * 2
        assert int(answers[-1].headers["Retry-After"]) > 800
        assert site.log_in(email, "a wrong guess").status_code == 503
    site.come_back()
    for email in (ADA, BOB):  # Postgres counts for itself.
        assert [site.log_in(email).status_code for _ in range(4)] == [200] * 3 + [429]


def test_an_old_file_opens_degraded_sessions_only_where_there_was_never_a_snapshot(
    start: Callable[..., Site],
) -> None:
    site = start("full")
    site.leave()
    site.sign_up(ADA)
    (record,) = site.pending()
    del record["pending"]
    site.file.write_text(json.dumps([record]))
    token = token_of(site.log_in(ADA))
    assert TOKENS.read(token, time.time()).user.is_degraded
    site.come_back()
    assert site.log_in(ADA).status_code == 401, "Postgres knows better"
    site.take_snapshot()
    site.leave()
    assert site.log_in(ADA).status_code == 503, "and so does the snapshot"


def test_postgres_wins_an_address_that_was_taken_meanwhile(start: Callable[..., Site]) -> None:
    site, other = start("full"), start("off")
    site.leave()
    loser = token_of(site.sign_up(ADA))
    winner = token_of(other.sign_up(ADA, "the password of the winner"))
    site.come_back()
    assert site.log_in(ADA).status_code == 401
    found = site.log_in(ADA, "the password of the winner").json or {}
    now = time.time()
    assert found["id"] == TOKENS.read(winner, now).user.id
    assert found["id"] != TOKENS.read(loser, now).user.id


def test_a_request_that_postgres_has_served_in_part_is_not_served_elsewhere(
    start: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = start("full")
    postgres = site.app.store._postgres  # type: ignore[attr-defined]
    reserve = postgres.reserve_sign_up

    def reserve_and_leave(*arguments: object) -> object:
        reservation = reserve(*arguments)
        site.leave()
        return reservation

    monkeypatch.setattr(postgres, "reserve_sign_up", reserve_and_leave)
    assert site.sign_up(ADA).status_code == 503
    assert not site.pending()
    assert site.sign_up(BOB).status_code == 201, "the next request is another one"


def test_a_sign_up_that_memory_has_counted_goes_to_the_file_though_postgres_is_back(
    start: Callable[..., Site],
) -> None:
    site = start("full")
    site.leave()
    store = site.app.store
    reservation = store.reserve_sign_up(CLIENT)
    site.come_back()
    store.create_user(new_user(ADA), "hash", client=CLIENT, reservation=reservation)
    assert [record["email"] for record in site.pending()] == [ADA]


def test_an_address_that_the_snapshot_has_is_taken(start: Callable[..., Site]) -> None:
    site = start("full")
    site.sign_up(ADA)
    site.take_snapshot()
    site.leave()
    assert site.sign_up(ADA).status_code == 409
    assert site.sign_up(BOB).status_code == 201


def test_a_users_file_that_cannot_be_read_stops_sign_ups_and_loses_nothing(
    start: Callable[..., Site],
) -> None:
    site = start("full")
    site.file.write_text("[")
    site.leave()
    assert site.sign_up(ADA).status_code == 503
    assert site.log_in(ADA).status_code == 503
    assert site.health()["fallback"]["pending"] == 0
    site.come_back()
    token = token_of(site.sign_up(ADA))
    assert site.log_in(ADA).status_code == 200, "whom Postgres knows is not kept out"
    assert site.call("GET", "/api/user", stale(token)).status_code == 200
    change = {"currentPassword": PASSWORD, "newPassword": "another horse battery"}
    assert site.call("POST", "/api/password", token, **change).status_code == 200
    assert site.log_in(BOB).status_code == 503, "who may be in the file has to wait"
    assert site.file.read_text() == "["


# readonly


@pytest.mark.parametrize("mode", ["full", "readonly"])
def test_a_login_from_the_snapshot_is_short_and_good_for_nothing_else(
    start: Callable[..., Site], mode: str
) -> None:
    site = start(mode)
    site.sign_up(ADA)
    site.take_snapshot()
    site.leave()
    answer = site.log_in(ADA)
    token = token_of(answer)
    assert f"Max-Age={FRESH_SECONDS}" in answer.headers["Set-Cookie"]
    assert site.call("GET", "/api/user", token).status_code == 200
    site.come_back()
    change = {"currentPassword": PASSWORD, "newPassword": "another horse battery"}
    for refused in (
        site.call("POST", "/api/password", token, **change),
        site.call("DELETE", "/api/account", token, password=PASSWORD),
        site.call("GET", "/api/account", token),
        site.call("POST", "/api/logout", token, everywhere=True),
    ):
        assert refused.status_code == 401
    assert site.call("GET", "/api/user", token).status_code == 200
    assert site.call("POST", "/api/logout", token).status_code == 200


@pytest.mark.parametrize("mode", ["full", "readonly"])
def test_who_was_disabled_before_the_snapshot_has_no_way_in(
    start: Callable[..., Site], mode: str
) -> None:
    site = start(mode)
    user = site.sign_up(ADA).json or {}
    disable(site.app.store, user["id"])
    site.take_snapshot()
    site.leave()
    assert without_id(site.log_in(ADA)) == without_id(site.log_in(ADA, "a wrong password"))
    assert site.log_in(ADA).status_code == 503
    # Nor as somebody new.
    assert site.sign_up(ADA).status_code == (409 if mode == "full" else 503)


def test_who_is_pending_can_be_disabled_in_the_file(start: Callable[..., Site]) -> None:
    site = start("full")
    site.leave()
    answer = site.sign_up(ADA)
    token, (record,) = token_of(answer), site.pending()
    site.file.write_text(json.dumps([record | {"disabledAt": "2026-11-27T00:00:00.000Z"}]))
    assert without_id(site.log_in(ADA)) == without_id(site.log_in(BOB))
    site.come_back()
    assert site.log_in(ADA).status_code == 401
    assert site.call("GET", "/api/user", stale(token)).status_code == 401
    assert site.call("GET", "/api/account", token).status_code == 401


def without_id(answer: TestResponse) -> tuple[int, dict[str, object]]:
    """Give what two refusals may be compared by."""
    return answer.status_code, {
        name: value for name, value in (answer.json or {}).items() if name != "request_id"
    }


def test_readonly_takes_no_sign_ups_and_writes_no_users(start: Callable[..., Site]) -> None:
    site = start("readonly")
    site.sign_up(ADA)
    site.take_snapshot()
    site.leave()
    assert site.sign_up(BOB).status_code == 503
    assert site.sign_up(ADA).status_code == 503, "taken or not"
    assert not site.file.exists()


def test_readonly_without_a_snapshot_that_may_be_believed_waits(
    start: Callable[..., Site],
) -> None:
    site = start("readonly", SNAPSHOT_MAX_AGE="60")
    site.sign_up(ADA)
    site.leave()
    assert site.log_in(ADA).status_code == 503, "there is none"
    site.come_back()
    site.take_snapshot()
    site.leave()
    snapshot = site.app.settings.store.snapshot_file
    sound = snapshot.read_bytes()
    assert site.log_in(ADA).status_code == 200
    snapshot.write_bytes(sound.replace(b"$2b$04", b"$2b$05"))
    assert site.log_in(ADA).status_code == 503, "forged"
    snapshot.write_bytes(sound)
    with pytest.MonkeyPatch.context() as patch:
        now = time.time()
        patch.setattr(time, "time", lambda: now + 61)
        assert site.log_in(ADA).status_code == 503, "too old"


def test_what_the_instance_has_changed_itself_is_not_believed_of_an_older_snapshot(
    start: Callable[..., Site],
) -> None:
    site = start("readonly")
    token, other = token_of(site.sign_up(ADA)), token_of(site.sign_up(BOB))
    site.sign_up(EVE)
    site.take_snapshot()
    change = {"currentPassword": PASSWORD, "newPassword": "another horse battery"}
    assert site.call("POST", "/api/password", token, **change).status_code == 200
    assert site.call("DELETE", "/api/account", other, password=PASSWORD).status_code == 204
    site.leave()
    assert site.log_in(ADA).status_code == 503
    assert site.log_in(BOB).status_code == 503
    assert site.log_in(EVE).status_code == 200


def test_a_degraded_session_of_an_old_password_ends_with_the_outage(
    start: Callable[..., Site],
) -> None:
    site, other = start("readonly"), start("off")
    token = token_of(site.sign_up(ADA))
    site.take_snapshot()
    change = {"currentPassword": PASSWORD, "newPassword": "another horse battery"}
    assert other.call("POST", "/api/password", token, **change).status_code == 200
    site.leave()
    degraded = token_of(site.log_in(ADA))
    site.come_back()
    with pytest.MonkeyPatch.context() as patch:
        now = time.time()
        patch.setattr(time, "time", lambda: now + FRESH_SECONDS)
        assert site.call("GET", "/api/user", degraded).status_code == 401


def test_a_snapshot_is_taken_when_it_is_due_and_not_before(
    start: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = start("readonly", SNAPSHOT_INTERVAL="100")
    store, now = site.app.store, time.time()
    for seconds, taken in ((0, 0), (99, 0), (100, 100), (250, 250), (-50, -50)):
        monkeypatch.setattr(time, "time", lambda at=now + seconds: at)
        store.clean_up()
        assert store.database_status is not None
        fallback = store.database_status.fallback()
        assert fallback.snapshot == now + taken


def test_a_snapshot_is_taken_also_where_the_rest_of_cleaning_up_fails(
    postgres: Server, database: str, start: Callable[..., Site]
) -> None:
    site = start("readonly")
    site.sign_up(ADA)
    postgres.run("DROP TABLE event_hours", database)
    with pytest.raises(StoreFault, match="event_hours"):
        site.app.store.clean_up()
    assert site.app.settings.store.snapshot_file.exists()


@pytest.mark.parametrize("taken_at", ["NaN", "1e300", "-1e300"])
def test_health_is_200_whatever_the_snapshot_says(
    start: Callable[..., Site], taken_at: str
) -> None:
    site = start("readonly")
    site.app.settings.store.snapshot_file.write_text(f'{{"taken_at": {taken_at}}}')
    assert site.health()["fallback"]["snapshot"] is None


def test_an_instance_that_shall_not_takes_no_snapshot(start: Callable[..., Site]) -> None:
    site = start("readonly", SNAPSHOT_INTERVAL="0")
    site.app.store.clean_up()
    assert not site.app.settings.store.snapshot_file.exists()


def test_a_snapshot_that_cannot_be_written_says_so(postgres: Server, database: str) -> None:
    variables = environment(
        DATABASE_URL=postgres.url(database), USERS_FILE="/proc/users.json", FALLBACK="readonly"
    )
    store = open_store(Settings.from_env(variables))
    with pytest.raises(Exception, match=r"/proc/users\.json\.snapshot"):
        store.clean_up()
    store.close()


@pytest.mark.tcp("it names the refusal of a TCP connection")
def test_the_log_tells_why_nobody_could_serve(postgres: Server, tmp_path: Path) -> None:
    url = postgres.url("postgres", port=1)
    variables = environment(
        DATABASE_URL=url, USERS_FILE=str(tmp_path / "users.json"), FALLBACK="readonly"
    )
    with closing(open_store(Settings.from_env(variables))) as store:
        with pytest.raises(StoreUnreachable, match="cannot connect: ConnectionRefusedError"):
            store.create_user(new_user(ADA), "hash", client=CLIENT)
        with pytest.raises(StoreUnreachable, match="no snapshot"):
            store.begin_login(ADA, CLIENT)
