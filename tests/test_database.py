"""The one place that dials: what it refuses, retries, reuses and gives up."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shared.config import Settings
from shared.connection import Connection
from shared.database import CONNECT_ATTEMPTS, Database
from shared.database_url import DatabaseUrl
from shared.errors import StoreAway, StoreBusy, StoreFault, StoreRefused, StoreUnavailable
from tests.support.certificates import Authority
from tests.support.emulator import running_emulator
from tests.support.impostor import READY, Impostor, authentication, error, message
from tests.support.postgres import Server, free_port, running_pgbouncer, running_postgres
from tests.support.relay import Relay

SETTINGS = Settings(database_timeout=10, database_connect_timeout=5, database_max_connections=2)
PID = "SELECT pg_backend_pid()"


@pytest.fixture
def pool(postgres: Server, database: str) -> Iterator[Database]:
    """A pool of two connections."""
    with closing(Database(DatabaseUrl.parse(postgres.url(database)), SETTINGS)) as opened:
        yield opened


@pytest.fixture
def relay(postgres: Server) -> Iterator[Relay]:
    """A relay before the server."""
    with Relay(postgres.port) as running:
        yield running


# What it refuses


@pytest.fixture(scope="module")
def faulty_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """Servers with each fault that a client must not overlook."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority(folder)
    hosts = ("localhost", "127.0.0.1")
    certificates = {
        "self-signed": authority.issue("self-signed", hosts, self_signed=True),
        "wrong host": authority.issue("wrong-host", ("db.example.com",)),
        "expired": authority.issue("expired", hosts, valid_days=-1),
    }
    with (
        running_postgres(
            authority=authority, certificate=certificates["self-signed"]
        ) as self_signed,
        running_postgres(authority=authority, certificate=certificates["wrong host"]) as other,
        running_postgres(authority=authority, certificate=certificates["expired"]) as expired,
        running_postgres(authority=authority, plaintext=True) as plaintext,
    ):
        yield {
            "self-signed": self_signed,
            "wrong host": other,
            "expired": expired,
            "plaintext": plaintext,
        }


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("self-signed", "certificate is not valid for this host: self-signed certificate"),
        ("wrong host", "certificate is not valid for this host: Hostname mismatch"),
        ("expired", "certificate is not valid for this host: certificate has expired"),
        ("plaintext", "does not speak TLS; nothing was sent to it"),
    ],
)
@pytest.mark.parametrize("negotiation", ["postgres", "direct"])
def test_a_server_that_cannot_prove_itself_is_refused_at_once(
    faulty_servers: dict[str, Server], fault: str, sentence: str, negotiation: str
) -> None:
    server = faulty_servers[fault]
    with Relay(server.port) as relay:
        url = server.url("postgres", port=relay.port, sslnegotiation=negotiation)
        with closing(Database(DatabaseUrl.parse(url), SETTINGS)) as pool:
            if (fault, negotiation) == ("plaintext", "direct"):
                # It hangs up on what it takes for a garbled startup message.
                with pytest.raises(StoreUnavailable):
                    pool.execute("SELECT 1")
                return
            with pytest.raises(StoreRefused, match=sentence):
                pool.execute("SELECT 1")
        assert relay.connections == 1
        assert pool.counts().total == 0


def _refusals(server: Server) -> dict[str, tuple[str, str]]:
    return {
        "wrong password": (server.url("postgres", password="wrong"), "28P01"),
        "unknown user": (server.url("postgres", user="nobody"), "28P01"),
        "unknown database": (server.url("nowhere"), "3D000"),
        "unusable option": (server.url("postgres", options="-c%20nonsense%3D1"), "42704"),
    }


