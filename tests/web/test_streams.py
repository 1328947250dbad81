"""Bodies of any size and answers that grow, through the real server and over real HTTP."""

from __future__ import annotations

import hashlib
import io
import json
import random
import socket
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.errors import HttpError
from shared.web import request_body
from shared.web.request_body import BodyStream
from tests.support.emulator import ROOT, Emulator, running_emulator
from tests.support.waiting import until

TOKEN = "QWRtaW4gb2YgdGhlIHRlc3RzLCBub2JvZHkgZWxzZSBhdCBhbGw"
LINES = "application/x-ndjson"
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Content-Type": LINES}
LARGE = random.Random(7).randbytes(30_000_000)
DONE = {"event": "done", "bytes": len(LARGE), "sha256": hashlib.sha256(LARGE).hexdigest()}
CLOSED = "the generator was closed"


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[Emulator]:
    """An emulator of its own for each test, whose memory and output are this test's alone."""
    with _running(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """One for all tests that look at answers only."""
    with _running(tmp_path_factory.mktemp("streams")) as running:
        yield running


def _running(folder: Path) -> AbstractContextManager[Emulator]:
    return running_emulator(
        "routed",
        source=f"{ROOT}/tests/support/admin_functions.py",
        ADMIN_TOKEN=TOKEN,
        USERS_FILE=str(folder / "users.json"),
    )


def _chunks(data: bytes, size: int = 50_000) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def _post(emulator: Emulator, content: Any, what: str = "", **headers: str) -> httpx.Response:
    with emulator.client() as client:
        return client.post(
            "/api/digest", params={"what": what}, content=content, headers=HEADERS | headers
        )


def _lines(text: str) -> list[dict[str, Any]]:
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def _line_of_the_log(emulator: Emulator) -> dict[str, Any]:
    """Wait for the one line about the endpoint."""
    (line,) = until(lambda: [x for x in emulator.log() if x.get("function") == "digest"])
    return line


@pytest.mark.parametrize("chunked", [False, True], ids=["Content-Length", "chunked"])
def test_a_body_of_30_mb_arrives_whole_and_is_never_in_memory(
    emulator: Emulator, chunked: bool
) -> None:
    assert _post(emulator, b"x" * 1000).status_code == 200
    before = emulator.peak_memory()
    response = _post(emulator, _chunks(LARGE) if chunked else LARGE)
    grown = emulator.peak_memory() - before
    assert response.status_code == 200
    assert _lines(response.text)[-1] == DONE
    # Held in memory the body would add 30 MB.
    print(f"grown by {grown / 1e6:.1f} MB")
    assert grown < 8_000_000


@pytest.mark.parametrize(
    "options",
    [[], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect:"], ["--http1.0"]],
    ids=["Content-Length", "chunked", "without Expect", "HTTP 1.0"],
)
def test_curl_sends_30_mb_and_gets_lines(
    shared: Emulator, curl_program: str, tmp_path: Path, options: list[str]
) -> None:
    file = tmp_path / "body"
    file.write_bytes(LARGE)
    headers = [part for item in HEADERS.items() for part in ("-H", ": ".join(item))]
    command = [curl_program, "-sS", "--noproxy", "*", *headers, *options]
    result = subprocess.run(
        [*command, "--data-binary", f"@{file}", f"{shared.url}/api/digest"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    *progress, done = _lines(result.stdout)
    assert done == DONE
    assert len(progress) == 4


def test_a_line_arrives_while_the_body_is_still_being_sent(shared: Emulator) -> None:
    with _connect(shared) as connection:
        connection.sendall(_head("Transfer-Encoding: chunked") + _chunk(b"x" * 65536))
        received = b""
        while b"progress" not in received:
            received += connection.recv(65536)
        assert received.startswith(b"HTTP/1.1 200 ")
        connection.sendall(_chunk(b"y" * 10) + b"0\r\n\r\n")
        while b"done" not in received:
            received += connection.recv(65536)
        assert b'"bytes": 65546' in received


def test_a_streamed_answer_has_the_headers_of_all_answers_and_one_line_in_the_log(
    emulator: Emulator,
) -> None:
    response = _post(emulator, b"{}")
    assert response.headers["Content-Type"] == LINES
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    line = _line_of_the_log(emulator)
    assert line["request_id"] == response.headers["X-Request-Id"]
    assert (line["severity"], line["status"]) == ("INFO", 200)
    assert line["milliseconds"] > 0
    assert "cause" not in line
    assert CLOSED in emulator.output()


def test_an_answer_without_lines_is_200_and_empty(emulator: Emulator) -> None:
    response = _post(emulator, b"{}", "say nothing")
    assert (response.status_code, response.text) == (200, "")
    assert _line_of_the_log(emulator)["status"] == 200


def test_an_error_before_the_first_line_is_an_ordinary_problem(emulator: Emulator) -> None:
    response = _post(emulator, b"{}", "fail first")
    assert response.status_code == 503
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Retry-After"] == "5"
    line = _line_of_the_log(emulator)
    assert (line["status"], line["cause"]) == (503, "a canary")


@pytest.mark.parametrize(
    ("what", "status", "code", "severity"),
    [("fail later", 400, "invalid_input", "INFO"), ("break", 500, "internal_error", "ERROR")],
)
def test_an_error_after_the_first_line_is_the_last_line(
    emulator: Emulator, what: str, status: int, code: str, severity: str
) -> None:
    response = _post(emulator, LARGE, what)
    assert response.status_code == 200
    progress, error = _lines(response.text)
    assert progress["event"] == "progress"
    assert error["event"] == "error"
    assert (error["status"], error["code"]) == (status, code)
    assert error["request_id"] == response.headers["X-Request-Id"]
    assert {"type", "title", "detail", "error"} <= error.keys()
    assert "canary" not in response.text
    line = _line_of_the_log(emulator)
    assert (line["severity"], line["status"], line["code"]) == (severity, 200, code)
    assert ("stack" in line) == (status == 500)
    assert CLOSED in emulator.output()


@pytest.mark.parametrize("reads_first_line", [False, True])
def test_a_client_that_hangs_up_closes_the_generator_and_is_in_the_log(
    emulator: Emulator, reads_first_line: bool
) -> None:
    with _connect(emulator) as connection:
        connection.sendall(_head("Content-Length: 2", "go%20on") + b"{}")
        if reads_first_line:
            connection.recv(100)
    line = _line_of_the_log(emulator)
    assert line["cause"] == "the client hung up"
    assert (line["severity"], line["status"]) == ("WARNING", 200)
    output = emulator.output()
    assert output.count(CLOSED) == 1
    assert output.index(CLOSED) < output.index('"function": "digest"')


BROKEN = {
    "shorter than its Content-Length": ("Content-Length: 70000", b"x" * 65537),
    "nothing of it": ("Content-Length: 70000", b""),
    "chunked, without its last chunk": ("Transfer-Encoding: chunked", b"2\r\n{}\r\n"),
    "chunked, within a chunk": ("Transfer-Encoding: chunked", b"20000\r\n{}"),
    "chunked, malformed": ("Transfer-Encoding: chunked", b"2\r\n{}\r\nzz\r\n"),
    "chunked, without the final empty line": ("Transfer-Encoding: chunked", b"2\r\n{}\r\n0\r\n"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_body_that_breaks_off_is_an_error_and_never_a_silent_end(
    emulator: Emulator, name: str
) -> None:
    header, sent = BROKEN[name]
    received = b""
    with _connect(emulator) as connection:
        connection.sendall(_head(header) + sent)
        connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(65536):
            received += data
    assert b'"event": "done"' not in received
    assert b'"code": "incomplete_body"' in received
    first_line = received.startswith(b"HTTP/1.1 200 ")
    assert first_line == (b'"event": "error"' in received)
    assert first_line or received.startswith(b"HTTP/1.1 400 ")
    assert _line_of_the_log(emulator)["code"] == "incomplete_body"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/json"}, 200),
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
        ({"Content-Type": "Application/X-NDJSON"}, 200),
        ({"Content-Type": ""}, 415),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "application/x-ndjson; charset=utf-16"}, 415),
        ({"Content-Encoding": "gzip"}, 415),
    ],
)
def test_a_streamed_body_is_declared_as_json_or_json_lines(
    shared: Emulator, headers: dict[str, str], status: int
) -> None:
    assert _post(shared, b"{}", **headers).status_code == status
    assert _post(shared, iter([b"{}"]), **headers).status_code == status


def test_no_body_needs_no_content_type(shared: Emulator) -> None:
    with shared.client(headers={"Authorization": HEADERS["Authorization"]}) as client:
        response = client.post("/api/digest")
    assert [line["bytes"] for line in _lines(response.text)] == [0]


def test_more_than_the_limit_is_413_before_it_is_sent(shared: Emulator) -> None:
    with _connect(shared) as connection:
        connection.sendall(_head(f"Content-Length: {request_body.MAX_STREAM + 1}"))
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that a test can afford to reach."""
    monkeypatch.setattr(request_body, "MAX_STREAM", 10)


def test_a_chunked_body_over_the_limit_is_noticed_where_it_passes_it(small_limit: None) -> None:
    assert BodyStream(io.BytesIO(b"x" * 10), None).read() == b"x" * 10
    stream = BodyStream(io.BytesIO(b"x" * 11), None)
    assert stream.read(10) == b"x" * 10
    for _ in range(2):
        with pytest.raises(HttpError) as caught:
            stream.read(1)
        assert caught.value.status == 413


def test_a_stream_that_failed_goes_on_failing_although_its_source_says_that_it_has_ended() -> None:
    class Chunked(io.BytesIO):
        """Like gunicorn's: once broken, it pretends to be at its end."""

        is_broken = False

        def read(self, _size: int | None = -1, /) -> bytes:
            if not self.is_broken:
                self.is_broken = True
                raise OSError("a malformed chunk")
            return b""

    stream = BodyStream(Chunked(), None)
    for _ in range(2):
        with pytest.raises(HttpError, match="could not be read"):
            stream.read(5)


def test_a_short_body_is_told_at_its_end() -> None:
    stream = BodyStream(io.BytesIO(b"12345"), 6)
    assert stream.read(5) == b"12345"
    with pytest.raises(HttpError, match="shorter"):
        stream.read(5)


def test_a_stream_reads_like_any_other() -> None:
    stream = BodyStream(io.BytesIO(b"one\ntwo\n"), 8)
    assert stream.readable()
    assert stream.read(0) == b""
    assert list(io.BufferedReader(stream)) == [b"one\n", b"two\n"]
    assert stream.read(10) == b""


def _connect(emulator: Emulator) -> socket.socket:
    host, port = emulator.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def _head(header: str, what: str = "") -> bytes:
    return (
        f"POST /api/digest?what={what} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Type: {LINES}\r\n{header}\r\n\r\n"
    ).encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)
