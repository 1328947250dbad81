"""What no client can do to the server: hold its threads, its memory, or get an answer in HTML."""

from __future__ import annotations

import json
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from functions_framework._http.gunicorn import GunicornApplication
from gunicorn.glogging import Logger
from gunicorn.http.unreader import Unreader
from gunicorn.workers.gthread import ThreadWorker

from tests.support.emulator import ROOT, Emulator, running_emulator
from tests.support.waiting import until
from tests.support.wire import Wire

THREADS = 8
MANY = 200
PASSWORD = "correct horse battery staple"
TOKEN = "QWRtaW4gb2YgdGhlIHRlc3RzLCBub2JvZHkgZWxzZSBhdCBhbGw"
LIVEZ = b"GET /api/livez HTTP/1.1\r\nHost: x\r\n\r\n"
JSON = b"Content-Type: application/json\r\n"
SECONDS = 0.1
"""Between two bytes of a client that drips."""


def _post(path: str, *fields: bytes) -> bytes:
    head = b"POST %s HTTP/1.1\r\nHost: x\r\n" % path.encode()
    return head + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


PARTIAL = {
    "nothing": b"",
    "a byte": b"G",
    "half a head": LIVEZ[:-4],
    "half a body": _post("/api/login", JSON[:-2], b"Content-Length: 100") + b"{",
    "half a chunk": _post("/api/login", JSON[:-2], b"Transfer-Encoding: chunked") + b"fff\r\n{",
    "less than a large chunk": (
        _post("/api/login", JSON[:-2], b"Transfer-Encoding: chunked") + b"fffffff\r\n" + b"x" * 9000
    ),
    "half a body for nobody": _post("/api/nothing", b"Content-Length: 100") + b"{",
}


def _running(folder: Path, target: str = "api", **more: str) -> Any:
    settings = {"THREADS": str(THREADS), "USERS_FILE": str(folder / "users.json")}
    return running_emulator(target, **settings | more)


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator with the settings that it has by default."""
    with _running(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator that waits for longer than any test."""
    with _running(tmp_path_factory.mktemp("patient"), REQUEST_TIMEOUT="300") as running:
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