@pytest.mark.parametrize(
    "fault", ["wrong password", "unknown user", "unknown database", "unusable option"]
)
def test_a_refused_login_is_not_tried_again(postgres: Server, relay: Relay, fault: str) -> None:
    url, sqlstate = _refusals(postgres)[fault]
    parsed = replace(DatabaseUrl.parse(url), port=relay.port)
    with closing(Database(parsed, SETTINGS)) as pool:
        with pytest.raises(StoreRefused, match=sqlstate):
            pool.execute("SELECT 1")
        assert relay.connections == 1


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (socket.gaierror(socket.EAI_NONAME, "unknown"), (StoreRefused, 1)),
        (socket.gaierror(socket.EAI_AGAIN, "try again"), (StoreAway, CONNECT_ATTEMPTS)),
    ],
)
def test_only_a_name_that_may_be_resolved_later_is_looked_up_again(
    postgres: Server,
    monkeypatch: pytest.MonkeyPatch,
    failure: OSError,
    expected: tuple[type[Exception], int],
) -> None:
    lookups = []

    def fail(*arguments: Any, **_: Any) -> Any:
        lookups.append(arguments)
        raise failure

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with closing(Database(DatabaseUrl.parse(postgres.url("postgres")), SETTINGS)) as pool:
        kind, times = expected
        with pytest.raises(kind):
            pool.execute("SELECT 1")
    assert len(lookups) == times


def test_a_host_that_cannot_be_a_name_is_refused(postgres: Server) -> None:
    url = DatabaseUrl.parse(postgres.url("postgres", host="x" * 70))
    with (
        closing(Database(url, SETTINGS)) as pool,
        pytest.raises(StoreUnavailable, match="host's name"),
    ):
        pool.execute("SELECT 1")


def test_a_resolver_that_hangs_does_not_stretch_the_deadline(
    postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        released.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    settings = replace(SETTINGS, database_connect_timeout=0.3)
    started = time.monotonic()
    try:
        with (
            closing(Database(DatabaseUrl.parse(postgres.url("postgres")), settings)) as pool,
            pytest.raises(StoreAway, match="longer than its deadline"),
        ):
            pool.execute("SELECT 1")
        assert time.monotonic() - started < 3
    finally:
        released.set()


def test_channel_binding_is_used_where_it_is_required(postgres: Server, database: str) -> None:
    url = DatabaseUrl.parse(postgres.url(database, channel_binding="require"))
    with closing(Database(url, SETTINGS)) as pool:
        assert pool.execute("SELECT 1") == [[1]]


def test_missing_channel_binding_is_refused_before_the_password(
    postgres: Server, database: str, pgbouncer_program: str
) -> None:
    with running_pgbouncer(postgres, server_connections=1) as port:
        url = DatabaseUrl.parse(postgres.url(database, port=port))
        with closing(Database(url, SETTINGS)) as pool:
            assert pool.execute("SELECT 1") == [[1]]
        bound = replace(url, require_channel_binding=True)
        with (
            closing(Database(bound, SETTINGS)) as pool,
            pytest.raises(StoreRefused, match="no password was sent"),
        ):
            pool.execute("SELECT 1")


@pytest.mark.parametrize("parameters", [{}, {"channel_binding": "require"}])
def test_a_server_that_skips_its_own_proof_is_refused_and_asked_nothing(
    tmp_path: Path, parameters: dict[str, str]
) -> None:
    authority = Authority(tmp_path)
    heard = []

    def pretend(tls: ssl.SSLSocket, _: int) -> None:
        tls.sendall(authentication(10, b"SCRAM-SHA-256-PLUS\0\0"))
        tls.recv(4096)
        tls.sendall(authentication(0) + READY)
        heard.append(tls.recv(4096))

    with Impostor(authority, pretend) as impostor:
        url = DatabaseUrl(
            host="localhost",
            port=impostor.port,
            database="d",
            user="u",
            password="p",
            require_channel_binding=bool(parameters),
            root_certificates=str(authority.certificate),
        )
        with (
            closing(Database(url, SETTINGS)) as pool,
            pytest.raises(StoreRefused, match="did not prove that it knows the password"),
        ):
            pool.execute("SELECT 1")
    assert heard in ([b""], [message(b"X")]), "nothing but good-bye"


@pytest.mark.parametrize("request_code", [3, 5])
def test_a_password_is_not_given_without_scram_where_binding_is_required(
    tmp_path: Path, request_code: int
) -> None:
    authority = Authority(tmp_path)
    heard = []

    def ask(tls: ssl.SSLSocket, _: int) -> None:
        tls.sendall(authentication(request_code, b"salt"))
        heard.append(tls.recv(4096))

    with Impostor(authority, ask) as impostor:
        url = DatabaseUrl(
            host="localhost",
            port=impostor.port,
            database="d",
            user="u",
            password="canary",
            require_channel_binding=True,
            root_certificates=str(authority.certificate),
        )
        with (
            closing(Database(url, SETTINGS)) as pool,
            pytest.raises(StoreRefused, match="no password was sent"),
        ):
            pool.execute("SELECT 1")
    assert heard in ([b""], [message(b"X")]), "nothing but good-bye"


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("plaintext", "does not speak TLS"),
        ("self-signed", "self-signed certificate"),
        ("wrong host", "Hostname mismatch"),
        ("expired", "certificate has expired"),
        ("wrong password", "28P01"),
        ("unknown database", "3D000"),
        ("missing channel binding", "no password was sent"),
    ],
)
def test_each_refusal_is_a_sentence_in_the_log_and_a_bare_503_outside(
    postgres: Server, faulty_servers: dict[str, Server], fault: str, sentence: str, request: Any
) -> None:
    with ExitStack() as stack:
        if fault in faulty_servers:
            url = faulty_servers[fault].url("postgres")
        elif fault == "missing channel binding":
            request.getfixturevalue("pgbouncer_program")
            port = stack.enter_context(running_pgbouncer(postgres, server_connections=1))
            url = postgres.url("postgres", port=port, channel_binding="require")
        else:
            url, _ = _refusals(postgres)[fault]
        _check_refusal(url, sentence, postgres.port)


