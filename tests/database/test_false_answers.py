"""What is no answer, or too long, or in another encoding, ends the connection."""

from __future__ import annotations

import ssl
import struct

import pytest

from shared.database.connection import MAX_LOGIN, MAX_TRANSFER_ANSWER
from shared.database.session import MAX_ANSWER
from tests.support.certificates import Authority
from tests.support.false_servers import (
    BUFFERS,
    Flood,
    be_asked,
    failure,
    header,
    lied_to,
    parameter,
)
from tests.support.impostor import READY, authentication, error, log_in, message

NOTICE = message(b"N", b"SNOTICE\0C00000\0M" + b"x" * 4000 + b"\0\0")
NOTIFICATION = message(b"A", b"\0\0\0\x01channel\0" + b"\xff" * 4000 + b"\0")
FLOODS = {
    "notices": NOTICE,
    "notifications": NOTIFICATION,
    "parameters": parameter(b"x" * 2000, b"y" * 2000),
    "rows": message(b"D", b"\0\0") * 100,
    "descriptions": message(b"T", b"\0\0" + b"x" * 4000),
    "completions": message(b"C", b"x" * 4000 + b"\0"),
    "errors": error("42000", "x" * 4000),
}
GARBLED = {
    "no length": header(b"Z", 0),
    "length of -1": header(b"D", -1),
    "least length": header(b"S", -(2**31)),
    "greatest length": header(b"S", 2**31 - 1),
    "an unknown message": message(b"?"),
    "another protocol": b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n",
    "no end": message(b"E", b"SFATAL"),
    "a position that is none": message(b"E", b"C42000\0Pnowhere\0\0"),
    "COPY": message(b"G", b"\0\0\0"),
    "COPY to us": message(b"H", b"\0\0\0"),
    "data of a COPY": message(b"d", b"x"),
}  # fmt: skip


def _is_new(_: ssl.SSLSocket) -> None:
    """Speak first."""


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_during_a_login_ends_it(authority: Authority, flood: str) -> None:
    behave = Flood(FLOODS[flood], first=_is_new)
    with lied_to(authority, behave) as pool:
        assert failure(pool)
    assert behave.sent < 4 * (MAX_LOGIN + BUFFERS)


@pytest.mark.parametrize("flood", [name for name in FLOODS if name != "rows"])
def test_a_flood_instead_of_an_answer_ends_the_connection(authority: Authority, flood: str) -> None:
    behave = Flood(FLOODS[flood], first=be_asked)
    with lied_to(authority, behave) as pool:
        assert "longer than any expected answer" in failure(pool)
    assert behave.sent < MAX_ANSWER + BUFFERS


@pytest.mark.parametrize("when", ["before the login", "after it"])
@pytest.mark.parametrize("kind", GARBLED)
def test_what_is_no_message_ends_the_connection(authority: Authority, kind: str, when: str) -> None:
    def behave(tls: ssl.SSLSocket) -> None:
        if when == "after it":
            be_asked(tls)
        tls.sendall(GARBLED[kind] + READY)
        tls.recv(4096)

    with lied_to(authority, behave) as pool:
        assert failure(pool)


@pytest.mark.parametrize("length", [MAX_ANSWER, MAX_TRANSFER_ANSWER, 2**31 - 1])
def test_a_message_that_is_too_long_is_not_waited_for(authority: Authority, length: int) -> None:
    def behave(tls: ssl.SSLSocket) -> None:
        be_asked(tls)
        tls.sendall(header(b"D", length))
        tls.recv(4096)

    with lied_to(authority, behave) as pool:
        assert "longer than any expected answer" in failure(pool)


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
        be_asked(tls)
        described = b"\0\x01c\0" + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0)
        tls.sendall(message(b"T", described) + message(b"D", row) + READY)
        tls.recv(4096)

    with lied_to(authority, behave) as pool:
        assert "could not be read" in failure(pool)


@pytest.mark.parametrize("length", [200, 8192], ids=["in a buffer", "in TLS"])
def test_what_is_said_unasked_is_nobodys_answer(authority: Authority, length: int) -> None:
    """It has come with the true answer, and waits where no poll of the socket sees it."""
    heard: list[bytes] = []

    def says(text: bytes) -> bytes:
        described = b"\0\x01c\0" + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0)
        row = message(b"D", b"\0\x01" + struct.pack("!i", len(text)) + text)
        settings = message(b"D", b"\0\0")
        return settings + message(b"T", described) + row + message(b"C", b"SELECT 1\0") + READY

    def behave(tls: ssl.SSLSocket) -> None:
        be_asked(tls)
        tls.sendall(says(true) + says(b"false"))
        heard.append(tls.recv(4096))

    true = b"x" * (length - len(says(b"")))
    with lied_to(authority, behave) as pool:
        for _ in range(3):
            assert pool.execute("SELECT 1") == [[true.decode()]]
    assert heard == [message(b"X")] * 3


@pytest.mark.parametrize("oid", [114, 3802])
def test_json_that_is_nested_too_deeply_is_no_answer(authority: Authority, oid: int) -> None:
    value = b"[" * 100_000

    def behave(tls: ssl.SSLSocket) -> None:
        be_asked(tls)
        described = b"\0\x01c\0" + struct.pack("!ihihih", 0, 0, oid, -1, -1, 0)
        row = b"\0\x01" + struct.pack("!i", len(value)) + value
        tls.sendall(message(b"T", described) + message(b"D", row) + READY)
        tls.recv(4096)

    with lied_to(authority, behave) as pool:
        assert "could not be read" in failure(pool)


@pytest.mark.parametrize(
    "encoding", [b"LATIN1", b"SQL_ASCII", b"nonsense", b"", b"\xff", b"utf-16"]
)
@pytest.mark.parametrize("when", ["before the login", "with it", "after it"])
def test_a_server_of_another_encoding_is_refused(
    authority: Authority, encoding: bytes, when: str
) -> None:
    status = parameter(b"client_encoding", encoding)

    def behave(tls: ssl.SSLSocket) -> None:
        if when == "before the login":
            tls.sendall(status)
        log_in(tls, more=(status if when == "with it" else b"") + READY)
        tls.recv(4096)
        tls.sendall(status + READY)

    with lied_to(authority, behave) as pool:
        assert "client_encoding" in failure(pool)


def test_utf8_is_utf8_however_it_is_spelled(authority: Authority) -> None:
    def behave(tls: ssl.SSLSocket) -> None:
        log_in(tls, more=parameter(b"client_encoding", b"utf-8") + READY)
        tls.recv(4096)
        tls.sendall(message(b"C", b"SELECT 0\0") + READY)

    with lied_to(authority, behave) as pool:
        assert pool.execute("SELECT 1") == []


@pytest.mark.parametrize("request_code", [0, 3, 5, 10, 11, 12])
def test_who_is_logged_in_is_not_asked_again(authority: Authority, request_code: int) -> None:
    heard: list[bytes] = []

    def behave(tls: ssl.SSLSocket) -> None:
        be_asked(tls)
        tls.sendall(authentication(request_code, b"SCRAM-SHA-256\0\0") + READY)
        heard.append(tls.recv(4096))

    with lied_to(authority, behave) as pool:
        assert "could not be read" in failure(pool)
    assert set(heard) <= {b"", message(b"X")}


def test_an_error_before_anything_else_is_told_to_the_log(authority: Authority) -> None:
    with lied_to(authority, lambda tls: tls.sendall(error("28000", "no entry for you"))) as pool:
        assert "28000 no entry for you" in failure(pool)
