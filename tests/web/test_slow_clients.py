"""Clients that do not end their requests, or do not read: nobody waits for them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

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
    line_of,
    post,
    server,
    stream,
)

MANY = 200
JSON = b"Content-Type: application/json\r\n"
PARTIAL = {
    "nothing": b"",
    "a byte": b"G",
    "half a head": LIVEZ[:-4],
    "half a body": post("/api/login", JSON[:-2], b"Content-Length: 100") + b"{",
    "half a chunk": post("/api/login", JSON[:-2], b"Transfer-Encoding: chunked") + b"fff\r\n{",
    "less than a large chunk": (
        post("/api/login", JSON[:-2], b"Transfer-Encoding: chunked") + b"fffffff\r\n" + b"x" * 9000
    ),
    "half a body for nobody": post("/api/nothing", b"Content-Length: 100") + b"{",
}


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator with the settings that it has by default."""
    with server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator that waits for longer than any test."""
    with server(tmp_path_factory.mktemp("patient"), REQUEST_TIMEOUT="300") as running:
        yield running


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator that waits for a second only, with a streamed endpoint."""
    with running_emulator(
        "routed",
        source=f"{ROOT}/tests/support/admin_functions.py",
        ADMIN_TOKEN=TOKEN,
        THREADS=str(THREADS),
        USERS_FILE=str(tmp_path_factory.mktemp("hasty") / "users.json"),
        REQUEST_TIMEOUT="1",
        STREAM_TIMEOUT="1",
        KEEP_ALIVE_TIMEOUT="1",
    ) as running:
        yield running


def _is_idle(emulator: Emulator) -> bool:
    before = len(emulator.output())
    time.sleep(0.5)  # Whoever is being answered writes a line in it.
    return len(emulator.output()) == before


@pytest.mark.parametrize("name", PARTIAL)
def test_many_clients_that_do_not_end_their_requests_keep_nobody_from_an_answer(
    patient: Emulator, name: str
) -> None:
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(patient)) for _ in range(MANY)]
        for wire in wires:
            wire.send(PARTIAL[name])
        everybody_is_answered(patient)
        # They were there all the time.
        for wire in wires:
            wire.socket.setblocking(False)
            with pytest.raises(BlockingIOError):
                wire.socket.recv(1)


@pytest.mark.parametrize("name", [name for name in PARTIAL if name != "nothing"])
def test_a_request_that_has_not_arrived_in_time_is_408_however_it_drips(
    hasty: Emulator, name: str
) -> None:
    with Wire(hasty) as wire:
        wire.send(PARTIAL[name])
        with dripping([wire]):
            problem = wire.answer().problem()
            assert (problem["status"], problem["code"]) == (408, "request_timeout")
            assert wire.is_closed()
    assert line_of(hasty, problem["request_id"])["status"] == 408


def test_a_connection_without_a_request_is_closed_without_a_word(hasty: Emulator) -> None:
    with Wire(hasty) as wire:
        assert wire.is_closed()
    with Wire(hasty) as wire:
        wire.send(LIVEZ)
        assert wire.answer().headers["connection"] == "keep-alive"
        assert wire.is_closed()


def test_a_connection_may_be_idle_for_longer_than_a_few_seconds(emulator: Emulator) -> None:
    with Wire(emulator) as wire:
        wire.send(LIVEZ)
        assert wire.answer().status == 200
        time.sleep(3.5)  # gunicorn's own 2 seconds, and the second until it looks
        wire.send(LIVEZ)
        assert wire.answer().status == 200


def test_the_rest_of_a_request_may_come_later_and_others_behind_it(emulator: Emulator) -> None:
    requests = post("/api/login", JSON[:-2], b"Content-Length: 2") + b"{}" + LIVEZ * 2
    for cut in range(0, len(requests) + 1, 7):
        with Wire(emulator) as wire:
            wire.send(requests[:cut])
            wire.send(requests[cut:])
            assert [wire.answer().status for _ in range(3)] == [400, 200, 200]


def test_a_client_that_waits_to_be_told_to_go_on_is_told_so_once(emulator: Emulator) -> None:
    for framing_field, body in (
        (b"Content-Length: 2", b"{}"),
        (b"Transfer-Encoding: chunked", b"2\r\n{}\r\n0\r\n\r\n"),
    ):
        with Wire(emulator) as wire:
            wire.send(post("/api/login", JSON[:-2], framing_field, b"Expect: 100-continue"))
            assert wire.answer().status == 100
            wire.send(body + LIVEZ)
            assert [wire.answer().status for _ in range(2)] == [400, 200]


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_streamed_body_may_take_as_long_as_it_likes_while_it_does_not_fall_silent(
    hasty: Emulator, is_chunked: bool
) -> None:
    pieces = [b"x" * 17_000, *[b"x" * 100] * 8]
    length = sum(map(len, pieces))
    if is_chunked:
        pieces = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
        pieces.append(b"0\r\n\r\n")
    field = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % length
    with Wire(hasty) as wire:
        wire.send(stream(field))
        for piece in pieces:
            wire.send(piece)
            time.sleep(0.2)
        assert b'"bytes": %d' % length in wire.until(b"done")


def test_a_streamed_body_that_falls_silent_is_over(hasty: Emulator) -> None:
    with Wire(hasty) as wire:
        wire.send(stream(b"Content-Length: 20000") + b"x" * 10)
        problem = wire.answer().problem()
        assert (problem["status"], problem["code"]) == (408, "request_timeout")
        assert wire.is_closed()
    with Wire(hasty) as wire:
        wire.send(stream(b"Transfer-Encoding: chunked") + b"fffff\r\n" + b"x" * 20_000)
        assert b'"code": "request_timeout"' in wire.until(b'"error"')


def test_clients_that_read_no_answers_keep_nobody_from_theirs(tmp_path: Path) -> None:
    with (
        server(tmp_path, SIGN_IN_PAGE="true", REQUEST_TIMEOUT="300") as emulator,
        ExitStack() as stack,
    ):
        for _ in range(THREADS):
            wire = stack.enter_context(Wire(emulator, receive_buffer=4096))
            wire.send(b"GET /sign-in.js HTTP/1.1\r\nHost: x\r\n\r\n" * 1500)
        until(lambda: _is_idle(emulator), 60)
        everybody_is_answered(emulator)


def test_more_connections_than_there_may_be_cost_those_that_wait_longest(tmp_path: Path) -> None:
    with server(tmp_path, files="256", REQUEST_TIMEOUT="300") as emulator, ExitStack() as stack:
        for _ in range(400):
            wire = stack.enter_context(Wire(emulator))
            wire.send(LIVEZ[:-4])
        everybody_is_answered(emulator)
        assert emulator.descriptors() < 200
        # Who has only just come is not among them, although no byte has come yet.
        with Wire(emulator) as late:
            for _ in range(30):
                stack.enter_context(Wire(emulator)).send(b"G")
            everybody_is_answered(emulator, 1)
            late.send(LIVEZ)
            assert late.answer().status == 200


def test_clients_that_do_not_end_their_requests_do_not_keep_it_from_stopping(
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        with server(tmp_path, REQUEST_TIMEOUT="300", KEEP_ALIVE_TIMEOUT="300") as emulator:
            for data in (*PARTIAL.values(), LIVEZ):
                stack.enter_context(Wire(emulator)).send(data)
            everybody_is_answered(emulator, 1)
            started = time.monotonic()
            emulator.stop()
        assert emulator.process.returncode == 0
        assert time.monotonic() - started < 20  # gunicorn's grace is 30 seconds