def _check_refusal(url: str, sentence: str, port: int) -> None:
    with running_emulator(DATABASE_URL=url) as emulator, emulator.client() as client:
        response = client.post(
            "/api/login", json={"email": "ada@example.com", "password": "correct horse"}
        )
        health = client.get("/api/health")
        log = emulator.output()
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    assert health.status_code == 200
    assert health.json()["database"] == {
        "status": "disconnected",
        "message": "Database not connected",
    }
    for text in (response.text, health.text):
        for secret in ("localhost", str(port), "certificate", "app", "TLS", "28P01"):
            assert secret not in text
    assert sentence in log
    assert "p@ss" not in log
    assert "p%40ss" not in log


# What it retries


def test_a_connection_that_was_hung_up_on_is_dialed_again(
    postgres: Server, database: str, relay: Relay
) -> None:
    relay.hang_up = CONNECT_ATTEMPTS - 1
    url = DatabaseUrl.parse(postgres.url(database, port=relay.port))
    with closing(Database(url, SETTINGS)) as pool:
        assert pool.execute("SELECT 1") == [[1]]
        assert relay.connections == CONNECT_ATTEMPTS


@pytest.mark.parametrize(
    ("sqlstate", "text", "waited_for"),
    [
        ("57P03", "the database system is starting up", True),
        ("XX000", "Couldn't connect to compute node", True),
        ("XX000", "Control plane request failed", True),
        ("XX000", "The endpoint is disabled. Enable it and try again.", False),
        ("XX000", "password authentication failed for user 'u'", False),
        ("28000", "no pg_hba.conf entry", False),
    ],
)
def test_a_server_that_wakes_up_is_waited_for_and_one_that_refuses_is_not(
    tmp_path: Path, sqlstate: str, text: str, waited_for: bool
) -> None:
    authority = Authority(tmp_path)
    awake_at = 6

    def wake_slowly(tls: ssl.SSLSocket, number: int) -> None:
        if number < awake_at:
            tls.sendall(error(sqlstate, text))
        else:
            tls.sendall(authentication(0) + READY)
        tls.recv(4096)

    with Impostor(authority, wake_slowly) as impostor:
        url = DatabaseUrl(
            host="localhost",
            port=impostor.port,
            database="d",
            user="u",
            password="p",
            root_certificates=str(authority.certificate),
        )
        pool = Database(url, SETTINGS)
        deadline = time.monotonic() + 10
        if waited_for:
            with pool.direct_connection(deadline):
                assert impostor.connections == awake_at
        else:
            with pytest.raises(StoreRefused), pool.direct_connection(deadline):
                pass
            assert impostor.connections == 1


def test_a_server_without_room_is_asked_a_few_times_and_no_more(
    postgres: Server, database: str, relay: Relay
) -> None:
    postgres.run("CREATE ROLE crowded LOGIN PASSWORD 'crowded' CONNECTION LIMIT 0")
    url = DatabaseUrl.parse(
        postgres.url(database, port=relay.port, user="crowded", password="crowded")
    )
    with closing(Database(url, SETTINGS)) as pool:
        with pytest.raises(StoreAway, match="53300"):
            pool.execute("SELECT 1")
        assert relay.connections == CONNECT_ATTEMPTS


