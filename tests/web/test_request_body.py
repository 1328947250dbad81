"""Which bodies are read, and which are refused, over real HTTP."""

from __future__ import annotations

import socket

import httpx
import pytest

from tests.support.emulator import Emulator
from tests.support.wire import JSON, LIMIT, exchange, filled


def _sound(client: httpx.Client) -> None:
    assert client.get("/api/livez").status_code == 200


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "cannot be parsed"),
        (b"{", "cannot be parsed"),
        (b"{} {}", "cannot be parsed"),
        (b"{'a': 1}", "cannot be parsed"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b'{"a": 1, "a": 2}', "names a member twice"),
        (b'{"x": {"a": 1, "a": 2}}', "names a member twice"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ('{"a": 1}'.encode("utf-16"), "not in UTF-8"),
        ('{"a": 1}'.encode("utf-16-le"), "cannot be parsed"),
        (b'{"a": "\xff"}', "not in UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "not in UTF-8"),
        (b'{"email": "\\ud800", "password": "x"}', "half of a surrogate pair"),
        (b'{"x": [{"\\udc00": 1}]}', "half of a surrogate pair"),
        (b'{"email": "a\\u0000b", "password": "x"}', "NUL"),
        (b'{"a": "\x00"}', "cannot be parsed"),
        (b'{"x": ' + b"[" * 5000 + b"]" * 5000 + b"}", "nested too deeply"),
        (b'{"x": ' + b'{"a":' * 2000 + b"1" + b"}" * 2000 + b"}", "nested too deeply"),
        (b'{"x": ' + b"9" * 5000 + b"}", "cannot be parsed"),
        (b'{"x": 1e999}', "too large"),
        (b"[]", "must be an object"),
        (b'"text"', "must be an object"),
        (b"null", "must be an object"),
        (b"true", "must be an object"),
    ],
)
def test_what_is_no_strict_json_object_is_400_with_a_sentence(
    emulator: Emulator, body: bytes, sentence: str
) -> None:
    with emulator.client() as client:
        response = client.post("/api/login", content=body, headers=JSON)
        assert response.status_code == 400
        problem = response.json()
        assert problem["code"] == "invalid_json"
        assert sentence in problem["error"]
        _sound(client)


def test_a_pair_of_surrogates_is_a_character(emulator: Emulator, address: str) -> None:
    body = b'{"email": "%s", "password": "\\ud83d\\ude00 horse battery"}' % address.encode()
    with emulator.client() as client:
        assert client.post("/api/signup", content=body, headers=JSON).status_code == 201
        credentials = {"email": address, "password": "😀 horse battery"}
        assert client.post("/api/login", json=credentials).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/problem+json"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
def test_a_body_that_is_not_declared_as_plain_json_is_415(
    emulator: Emulator, headers: dict[str, str]
) -> None:
    with emulator.client() as client:
        for path in ("/api/login", "/api/signup", "/api/logout"):
            response = client.post(path, content=b"{}", headers=headers)
            assert response.status_code == 415
            assert response.json()["error"]


def test_a_body_may_have_16_kib_and_not_a_byte_more(emulator: Emulator) -> None:
    with emulator.client() as client:
        fits = client.post("/api/login", content=filled(LIMIT), headers=JSON)
        assert fits.status_code == 401
        for size in (LIMIT + 1, 1_000_000):
            response = client.post("/api/login", content=filled(size), headers=JSON)
            assert response.status_code == 413
            assert response.json()["code"] == "body_too_large"
    # The server may have closed the connection instead of reading on.
    with emulator.client() as client:
        _sound(client)


def test_a_chunked_body_over_the_limit_is_413_as_well(emulator: Emulator) -> None:
    with emulator.client() as client:
        for size in (LIMIT + 1, 3_000_000):
            chunks = (b"x" * 1000 for _ in range(size // 1000 + 1))
            response = client.post("/api/login", content=chunks, headers=JSON)
            assert response.status_code == 413
    with emulator.client() as client:
        fits = client.post("/api/login", content=iter([filled(LIMIT)]), headers=JSON)
        assert fits.status_code == 401
        _sound(client)


def test_a_body_where_none_belongs_is_bounded_too(emulator: Emulator) -> None:
    with emulator.client() as client:
        response = client.request("GET", "/api/user", content=b"x" * 1_000_000)
        assert response.status_code == 413


def test_a_body_that_ends_early_is_400_and_not_taken_for_a_whole_one(emulator: Emulator) -> None:
    body = b'{"email": "early@example.com", "password": "correct horse"}'
    head = (
        b"POST /api/signup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 200\r\n\r\n"
    )
    host, port = emulator.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head + body)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")


def test_a_client_that_hangs_up_within_its_body_harms_nobody(emulator: Emulator) -> None:
    host, port = emulator.url.removeprefix("http://").split(":")
    for _ in range(3):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(
                b"POST /api/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: 100\r\n\r\n{"
            )
    with emulator.client() as client:
        _sound(client)
    assert not [line for line in emulator.log() if line.get("status") == 500]


@pytest.mark.parametrize("chunks", [b"zz\r\n{}\r\n0\r\n\r\n", b"2\r\n{}xx", b"-1\r\n\r\n"])
def test_a_malformed_chunk_is_400(emulator: Emulator, chunks: bytes) -> None:
    head = (
        b"POST /api/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    assert exchange(emulator, head + chunks).startswith(b"HTTP/1.1 400 ")
    other = head.replace(b"POST", b"PUT")
    assert exchange(emulator, other + chunks).startswith(b"HTTP/1.1 405 ")


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"POST /api/login", b"413"),
        (b"PUT /api/login", b"405"),
        (b"POST /api/nothing", b"404"),
        (b"GET /robots.txt", b"404"),
    ],
)
def test_a_refused_request_is_answered_without_waiting_for_its_body(
    emulator: Emulator, line: bytes, status: bytes
) -> None:
    head = b" HTTP/1.1\r\nHost: x\r\nContent-Length: 200000000\r\n\r\n"
    assert exchange(emulator, line + head).startswith(b"HTTP/1.1 " + status)
