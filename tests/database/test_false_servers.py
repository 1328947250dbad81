"""What a false or odd server gets from us: no password, no memory, no time beyond the deadline."""

from __future__ import annotations

import ssl
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest

from shared.database import connection as connections
from shared.database.connection import MAX_ANSWER, MAX_ITERATIONS, MAX_LOGIN, MAX_TRANSFER_ANSWER
from shared.database.pool import Database
from shared.database.url import DatabaseUrl
from shared.errors import StoreRefused, StoreUnavailable
from shared.settings import Settings
from tests.support.certificates import Authority
from tests.support.emulator import Emulator, running_emulator
from tests.support.impostor import READY, Impostor, authentication, error, log_in, message
from tests.support.postgres import Server, running_pgbouncer

SETTINGS = Settings(
    database_timeout=6, database_connect_timeout=5, database_statement_timeout=5, fallback="off"
)
SECONDS = 20
"""No deadline, but far more than any answer takes, and far less than none at all."""
Behave = Callable[[ssl.SSLSocket], None]
BUFFERS = 16 * 1024 * 1024
"""Bytes that the sockets of both sides may hold, at most."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@contextmanager
def _pool(authority: Authority, behave: Behave, *, bound: bool = False) -> Iterator[Database]:
    with (
        Impostor(authority, lambda tls, _: behave(tls)) as impostor,
        closing(Database(impostor.url(authority, bound=bound), SETTINGS)) as pool,
    ):
        yield pool


def _failure(pool: Database) -> str:
    began = time.monotonic()
    with pytest.raises(StoreUnavailable) as raised:
        pool.execute("SELECT 1")
    assert time.monotonic() - began < SECONDS
    assert pool.counts().total == 0, "closed"
    return str(raised.value.cause)


# The password


def _asks(request: int, data: bytes = b"") -> Callable[[list[bytes]], Behave]:
    def asking(heard: list[bytes]) -> Behave:
        def behave(tls: ssl.SSLSocket) -> None:
            tls.sendall(authentication(request, data))
            heard.append(tls.recv(4096))

        return behave

    return asking


def _lets_in(heard: list[bytes]) -> Behave:
    def behave(tls: ssl.SSLSocket) -> None:
        tls.sendall(authentication(0) + READY)
        heard.append(tls.recv(4096))

    return behave


def _asks_nothing(heard: list[bytes]) -> Behave:
    def behave(tls: ssl.SSLSocket) -> None:
        tls.sendall(READY)
        heard.append(tls.recv(4096))

    return behave


ODD_LOGINS = {
    "clear text": (_asks(3), "asks for it in clear text"),
    "md5": (_asks(5, b"salt"), "asks for it as an MD5 hash"),
    "Kerberos": (_asks(2), "asks for it by method 2"),
    "SSPI": (_asks(9), "asks for it by method 9"),
    "none of all": (_asks(77), "asks for it by method 77"),
    "SCRAM-SHA-1": (_asks(10, b"SCRAM-SHA-1\0SCRAM-SHA-1-PLUS\0\0"), "offers no SCRAM-SHA-256"),
    "stronger": (_asks(10, b"SCRAM-SHA-512\0SCRAM-SHA3-512\0\0"), "offers no SCRAM-SHA-256"),
    "no mechanism": (_asks(10, b"\0"), "offers no SCRAM-SHA-256"),
    "trust": (_lets_in, "let us in without it"),
    "nothing": (_asks_nothing, "let us in without it"),
}


@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize("kind", ODD_LOGINS)
def test_nothing_but_scram_sha_256_is_answered(
    authority: Authority, kind: str, bound: bool
) -> None:
    asking, sentence = ODD_LOGINS[kind]
    heard: list[bytes] = []
    with _pool(authority, asking(heard), bound=bound) as pool:
        cause = _failure(pool)
    assert "no password was sent" in cause
    assert sentence in cause or (bound and "channel_binding=require" in cause)
    assert heard in ([b""], [message(b"X")]), "nothing but good-bye"


@pytest.mark.parametrize(
    ("auth_type", "sentence"),
    [
        ("plain", "asks for it in clear text"),
        ("md5", "asks for it as an MD5 hash"),
        ("trust", "let us in without it"),
    ],
)
def test_a_pooler_of_another_auth_type_is_refused_with_the_remedy(
    postgres: Server, database: str, pgbouncer_program: str, auth_type: str, sentence: str
) -> None:
    with running_pgbouncer(postgres, server_connections=1, auth_type=auth_type) as pooler:
        url = DatabaseUrl.parse(postgres.url(database, port=pooler.port))
        with closing(Database(url, SETTINGS)) as pool:
            cause = _failure(pool)
    assert sentence in cause
    assert "PgBouncer needs auth_type = scram-sha-256" in cause


def test_among_others_scram_sha_256_is_chosen(authority: Authority) -> None:
    def behave(tls: ssl.SSLSocket) -> None:
        log_in(tls, mechanisms=b"SCRAM-SHA-1\0SCRAM-SHA-512\0SCRAM-SHA-256")
        tls.recv(4096)
        tls.sendall(message(b"C", b"SELECT 0\0") + READY)

    with _pool(authority, behave) as pool:
        assert pool.execute("SELECT 1") == []


def test_who_knows_another_password_is_refused(authority: Authority) -> None:
    def behave(tls: ssl.SSLSocket) -> None:
        tls.sendall(authentication(10, b"SCRAM-SHA-256\0\0"))
        nonce = tls.recv(4096).rpartition(b"r=")[2]
        tls.sendall(authentication(11, b"r=" + nonce + b"x,s=c2FsdHNhbHRzYWx0,i=4096"))
        tls.recv(4096)
        tls.sendall(authentication(12, b"v=" + b"A" * 43 + b"=") + authentication(0) + READY)
        tls.recv(4096)

    with _pool(authority, behave) as pool:
        assert "did not prove that it knows the password" in _failure(pool)


@pytest.mark.parametrize("iterations", [1, 4095, MAX_ITERATIONS + 1, 10_000_000, 2**31, 10**30])
def test_a_server_cannot_ask_for_next_to_no_work_or_for_endless_work(
    authority: Authority, iterations: int
) -> None:
    heard: list[bytes] = []

    def behave(tls: ssl.SSLSocket) -> None:
        tls.sendall(authentication(10, b"SCRAM-SHA-256\0\0"))
        nonce = tls.recv(4096).rpartition(b"r=")[2]
        first = b"r=%bx,s=c2FsdHNhbHRzYWx0,i=%d" % (nonce, iterations)
        tls.sendall(authentication(11, first))
        heard.append(tls.recv(4096))

    with _pool(authority, behave) as pool:
        began = time.process_time()
        cause = _failure(pool)
        assert time.process_time() - began < 1.5, "processor time: 10 million take 8 s"
    assert "4096 to 600000 iterations" in cause
    assert heard in ([b""], [message(b"X")])


@pytest.mark.parametrize(
    "answers",
    [
        [authentication(11, b"r=x,s=eA==,i=4096")],
        [authentication(12, b"v=eA==")],
        [authentication(10, b"SCRAM-SHA-256\0\0"), authentication(12, b"v=eA==")],
        [authentication(10, b"SCRAM-SHA-256\0\0"), authentication(11, b"\xff\xfe")],
        [authentication(10, b"SCRAM-SHA-256\0\0"), authentication(11, b"r=,s=,i=")],
        [authentication(10, b"SCRAM-SHA-256\0\0"), authentication(11, b"e=other-error")],
        [authentication(10, b"SCRAM-SHA-256\0\0"), authentication(10, b"SCRAM-SHA-256\0\0")],
        [authentication(10, b"SCRAM-SHA-256\0\0"), authentication(0) + READY],
        [authentication(10, b"SCRAM-SHA-256\0\0"), READY],
        [authentication(10, b"\xff\0\0")],
        [message(b"R")],
        [message(b"R", b"\0\0")],
    ],
)
def test_a_login_in_another_order_or_of_other_bytes_is_refused(
    authority: Authority, answers: list[bytes]
) -> None:
    def behave(tls: ssl.SSLSocket) -> None:
        for answer in answers:
            tls.sendall(answer)
            tls.recv(4096)

    with _pool(authority, behave) as pool:
        assert _failure(pool)


# Lengths, floods and encodings


def _status(name: bytes, value: bytes) -> bytes:
    return message(b"S", name + b"\0" + value + b"\0")


def _header(code: bytes, length: int) -> bytes:
    return code + struct.pack("!i", length)


NOTICE = message(b"N", b"SNOTICE\0C00000\0M" + b"x" * 4000 + b"\0\0")
NOTIFICATION = message(b"A", b"\0\0\0\x01channel\0" + b"\xff" * 4000 + b"\0")
FLOODS = {
    "notices": NOTICE,
    "notifications": NOTIFICATION,
    "parameters": _status(b"x" * 2000, b"y" * 2000),
    "rows": message(b"D", b"\0\0") * 100,
    "descriptions": message(b"T", b"\0\0" + b"x" * 4000),
    "completions": message(b"C", b"x" * 4000 + b"\0"),
    "errors": error("42000", "x" * 4000),
}
GARBLED = {
    "no length": _header(b"Z", 0),
    "length of -1": _header(b"D", -1),
    "least length": _header(b"S", -(2**31)),
    "greatest length": _header(b"S", 2**31 - 1),
    "an unknown message": message(b"?"),
    "another protocol": b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n",
    "no end": message(b"E", b"SFATAL"),
    "a position that is none": message(b"E", b"C42000\0Pnowhere\0\0"),
    "COPY": message(b"G", b"\0\0\0"),
    "COPY to us": message(b"H", b"\0\0\0"),
    "data of a COPY": message(b"d", b"x"),
}  # fmt: skip


class _Flood:
    """Sends the same for as long as anybody reads it, and counts the bytes."""

    def __init__(self, data: bytes, *, first: Behave) -> None:
        self.sent = 0
        self._data = data * (64 * 1024 // len(data) + 1)
        self._first = first

    def __call__(self, tls: ssl.SSLSocket) -> None:
        self._first(tls)
        while True:
            tls.sendall(self._data)
            self.sent += len(self._data)


def _is_asked(tls: ssl.SSLSocket) -> None:
    log_in(tls)
    tls.recv(4096)


def _is_new(_: ssl.SSLSocket) -> None:
    """Speak first."""


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_during_a_login_ends_it(authority: Authority, flood: str) -> None:
    behave = _Flood(FLOODS[flood], first=_is_new)
    with _pool(authority, behave) as pool:
        assert _failure(pool)
    assert behave.sent < 4 * (MAX_LOGIN + BUFFERS)


@pytest.mark.parametrize("flood", [name for name in FLOODS if name != "rows"])
def test_a_flood_instead_of_an_answer_ends_the_connection(authority: Authority, flood: str) -> None:
    behave = _Flood(FLOODS[flood], first=_is_asked)
    with _pool(authority, behave) as pool:
        assert "longer than any that is expected" in _failure(pool)
    assert behave.sent < MAX_ANSWER + BUFFERS


def test_endless_rows_take_no_memory(authority: Authority) -> None:
    row = message(b"D", b"\0\x01" + struct.pack("!i", 1000) + b"x" * 1000)
    described = b"\0\x01c\0" + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0)

    def is_asked(tls: ssl.SSLSocket) -> None:
        _is_asked(tls)
        tls.sendall(message(b"T", described))

    behave = _Flood(row, first=is_asked)
    with (
        Impostor(authority, lambda tls, _: behave(tls)) as impostor,
        running_emulator(DATABASE_URL=_url(impostor, authority)) as emulator,
    ):
        before = emulator.peak_memory()
        assert _log_in(emulator) == 503
        assert emulator.peak_memory() - before < 8 * MAX_ANSWER
        assert "longer than any that is expected" in emulator.output()
    assert behave.sent < 2 * (MAX_ANSWER + BUFFERS)


@pytest.mark.parametrize("when", ["before the login", "after it"])
@pytest.mark.parametrize("kind", GARBLED)
def test_what_is_no_message_ends_the_connection(authority: Authority, kind: str, when: str) -> None:
    def behave(tls: ssl.SSLSocket) -> None:
        if when == "after it":
            _is_asked(tls)
        tls.sendall(GARBLED[kind] + READY)
        tls.recv(4096)

    with _pool(authority, behave) as pool:
        assert _failure(pool)


@pytest.mark.parametrize("length", [MAX_ANSWER, MAX_TRANSFER_ANSWER, 2**31 - 1])
def test_a_message_that_is_too_long_is_not_waited_for(authority: Authority, length: int) -> None:
    def behave(tls: ssl.SSLSocket) -> None:
        _is_asked(tls)
        tls.sendall(_header(b"D", length))
        tls.recv(4096)

    with _pool(authority, behave) as pool:
        assert "longer than any that is expected" in _failure(pool)


@pytest.mark.parametrize(
    "row",
    [
        b"\0\x01" + struct.pack("!i", -2),
        b"\0\x01" + struct.pack("!i", 4) + b"abc",
        b"\0\x01" + struct.pack("!i", 2) + b"abc",
        b"\0\x01" + struct.pack("!i", 2**31 - 1) + b"abc",
        b"\0\x01" + struct.pack("!i", 1) + b"\xff",
        b"\0\x01\0",
        b"",
    ],
)
def test_a_row_whose_lengths_do_not_add_up_is_no_answer(authority: Authority, row: bytes) -> None:
    def behave(tls: ssl.SSLSocket) -> None:
        _is_asked(tls)
        described = b"\0\x01c\0" + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0)
        tls.sendall(message(b"T", described) + message(b"D", row) + READY)
        tls.recv(4096)

    with _pool(authority, behave) as pool:
        assert "could not be read" in _failure(pool)


@pytest.mark.parametrize("oid", [114, 3802])
def test_json_that_is_nested_too_deeply_is_no_answer(authority: Authority, oid: int) -> None:
    value = b"[" * 100_000

    def behave(tls: ssl.SSLSocket) -> None:
        _is_asked(tls)
        described = b"\0\x01c\0" + struct.pack("!ihihih", 0, 0, oid, -1, -1, 0)
        row = b"\0\x01" + struct.pack("!i", len(value)) + value
        tls.sendall(message(b"T", described) + message(b"D", row) + READY)
        tls.recv(4096)

    with _pool(authority, behave) as pool:
        assert "could not be read" in _failure(pool)


@pytest.mark.parametrize(
    "encoding", [b"LATIN1", b"SQL_ASCII", b"nonsense", b"", b"\xff", b"utf-16"]
)
@pytest.mark.parametrize("when", ["before the login", "with it", "after it"])
def test_a_server_of_another_encoding_is_refused(
    authority: Authority, encoding: bytes, when: str
) -> None:
    status = _status(b"client_encoding", encoding)

    def behave(tls: ssl.SSLSocket) -> None:
        if when == "before the login":
            tls.sendall(status)
        log_in(tls, more=(status if when == "with it" else b"") + READY)
        tls.recv(4096)
        tls.sendall(status + READY)

    with _pool(authority, behave) as pool:
        assert "client_encoding" in _failure(pool)


def test_utf8_is_utf8_however_it_is_spelled(authority: Authority) -> None:
    def behave(tls: ssl.SSLSocket) -> None:
        log_in(tls, more=_status(b"client_encoding", b"utf-8") + READY)
        tls.recv(4096)
        tls.sendall(message(b"C", b"SELECT 0\0") + READY)

    with _pool(authority, behave) as pool:
        assert pool.execute("SELECT 1") == []


@pytest.mark.parametrize("request_code", [0, 3, 5, 10, 11, 12])
def test_who_is_logged_in_is_not_asked_again(authority: Authority, request_code: int) -> None:
    heard: list[bytes] = []

    def behave(tls: ssl.SSLSocket) -> None:
        _is_asked(tls)
        tls.sendall(authentication(request_code, b"SCRAM-SHA-256\0\0") + READY)
        heard.append(tls.recv(4096))

    with _pool(authority, behave) as pool:
        assert "could not be read" in _failure(pool)
    assert set(heard) <= {b"", message(b"X")}


def test_an_error_before_anything_else_is_told_to_the_log(authority: Authority) -> None:
    with _pool(authority, lambda tls: tls.sendall(error("28000", "no entry for you"))) as pool:
        assert "28000 no entry for you" in _failure(pool)


# What an operator and a user see of it


def _url(impostor: Impostor, authority: Authority) -> str:
    return (
        f"postgresql://u:canary@localhost:{impostor.port}/d?sslmode=verify-full"
        f"&sslrootcert={authority.certificate}"
    )


def _log_in(emulator: Emulator) -> int:
    with emulator.client() as client:
        body = {"email": "ada@example.com", "password": "correct horse"}
        return client.post("/api/login", json=body).status_code


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (authentication(3), "no password was sent: the server asks for it in clear text"),
        (authentication(0) + READY, "no password was sent: the server let us in without it"),
        (_header(b"S", 2**31 - 1), "longer than any that is expected"),
        (_status(b"client_encoding", b"nonsense"), "another client_encoding than UTF8"),
    ],
)
def test_a_false_server_is_503_outside_and_a_sentence_in_the_log(
    authority: Authority, answer: bytes, sentence: str
) -> None:
    def behave(tls: ssl.SSLSocket, _: int) -> None:
        tls.sendall(answer)
        tls.recv(4096)

    with (
        Impostor(authority, behave) as impostor,
        running_emulator(DATABASE_URL=_url(impostor, authority)) as emulator,
    ):
        assert _log_in(emulator) == 503
        assert sentence in emulator.output()
        assert "canary" not in emulator.output()


# What goes on


def test_the_bound_of_an_answer_is_for_requests_and_not_for_transfers(
    postgres: Server, database: str
) -> None:
    long = f"SELECT repeat('x', 1000) FROM generate_series(1, {MAX_ANSWER // 1000 + 100})"
    url = DatabaseUrl.parse(postgres.url(database))
    with closing(Database(url, SETTINGS)) as pool:
        with pytest.raises(StoreRefused, match="longer than any that is expected"):
            pool.execute(long)
        assert pool.execute("SELECT 1") == [[1]]
        with pool.direct_connection(time.monotonic() + SECONDS) as connection:
            for rows in (connection.execute(long), connection.run_script(long)):
                assert len(rows) * 1000 > MAX_ANSWER
            with pytest.raises(StoreRefused, match="longer than any that is expected"):
                connection.execute(long.replace("1000)", f"{MAX_TRANSFER_ANSWER})"))


def test_a_password_of_many_iterations_logs_in(
    postgres: Server, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = int(postgres.run("SHOW server_version_num")[0][0])
    if version < 160000:
        pytest.skip("scram_iterations came with PostgreSQL 16")
    postgres.run(
        f"SET scram_iterations = {MAX_ITERATIONS}; CREATE ROLE patient LOGIN PASSWORD 'patient'"
    )
    url = DatabaseUrl.parse(postgres.url(database, user="patient", password="patient"))
    with closing(Database(url, SETTINGS)) as pool:
        assert pool.execute("SELECT 1") == [[1]]
    monkeypatch.setattr(connections, "MAX_ITERATIONS", MAX_ITERATIONS - 1)
    with (
        closing(Database(replace(url), SETTINGS)) as pool,
        pytest.raises(StoreRefused, match="iterations"),
    ):
        pool.execute("SELECT 1")