def test_a_server_that_is_gone_is_away_soon(postgres: Server) -> None:
    url = DatabaseUrl.parse(postgres.url("postgres", port=free_port()))
    with (
        closing(Database(url, SETTINGS)) as pool,
        pytest.raises(StoreAway, match="cannot connect: ConnectionRefusedError"),
    ):
        pool.execute("SELECT 1")


@pytest.mark.parametrize("negotiation", ["postgres", "direct"])
def test_one_deadline_covers_the_whole_connect(postgres: Server, negotiation: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = DatabaseUrl.parse(
            postgres.url("postgres", port=silent.getsockname()[1], sslnegotiation=negotiation)
        )
        settings = replace(SETTINGS, database_connect_timeout=0.5)
        started = time.monotonic()
        with (
            closing(Database(url, settings)) as pool,
            pytest.raises(StoreAway, match="longer than its deadline"),
        ):
            pool.execute("SELECT 1")
        assert 0.4 < time.monotonic() - started < 3


def test_a_server_that_trickles_its_answer_does_not_stretch_the_deadline(
    postgres: Server,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()

        def trickle() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(8)
                connection.sendall(b"S")
                while not stop.wait(0.1):
                    try:
                        connection.sendall(b"\x16")
                    except OSError:
                        return

        server = threading.Thread(target=trickle)
        server.start()
        url = DatabaseUrl.parse(postgres.url("postgres", port=listener.getsockname()[1]))
        settings = replace(SETTINGS, database_connect_timeout=0.5)
        started = time.monotonic()
        try:
            with closing(Database(url, settings)) as pool, pytest.raises(StoreUnavailable):
                pool.execute("SELECT 1")
            assert time.monotonic() - started < 3
        finally:
            stop.set()
            server.join()


def test_each_address_of_a_host_is_tried(
    postgres: Server, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo

    def resolve_to_two(host: str, port: int, **options: Any) -> Any:
        return resolve("127.0.0.2", free_port(), **options) + resolve("127.0.0.1", port, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_to_two)
    with closing(Database(DatabaseUrl.parse(postgres.url(database)), SETTINGS)) as pool:
        assert pool.execute("SELECT 1") == [[1]]


def test_an_ipv6_host_is_dialed_and_verified(postgres: Server, database: str) -> None:
    try:
        relay = Relay(postgres.port, "::1")
    except OSError:
        pytest.skip("this machine has no IPv6 loopback address")
    with relay:
        url = DatabaseUrl.parse(postgres.url(database, host="[::1]", port=relay.port))
        with closing(Database(url, SETTINGS)) as pool:
            assert pool.execute("SELECT 1") == [[1]]
        assert relay.connections == 1


def test_options_reach_the_server(postgres: Server, database: str) -> None:
    url = DatabaseUrl.parse(postgres.url(database, options="-c%20geqo_seed%3D0.25"))
    with closing(Database(url, SETTINGS)) as pool:
        assert pool.execute("SELECT current_setting('geqo_seed')") == [["0.25"]]


# What it reuses


def test_a_connection_is_reused_while_it_is_young(pool: Database) -> None:
    pids = {str(pool.execute(PID)) for _ in range(5)}
    assert len(pids) == 1
    assert (pool.counts().total, pool.counts().idle) == (1, 1)


def test_an_old_connection_is_replaced(postgres: Server, database: str) -> None:
    url = DatabaseUrl.parse(postgres.url(database))
    with closing(Database(url, replace(SETTINGS, database_max_idle=0.1))) as pool:
        first = pool.execute(PID)
        time.sleep(0.2)
        assert pool.execute(PID) != first
        assert pool.counts().total == 1


def test_connections_that_a_burst_left_over_are_closed_when_they_are_old(
    postgres: Server, database: str
) -> None:
    url = DatabaseUrl.parse(postgres.url(database))
    settings = replace(SETTINGS, database_max_idle=0.3, database_max_connections=4)
    with closing(Database(url, settings)) as pool:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda _: pool.execute("SELECT pg_sleep(0.1)"), range(4)))
        assert pool.counts().idle == 4
        for _ in range(10):
            pool.execute("SELECT 1")
            time.sleep(0.05)
        assert pool.counts().total == 1


def test_the_encoding_is_utf8_whatever_the_roles_default(postgres: Server, database: str) -> None:
    postgres.run(
        "CREATE ROLE latin LOGIN PASSWORD 'latin'; ALTER ROLE latin SET client_encoding = 'LATIN1'"
    )
    url = DatabaseUrl.parse(postgres.url(database, user="latin", password="latin"))
    with closing(Database(url, SETTINGS)) as pool:
        assert pool.execute("SELECT $1, char_length($1)", "Zoë 山") == [["Zoë 山", 5]]


def test_a_stale_connection_is_replaced_without_anyone_seeing_it(
    pool: Database, postgres: Server
) -> None:
    ((pid,),) = pool.execute(PID)
    postgres.run(f"SELECT pg_terminate_backend({pid}, 5000)")
    ((other,),) = pool.execute(PID)
    assert other != pid
    assert (pool.counts().total, pool.counts().idle) == (1, 1)


def test_a_statement_whose_backend_is_killed_is_repeated_on_a_new_connection(
    pool: Database, postgres: Server
) -> None:
    pool.execute("CREATE TABLE once (pid integer)")

    def kill() -> None:
        deadline = time.monotonic() + 10
        query = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%slow%' AND state = 'active'"
        while time.monotonic() < deadline:
            for (pid,) in postgres.run(f"{query} AND pid <> pg_backend_pid()"):
                postgres.run(f"SELECT pg_terminate_backend({pid}, 5000)")
                return
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    killer.start()
    rows = pool.execute("SELECT 'slow', pg_sleep(CASE WHEN $1 = 'x' THEN 0.5 END)", "x")
    killer.join()
    assert rows[0][0] == "slow"
    assert pool.counts().total == 1


def test_a_clean_error_keeps_the_connection(pool: Database) -> None:
    first = pool.execute(PID)
    with pytest.raises(StoreFault, match="42P01"):
        pool.execute("SELECT * FROM nowhere WHERE $1 = ''", "x")
    with pytest.raises(StoreFault, match="22P02") as caught:
        pool.execute("SELECT $1::integer", "canary")
    assert "canary" not in str(caught.value)
    assert pool.execute(PID) == first


@pytest.mark.parametrize("text", ["\ud800", "a\0b", "\udfff\0"])
def test_a_text_that_postgres_cannot_take_never_shifts_the_answers(
    pool: Database, text: str
) -> None:
    for number in range(5):
        with pytest.raises(StoreFault):
            pool.execute("SELECT $1", text)
        assert pool.execute("SELECT $1", str(number)) == [[str(number)]]


def test_an_overlong_statement_ends_in_time_and_its_connection_with_it(
    postgres: Server, database: str
) -> None:
    url = DatabaseUrl.parse(postgres.url(database))
    with closing(Database(url, replace(SETTINGS, database_statement_timeout=0.3))) as pool:
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match="57014"):
            pool.execute("SELECT pg_sleep($1::float)", "30")
        assert time.monotonic() - started < 3
        assert pool.execute("SELECT $1", "next") == [["next"]]


