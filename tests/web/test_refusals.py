"""Refusals of requests that are still being sent: the last answer, and no thread is held."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.emulator import ROOT, Emulator, running_emulator
from tests.support.waiting import until
from tests.support.wire import (
    LIVEZ,
    THREADS,
    TOKEN,
    Wire,
    dripping,
    everybody_is_answered,
    post,
    stream,
)

JSON = b"Content-Type: application/json\r\n"


_BIG = b"Content-Length: 100000000"
_ADMIN = b"Authorization: Bearer " + TOKEN.encode()
REFUSALS: dict[str, tuple[bytes, int]] = {
    "401": (stream(_BIG, token="wrong"), 401),
    "403": (post("/api/login", b"Origin: https://evil.example", JSON[:-2], _BIG), 403),
    "404": (post("/api/nothing", _BIG), 404),
    "404 of the framework": (post("/robots.txt", _BIG), 404),
    "405": (post("/api/user", _BIG), 405),
    "413": (post("/api/login", JSON[:-2], _BIG), 413),
    "413 of a stream": (stream(b"Content-Length: 9999999999"), 413),
    "413, chunked": (
        post("/api/login", JSON[:-2], b"Transfer-Encoding: chunked")
        + b"fffffff\r\n"
        + b"x" * 20_000,
        413,
    ),
    "415": (post("/api/digest", _ADMIN, b"Content-Type: text/plain", _BIG), 415),
    "417": (post("/api/login", b"Expect: more", _BIG), 417),
    "431": (post("/api/login", _BIG, b"X: " + b"y" * 9000), 431),
    "a preflight": (
        post("/api/login", b"Origin: https://app.example.com", _BIG).replace(b"POST", b"OPTIONS"),
        413,
    ),
    "a GET": (post("/api/livez", _BIG).replace(b"POST", b"GET"), 413),
    "a HEAD": (post("/api/livez", _BIG).replace(b"POST", b"HEAD"), 413),
}


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator with an administrator and an allowed origin, and the usual deadlines."""
    with running_emulator(
        "routed",
        source=f"{ROOT}/tests/support/admin_functions.py",
        ADMIN_TOKEN=TOKEN,
        ALLOWED_ORIGINS="https://app.example.com",
        THREADS=str(THREADS),
        USERS_FILE=str(tmp_path_factory.mktemp("refusing") / "users.json"),
    ) as running:
        yield running


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_before_the_body_says_that_it_is_the_last_answer_and_holds_no_thread(
    refusing: Emulator, name: str
) -> None:
    head, status = REFUSALS[name]
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(refusing)) for _ in range(2 * THREADS)]
        for wire in wires:
            wire.send(head)
        for wire in wires[:-1]:
            line, *fields = wire.until(b"\r\n\r\n").split(b"\r\n")
            assert line.startswith(b"HTTP/1.1 %d " % status)
            assert b"Connection: close" in fields
        with dripping(wires):
            everybody_is_answered(refusing, 1)


def test_the_drops_of_whom_it_has_refused_are_ended(refusing: Emulator) -> None:
    """But for the patience that lets a client read its answer; of each kind one does not."""
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(refusing)) for _ in (*REFUSALS, *REFUSALS)]
        for wire, (head, _) in zip(wires, [*REFUSALS.values()] * 2, strict=True):
            wire.send(head)
        for wire in wires[: len(REFUSALS)]:
            wire.until(b"\r\n\r\n")
        with dripping(wires):
            everybody_is_answered(refusing, 1)
            started = time.monotonic()
            until(lambda: not any(wire.send(b"x") for wire in wires))
            assert time.monotonic() - started < 20


def test_who_sends_on_after_a_refusal_can_still_read_it(refusing: Emulator) -> None:
    for size in (100_000, 5_000_000):
        with refusing.client() as client:
            response = client.post("/api/login", content=b"x" * size)
            assert response.status_code == 413
            assert response.headers["Connection"] == "close"
            # The client has been told, and so takes another connection.
            assert client.get("/api/livez").status_code == 200


@pytest.mark.parametrize("path", ["/api/login", "/api/nothing", "/robots.txt", "/api/user"])
def test_a_refusal_of_a_small_request_keeps_the_connection(refusing: Emulator, path: str) -> None:
    with Wire(refusing) as wire:
        wire.send(post(path, b"Content-Length: 3") + b"xyz" + LIVEZ)
        answer = wire.answer()
        assert answer.status in (404, 405, 415)
        assert answer.headers["connection"] == "keep-alive"
        assert wire.answer().status == 200


def test_what_is_malformed_behind_an_answer_gets_none_of_its_own(refusing: Emulator) -> None:
    with Wire(refusing) as wire:
        wire.send(post("/api/user", b"Transfer-Encoding: chunked") + b"0\r\n: x\r\n\r\n" + LIVEZ)
        assert wire.answer().status == 405
        assert wire.is_closed()