@contextmanager
def _dripping(wires: list[Wire]) -> Iterator[None]:
    """Send a byte on each connection, again and again."""
    is_over = threading.Event()

    def drip() -> None:
        while not is_over.wait(SECONDS):
            for wire in wires:
                wire.send(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _everybody_is_answered(emulator: Emulator, rounds: int = 3) -> None:
    """See that probes and logins are served, each on a connection of its own."""
    for _ in range(rounds):
        with emulator.client(timeout=10) as client:
            assert client.get("/api/livez").status_code == 200
            credentials = {"email": "ada@example.com", "password": PASSWORD}
            assert client.post("/api/login", json=credentials).status_code == 401


def _line(emulator: Emulator, request_id: str) -> dict[str, Any]:
    (line,) = until(lambda: [x for x in emulator.log() if x.get("request_id") == request_id])
    return line


def _is_idle(emulator: Emulator) -> bool:
    before = len(emulator.output())
    time.sleep(0.5)  # Whoever is being answered writes a line in it.
    return len(emulator.output()) == before


# Limits, and what gunicorn refuses.


@pytest.mark.parametrize("target", ["api", "login"])
def test_a_request_line_may_have_8190_bytes_and_not_a_byte_more(
    tmp_path: Path, target: str
) -> None:
    frame = b"GET / HTTP/1.1"
    with _running(tmp_path, target) as emulator:
        for more in (0, 1, 10_000):
            with Wire(emulator) as wire:
                line = b"GET /" + b"a" * (8190 - len(frame) + more) + b" HTTP/1.1\r\n"
                wire.send(line + b"Host: x\r\n\r\n")
                answer = wire.answer()
                if not more:
                    assert answer.status != 414
                    continue
                assert (answer.status, answer.problem()["code"]) == (414, "uri_too_long")
                assert answer.headers["connection"] == "close"


def test_a_line_without_an_end_is_refused_at_its_limit_and_not_collected(
    emulator: Emulator,
) -> None:
    before = emulator.peak_memory()
    with Wire(emulator) as wire:
        wire.send(b"GET /")
        for _ in range(160):
            wire.send(b"a" * 100_000)
        assert wire.answer().status == 414
        assert wire.is_closed()
    assert emulator.peak_memory() - before < 8_000_000


HEAD = b"GET /api/livez HTTP/1.1\r\nHost: x\r\n"
REFUSED: dict[str, tuple[bytes, int, str]] = {
    "no HTTP": (b"hello\r\n\r\n", 400, "bad_request"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n", 400, "bad_request"),
    "a method in lower case": (b"get / HTTP/1.1\r\n\r\n", 400, "bad_request"),
    "a byte that is no part of a URL": (b"GET /\xff HTTP/1.1\r\n\r\n", 400, "bad_request"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "bad_request"),
    "HTTP/3.0": (b"GET / HTTP/3.0\r\n\r\n", 400, "bad_request"),
    "a bare line feed": (b"GET /api/livez HTTP/1.1\nHost: x\n\n", 400, "bad_request"),
    "a bare line feed in a field": (HEAD + b"X: y\nZ: 1\r\n", 400, "bad_request"),
    "a field without a colon": (HEAD + b"x\r\n\r\n", 400, "bad_request"),
    "a folded field": (HEAD + b"X: y\r\n z\r\n\r\n", 400, "bad_request"),
    "NUL in a field": (HEAD + b"X: \x00\r\n\r\n", 400, "bad_request"),
    "two hosts": (HEAD + b"Host: y\r\n\r\n", 400, "bad_request"),
    "two lengths": (HEAD + b"Content-Length: 0\r\n" * 2 + b"\r\n", 400, "bad_request"),
    "length and chunks": (
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "bad_request",
    ),
    "an unknown coding": (HEAD + b"Transfer-Encoding: x\r\n\r\n", 501, "not_implemented"),
    "an unknown expectation": (HEAD + b"Expect: x\r\n\r\n", 417, "expectation_failed"),
    "101 fields": (HEAD + b"X: y\r\n" * 100 + b"\r\n", 431, "headers_too_large"),
    "a field of 16 KB": (HEAD + b"X: " + b"y" * 16_000 + b"\r\n\r\n", 431, "headers_too_large"),
    "fields of 1 MB": (HEAD + b"X: y" + b"y" * 1_000_000, 431, "headers_too_large"),
    "fields of 40 KB": (
        HEAD + b"".join(b"X: " + b"y" * 8000 + b"\r\n" for _ in range(5)) + b"\r\n",
        431,
        "headers_too_large",
    ),
    "more chunk extensions than body": (
        _post("/api/login", b"Transfer-Encoding: chunked") + b"1;" + b"x" * 100_000,
        413,
        "body_too_large",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_function_sees_is_refused_in_json_and_logged(emulator: Emulator, name: str) -> None:
    data, status, code = REFUSED[name]
    with Wire(emulator) as wire:
        wire.send(data)
        answer = wire.answer()
        assert wire.is_closed()
    problem = answer.problem()
    assert (answer.status, problem["status"], problem["code"]) == (status, status, code)
    assert problem["error"] == problem["detail"] != ""
    assert answer.headers["connection"] == "close"
    assert answer.headers["x-request-id"] == problem["request_id"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    line = _line(emulator, problem["request_id"])
    assert (line["message"], line["status"], line["code"]) == (f"none {status}", status, code)
    assert all(text.startswith("{") for text in emulator.output().splitlines())


def test_an_upgrade_to_http_2_is_not_taken(emulator: Emulator) -> None:
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    with Wire(emulator) as wire:
        wire.send(LIVEZ[:-2] + upgrade + b"\r\n")
        assert wire.answer().status == 200


def test_the_server_leaves_nothing_behind_and_logs_in_json_only(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with _running(tmp_path, HOME=str(home), GUNICORN_LOG_LEVEL="info") as emulator:
        _everybody_is_answered(emulator, 1)
        lines = [json.loads(line) for line in emulator.output().splitlines()]
    assert any(line["message"].startswith("Listening at") for line in lines)
    assert not list(home.iterdir())  # gunicorn's control socket would be here


# Clients that do not end their requests.


@pytest.mark.parametrize("name", PARTIAL)
def test_many_clients_that_do_not_end_their_requests_keep_nobody_from_an_answer(
    patient: Emulator, name: str
) -> None:
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(patient)) for _ in range(MANY)]
        for wire in wires:
            wire.send(PARTIAL[name])
        _everybody_is_answered(patient)
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
        with _dripping([wire]):
            problem = wire.answer().problem()
            assert (problem["status"], problem["code"]) == (408, "request_timeout")
            assert wire.is_closed()
    assert _line(hasty, problem["request_id"])["status"] == 408


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
    requests = _post("/api/login", JSON[:-2], b"Content-Length: 2") + b"{}" + LIVEZ * 2
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
            wire.send(_post("/api/login", JSON[:-2], framing_field, b"Expect: 100-continue"))
            assert wire.answer().status == 100
            wire.send(body + LIVEZ)
            assert [wire.answer().status for _ in range(2)] == [400, 200]


# Streamed bodies.


def _stream(*fields: bytes, token: str = TOKEN) -> bytes:
    bearer = b"Authorization: Bearer " + token.encode()
    return _post("/api/digest", bearer, b"Content-Type: application/x-ndjson", *fields)


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_streamed_body_may_take_as_long_as_it_likes_while_it_does_not_fall_silent(
    hasty: Emulator, is_chunked: bool
) -> None:
    pieces = [b"x" * 17_000, *[b"x" * 100] * 15]
    length = sum(map(len, pieces))
    if is_chunked:
        pieces = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
        pieces.append(b"0\r\n\r\n")
    field = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % length
    with Wire(hasty) as wire:
        wire.send(_stream(field))
        for piece in pieces:
            wire.send(piece)
            time.sleep(0.2)
        assert b'"bytes": %d' % length in wire.until(b"done")


def test_a_streamed_body_that_falls_silent_is_over(hasty: Emulator) -> None:
    with Wire(hasty) as wire:
        wire.send(_stream(b"Content-Length: 20000") + b"x" * 10)
        problem = wire.answer().problem()
        assert (problem["status"], problem["code"]) == (408, "request_timeout")
        assert wire.is_closed()
    with Wire(hasty) as wire:
        wire.send(_stream(b"Transfer-Encoding: chunked") + b"fffff\r\n" + b"x" * 20_000)
        assert b'"code": "request_timeout"' in wire.until(b'"error"')


# Refusals of requests that are still being sent.

_BIG = b"Content-Length: 100000000"
_ADMIN = b"Authorization: Bearer " + TOKEN.encode()
REFUSALS: dict[str, tuple[bytes, int]] = {
    "401": (_stream(_BIG, token="wrong"), 401),
    "403": (_post("/api/login", b"Origin: https://evil.example", JSON[:-2], _BIG), 403),
    "404": (_post("/api/nothing", _BIG), 404),
    "404 of the framework": (_post("/robots.txt", _BIG), 404),
    "405": (_post("/api/user", _BIG), 405),
    "413": (_post("/api/login", JSON[:-2], _BIG), 413),
    "413 of a stream": (_stream(b"Content-Length: 9999999999"), 413),
    "413, chunked": (
        _post("/api/login", JSON[:-2], b"Transfer-Encoding: chunked")
        + b"fffffff\r\n"
        + b"x" * 20_000,
        413,
    ),
    "415": (_post("/api/digest", _ADMIN, b"Content-Type: text/plain", _BIG), 415),
    "417": (_post("/api/login", b"Expect: more", _BIG), 417),
    "431": (_post("/api/login", _BIG, b"X: " + b"y" * 9000), 431),
    "a preflight": (
        _post("/api/login", b"Origin: https://app.example.com", _BIG).replace(b"POST", b"OPTIONS"),
        413,
    ),
    "a GET": (_post("/api/livez", _BIG).replace(b"POST", b"GET"), 413),
    "a HEAD": (_post("/api/livez", _BIG).replace(b"POST", b"HEAD"), 413),
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
        with _dripping(wires):
            _everybody_is_answered(refusing, 1)
            started = time.monotonic()
            # The drops end it, but for the patience that lets a client read its answer.
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
        wire.send(_post(path, b"Content-Length: 3") + b"xyz" + LIVEZ)
        answer = wire.answer()
        assert answer.status in (404, 405, 415)
        assert answer.headers["connection"] == "keep-alive"
        assert wire.answer().status == 200


def test_what_is_malformed_behind_an_answer_gets_none_of_its_own(refusing: Emulator) -> None:
    with Wire(refusing) as wire:
        wire.send(_post("/api/user", b"Transfer-Encoding: chunked") + b"0\r\n: x\r\n\r\n" + LIVEZ)
        assert wire.answer().status == 405
        assert wire.is_closed()


# Clients that do not read, and too many of them.


def test_clients_that_read_no_answers_keep_nobody_from_theirs(tmp_path: Path) -> None:
    with (
        _running(tmp_path, SIGN_IN_PAGE="true", REQUEST_TIMEOUT="300") as emulator,
        ExitStack() as stack,
    ):
        for _ in range(THREADS):
            wire = stack.enter_context(Wire(emulator, receive_buffer=4096))
            wire.send(b"GET /sign-in.js HTTP/1.1\r\nHost: x\r\n\r\n" * 1500)
        until(lambda: _is_idle(emulator), 60)
        _everybody_is_answered(emulator)


def test_more_connections_than_there_may_be_cost_those_that_wait_longest(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        starting = _running(tmp_path, REQUEST_TIMEOUT="300")
        emulator = starting.__enter__()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with ExitStack() as stack:
        stack.push(starting)
        for _ in range(400):
            wire = stack.enter_context(Wire(emulator))
            wire.send(LIVEZ[:-4])
        _everybody_is_answered(emulator)
        assert emulator.descriptors() < 200
        # Who has only just come is not among them, although no byte has come yet.
        with Wire(emulator) as late:
            for _ in range(30):
                stack.enter_context(Wire(emulator)).send(b"G")
            _everybody_is_answered(emulator, 1)
            late.send(LIVEZ)
            assert late.answer().status == 200


# The end, and what of the frameworks is used.


def test_clients_that_do_not_end_their_requests_do_not_keep_it_from_stopping(
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        with _running(tmp_path, REQUEST_TIMEOUT="300", KEEP_ALIVE_TIMEOUT="300") as emulator:
            for data in (*PARTIAL.values(), LIVEZ):
                stack.enter_context(Wire(emulator)).send(data)
            _everybody_is_answered(emulator, 1)
            started = time.monotonic()
        assert emulator.process.returncode == 0
        assert time.monotonic() - started < 20  # gunicorn's grace is 30 seconds


INTERNALS: dict[type, list[str]] = {
    ThreadWorker: [
        "accept", "handle", "finish_request", "handle_error", "murder_keepalived",
        "_cap_keepalive", "_keepalive_after", "enqueue_req", "handle_request",
    ],
    Unreader: ["take_buffered", "unread"],
    Logger: ["setup"],
    GunicornApplication: ["load_config"],
}  # fmt: skip


@pytest.mark.parametrize("base", INTERNALS)
def test_what_is_overridden_or_called_is_there(base: type) -> None:
    # A method that gunicorn renames would be overridden no more, and nothing would say so.
    for name in INTERNALS[base]:
        assert callable(getattr(base, name))
