"""What a false or odd server gets from us: no password, no memory, no time beyond the deadline."""

from __future__ import annotations

import ssl
import struct
import time
from contextlib import closing
from dataclasses import replace

import pytest

from shared.database import connection as connections
from shared.database.connection import MAX_ITERATIONS, MAX_TRANSFER_ANSWER
from shared.database.pool import Database
from shared.database.session import MAX_ANSWER
from shared.database.url import DatabaseUrl
from shared.errors import StoreRefused
from tests.support.certificates import Authority
from tests.support.emulator import Emulator, running_emulator
from tests.support.false_servers import (
    BUFFERS,
    SECONDS,
    SETTINGS,
    Flood,
    be_asked,
    header,
    parameter,
)
from tests.support.impostor import READY, Impostor, authentication, message
from tests.support.postgres import Server


def test_endless_rows_take_no_memory(authority: Authority) -> None:
    row = message(b"D", b"\0\x01" + struct.pack("!i", 1000) + b"x" * 1000)
    described = b"\0\x01c\0" + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0)

    def is_asked(tls: ssl.SSLSocket) -> None:
        be_asked(tls)
        tls.sendall(message(b"T", described))

    behave = Flood(row, first=is_asked)
    with (
        Impostor(authority, lambda tls, _: behave(tls)) as impostor,
        running_emulator(DATABASE_URL=_url(impostor, authority)) as emulator,
    ):
        before = emulator.peak_memory()
        assert _log_in(emulator) == 503
        assert emulator.peak_memory() - before < 8 * MAX_ANSWER
        assert "longer than any expected answer" in emulator.output()
    assert behave.sent < 2 * (MAX_ANSWER + BUFFERS)


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
        (header(b"S", 2**31 - 1), "longer than any expected answer"),
        (parameter(b"client_encoding", b"nonsense"), "another client_encoding than UTF8"),
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


def test_the_bound_of_an_answer_is_for_requests_and_not_for_transfers(
    postgres: Server, database: str
) -> None:
    long = f"SELECT repeat('x', 1000) FROM generate_series(1, {MAX_ANSWER // 1000 + 100})"
    url = DatabaseUrl.parse(postgres.url(database))
    with closing(Database(url, SETTINGS)) as pool:
        with pytest.raises(StoreRefused, match="longer than any expected answer"):
            pool.execute(long)
        assert pool.execute("SELECT 1") == [[1]]
        with pool.direct_connection(time.monotonic() + SECONDS) as connection:
            for rows in (connection.execute(long), connection.run_script(long)):
                assert len(rows) * 1000 > MAX_ANSWER
            with pytest.raises(StoreRefused, match="longer than any expected answer"):
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