def test_a_statement_timeout_does_not_outlive_its_statement(pool: Database) -> None:
    assert pool.execute("SELECT current_setting('statement_timeout') <> '0'") == [[True]]
    with pool.direct_connection(time.monotonic() + 10) as connection:
        connection.execute("SELECT 1")
        assert connection.run_script("SHOW statement_timeout") == [["0"]]


# Whom it makes wait


def test_more_requests_than_leases_wait_for_their_turn(pool: Database) -> None:
    def ask(number: int) -> Any:
        return pool.execute("SELECT $1, pg_sleep(0.01)", str(number))[0][0]

    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(ask, range(64))) == [str(number) for number in range(64)]
    counts = pool.counts()
    assert (counts.total, counts.idle, counts.waiting) == (2, 2, 0)


def test_who_waits_until_the_deadline_is_told_that_the_store_is_busy(pool: Database) -> None:
    with ThreadPoolExecutor(2) as threads:
        sleepers = [threads.submit(pool.execute, "SELECT pg_sleep(1)") for _ in range(2)]
        _until(lambda: pool.counts().total == 2 and pool.counts().idle == 0)
        with pytest.raises(StoreBusy):
            pool.execute("SELECT 1", timeout=0.1)
        for sleeper in sleepers:
            sleeper.result()
    assert pool.execute("SELECT 1") == [[1]]
    assert pool.counts().waiting == 0


