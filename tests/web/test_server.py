"""What the server refuses by itself, in JSON; and what of the frameworks is used."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from functions_framework._http.gunicorn import GunicornApplication
from gunicorn.glogging import Logger
from gunicorn.http.unreader import Unreader
from gunicorn.workers.gthread import ThreadWorker
from gunicorn.workers.workertmp import WorkerTmp

from tests.support.emulator import ROOT, Emulator, ended
from tests.support.postgres import free_port
from tests.support.wire import (
    LIVEZ,
    Wire,
    everybody_is_answered,
    line_of,
    post,
    server,
)

JSON = b"Content-Type: application/json\r\n"


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator with the settings that it has by default."""
    with server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.mark.parametrize("target", ["api", "login"])
def test_a_request_line_may_have_8190_bytes_and_not_a_byte_more(
    tmp_path: Path, target: str
) -> None:
    frame = b"GET / HTTP/1.1"
    with server(tmp_path, target) as emulator:
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
        post("/api/login", b"Transfer-Encoding: chunked") + b"1;" + b"x" * 100_000,
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
    line = line_of(emulator, problem["request_id"])
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
    with server(tmp_path, HOME=str(home), GUNICORN_LOG_LEVEL="info") as emulator:
        everybody_is_answered(emulator, 1)
        lines = [json.loads(line) for line in emulator.output().splitlines()]
        messages = [line["message"] for line in lines]
        assert messages.count(f"Serving on {emulator.url}") == 1
    assert any(message.startswith("Listening at") for message in messages)
    assert not list(home.iterdir())  # gunicorn's control socket would be here


def test_it_serves_where_nothing_can_be_written_and_nobody_has_a_home(tmp_path: Path) -> None:
    source = tmp_path / "main.py"
    source.write_text(
        "import sys, tempfile\n"
        'tempfile.tempdir = "/nowhere"\n'  # as Python does where no folder can be written to
        f'sys.path.insert(0, "{ROOT}")\n'
        "del sys.modules[__name__]\n"
        "from main import api, applications\n"
    )
    with server(tmp_path, source=str(source), HOME="") as emulator:
        everybody_is_answered(emulator, 1)
        assert all(line.startswith("{") for line in emulator.output().splitlines())


def test_who_stops_it_while_it_starts_does_not_wait_for_its_grace(tmp_path: Path) -> None:
    source = tmp_path / "main.py"
    source.write_text(
        "import os, sys, time\n"
        f'sys.path.insert(0, "{ROOT}")\n'
        "del sys.modules[__name__]\n"
        "from main import api, applications\n"
        # The worker is slow, as on a busy machine.
        f"stop = lambda: (os.killpg(0, {int(signal.SIGINT)}), time.sleep(0.3))\n"
        "os.register_at_fork(after_in_child=stop)\n"
    )
    started = time.monotonic()
    done = ended("--source", str(source), "--host", "127.0.0.1", PORT=str(free_port()))
    assert done.returncode == 0
    assert time.monotonic() - started < 20


INTERNALS: dict[type, list[str]] = {
    ThreadWorker: [
        "accept", "handle", "finish_request", "handle_error", "murder_keepalived",
        "_cap_keepalive", "_keepalive_after", "enqueue_req", "handle_request",
        "init_signals",
    ],
    Unreader: ["take_buffered", "unread"],
    WorkerTmp: ["notify"],
    Logger: ["setup"],
    GunicornApplication: ["load_config", "run"],
}  # fmt: skip


@pytest.mark.parametrize("base", INTERNALS)
def test_what_is_overridden_or_called_is_there(base: type) -> None:
    # A method that gunicorn renames would be overridden no more, and nothing would say so.
    for name in INTERNALS[base]:
        assert callable(getattr(base, name))