def test_no_wake_up_is_lost_to_someone_who_gives_up(pool: Database) -> None:
    # Those who give up do so just when connections come back.
    def impatient(_: int) -> str:
        try:
            pool.execute("SELECT pg_sleep(0.02)", timeout=0.04)
        except StoreUnavailable:
            return "gave up"
        return "answered"

    def patient(_: int) -> float:
        started = time.monotonic()
        pool.execute("SELECT 1", timeout=10)
        return time.monotonic() - started

    with ThreadPoolExecutor(16) as threads:
        noise = [threads.submit(impatient, number) for number in range(200)]
        waits = list(threads.map(patient, range(50)))
        outcomes = {future.result() for future in noise}
    assert "gave up" in outcomes
    assert max(waits) < 5


def test_a_busy_store_is_503_with_a_time_to_come_back(postgres: Server, database: str) -> None:
    with (
        running_emulator(
            DATABASE_URL=postgres.url(database),
            DATABASE_MAX_CONNECTIONS="1",
            DATABASE_TIMEOUT="0.5",
            THREADS="8",
        ) as emulator,
        emulator.client() as client,
        postgres.connect(database) as holder,
    ):
        assert client.get("/api/health").json()["database"]["status"] == "connected"
        holder.run("BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        login = {"email": "ada@example.com", "password": "correct horse"}

        def ask(_: int) -> tuple[int, str]:
            with emulator.client() as own:
                response = own.post("/api/login", json=login)
                return response.status_code, response.headers["Retry-After"]

        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(ask, range(4)))
        holder.run("ROLLBACK")
        assert {status for status, _ in answers} == {503}
        assert all(int(after) > 0 for _, after in answers)
        assert client.post("/api/login", json=login).status_code == 401


def test_no_connection_and_no_descriptor_leaks_in_any_outcome(
    postgres: Server, database: str, relay: Relay
) -> None:
    url = DatabaseUrl.parse(postgres.url(database, port=relay.port))
    settings = replace(SETTINGS, database_statement_timeout=0.3)
    with closing(Database(url, settings)) as pool:
        pool.execute("SELECT 1")
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(5):
            with pytest.raises(StoreUnavailable):
                pool.execute("SELECT pg_sleep(30)")
            with pytest.raises(StoreFault):
                pool.execute("SELECT 1 / 0")
            relay.hang_up = 1
            assert pool.execute("SELECT 1") == [[1]]
        _until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before)
        assert pool.counts().total == 1


def test_requests_to_a_silent_database_leave_no_descriptor_behind(
    postgres: Server, database: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = postgres.url(database, port=silent.getsockname()[1])
        settings = {"DATABASE_URL": url, "DATABASE_TIMEOUT": "0.2", "THREADS": "1"}
        with running_emulator(**settings) as emulator, emulator.client() as client:
            login = {"email": "ada@example.com", "password": "correct horse"}
            assert client.post("/api/login", json=login).status_code == 503
            before = emulator.descriptors()
            for _ in range(5):
                assert client.post("/api/login", json=login).status_code == 503
            assert emulator.descriptors() <= before


def test_a_first_connection_that_could_not_be_prepared_is_prepared_by_the_next(
    postgres: Server, database: str
) -> None:
    calls = []

    def prepare(_: Database, connection: Connection, __: float) -> None:
        calls.append(connection.run_script("SELECT 1"))
        if len(calls) == 1:
            raise StoreRefused(cause="not yet")

    url = DatabaseUrl.parse(postgres.url(database))
    with closing(Database(url, SETTINGS, prepare=prepare)) as pool:
        with pytest.raises(StoreRefused, match="not yet"):
            pool.execute("SELECT 1")
        assert pool.counts().total == 0
        assert pool.execute("SELECT 1") == [[1]]
        assert pool.execute("SELECT 1") == [[1]]
        assert len(calls) == 2


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
