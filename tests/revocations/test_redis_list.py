"""The list on a real Redis, and what becomes of it when that is away, wrong or a liar."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest

from shared.model.sessions import FRESH_SECONDS, Session
from shared.model.users import User
from shared.observe import metrics
from shared.revocations import redis_list
from shared.revocations.redis_list import KEPT_SECONDS, SECONDS, Revocations
from shared.revocations.url import parse
from tests.support.certificates import Authority
from tests.support.emulator import SECRET
from tests.support.redis_servers import PASSWORD, RedisServer, false_redis, running_redis
from tests.support.stores import session_of
from tests.support.waiting import until

ADA = User("0d0f48c9-28f2-4e6c-b6a7-4ec1ed2b0a0f", "ada.canary@example.com", None, "local", 3)
GRACE = 0.25
"""Seconds by which a busy machine may be late."""


@pytest.fixture(scope="module")
def server(redis_program: str) -> Iterator[RedisServer]:
    with running_redis(redis_program) as running:
        yield running


@pytest.fixture(scope="module")
def tls_server(
    redis_program: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer]:
    authority = Authority(tmp_path_factory.mktemp("redis"))
    with running_redis(redis_program, authority) as running:
        yield running


@pytest.fixture(autouse=True)
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_list, "PAUSE", 0.1)


@contextmanager
def opened(url: str, *, seconds: float = 2) -> Iterator[Revocations]:
    """Open a list; with more time than in production, where a busy machine is not the point."""
    with closing(Revocations(parse(url), [SECRET], seconds=seconds)) as found:
        yield found


def session(user: User = ADA) -> Session:
    return session_of(user)


def is_back(revocations: Revocations) -> None:
    """Wait until it is asked again, and answers."""
    until(revocations.reach)
    assert revocations.since is None


def outcomes(operation: str) -> dict[str, int]:
    found = metrics.REVOCATIONS.series()
    return {name: series.number for (kind, name), series in found.items() if kind == operation}


def test_a_session_is_on_the_list_once_it_was_put_there(server: RedisServer) -> None:
    one, other = session(), session()
    with opened(server.url) as here, opened(server.url) as there:
        assert not there.has(one)
        here.add(one)
        assert there.has(one)
        assert not there.has(other)


def test_a_user_is_on_it_with_the_epoch_that_has_ended_and_no_other(server: RedisServer) -> None:
    with opened(server.url) as here, opened(server.url) as there:
        here.add(ADA)
        assert there.has(session(ADA))
        for user in (ADA._replace(epoch=4), ADA._replace(epoch=2), ADA._replace(id="another")):
            assert not there.has(session(user))


def test_keys_tell_nothing_and_expire_when_no_token_is_fresh_any_more(server: RedisServer) -> None:
    server.run("FLUSHALL")
    with opened(server.url) as revocations:
        one = session()
        revocations.add(one, ADA)
        keys = server.keys()
    assert len(keys) == 2
    assert all(FRESH_SECONDS < left <= KEPT_SECONDS for left in keys.values())
    told = json.dumps(list(keys)) + repr([server.run("GET", key) for key in keys])
    for secret in (ADA.id, ADA.email, "canary", one.sid):
        assert secret not in told


def test_a_list_with_another_secret_has_other_keys(server: RedisServer) -> None:
    one = session()
    with opened(server.url) as here:
        here.add(one)
    with closing(Revocations(parse(server.url), ["y" * 32])) as there:
        assert not there.has(one)


def test_an_idle_connection_is_used_again_and_a_dead_one_is_not(server: RedisServer) -> None:
    with opened(server.url) as revocations:
        assert revocations.reach()
        before = int(server.run("INFO", "stats")["total_connections_received"])
        assert revocations.reach()
        # This one question is a connection itself.
        assert int(server.run("INFO", "stats")["total_connections_received"]) == before + 1
        server.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert revocations.reach(), "its end was seen before it was used"
        with server.killed():
            pass
        assert revocations.reach()
        assert revocations.since is None


def test_threads_share_the_connections(server: RedisServer) -> None:
    wrong: list[bool] = []
    with opened(server.url) as revocations:
        ended = session()
        revocations.add(ended)

        def ask() -> None:
            for _ in range(50):
                wrong.append(not revocations.has(ended))
                wrong.append(revocations.has(session(ADA._replace(id="another"))))

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(revocations._idle) <= 6
    assert len(wrong) == 600
    assert not any(wrong)


@contextmanager
def _flushed(server: RedisServer) -> Iterator[None]:
    server.run("FLUSHALL")
    yield


FAULTS: dict[str, tuple[Callable[[RedisServer], AbstractContextManager[None]], str]] = {
    "killed": (RedisServer.killed, "Connection refused"),
    "frozen": (RedisServer.frozen, "no answer in time"),
    "another password": (
        RedisServer.another_password,
        "it refuses the user or the password of REDIS_URL",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("is_warm", [False, True])
def test_while_it_is_away_nobody_is_on_the_list_and_one_caller_waits(
    server: RedisServer, fault: str, is_warm: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    happens, cause = FAULTS[fault]
    ended = session()
    with opened(server.url) as revocations:
        revocations.add(ended)
        assert revocations.has(ended)
        if not is_warm:
            revocations.close()
        revocations._seconds = SECONDS
        with happens(server):
            started = time.monotonic()
            assert not revocations.has(ended)
            assert time.monotonic() - started < SECONDS + GRACE
            assert revocations.since is not None
            revocations._paused_until = time.monotonic() + 60
            started, before = time.monotonic(), outcomes("read")
            for _ in range(200):
                assert not revocations.has(ended)
                revocations.add(session())
            assert time.monotonic() - started < 100 * SECONDS, "nobody asks"
            assert outcomes("read")["skipped"] == before.get("skipped", 0) + 200
            assert outcomes("read")["failed"] == before["failed"]
            revocations._paused_until = 0
            assert not revocations.has(ended), "one asks again"
            assert outcomes("read")["failed"] == before["failed"] + 1
        revocations._seconds = 2
        is_back(revocations)
    (away, back) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert away["message"] == "The list of revocations is away"
    assert cause in away["cause"]
    assert PASSWORD not in str(away)
    assert back["message"] == "The list of revocations is there again"


def test_a_full_one_is_still_read_and_what_it_refuses_is_told(
    server: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    ended, late = session(), session()
    with opened(server.url) as revocations:
        revocations.add(ended)
        with server.full():
            revocations.add(late)
            assert revocations.has(ended)
            assert not revocations.has(late)
            assert revocations.since is None
    (line,) = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert line["message"] == "Redis refuses the list of revocations"
    assert line["cause"] == "it is full (maxmemory)"


def test_one_that_evicts_has_forgotten(server: RedisServer) -> None:
    ended, late = session(), session()
    with opened(server.url) as revocations:
        revocations.add(ended)
        with server.full("allkeys-lru"):
            revocations.add(late)
            assert not revocations.has(ended)
            assert not revocations.has(late)
            assert revocations.since is None
        revocations.add(late)
        assert revocations.has(late)


def test_a_flushed_one_has_forgotten(server: RedisServer) -> None:
    ended = session()
    with opened(server.url) as revocations:
        revocations.add(ended)
        server.run("FLUSHALL")
        assert not revocations.has(ended)
        assert revocations.since is None


def test_tls_is_verified(tls_server: RedisServer, tmp_path: Path) -> None:
    one = session()
    with opened(tls_server.url) as revocations:
        revocations.add(one)
        assert revocations.has(one)
        assert revocations.has(one), "on the same connection"
        assert len(revocations._idle) == 1
    other = Authority(tmp_path).certificate
    port = tls_server.port
    for url, cause in (
        (f"rediss://:x@localhost:{port}?ssl_ca_certs={other}", "its certificate cannot be trusted"),
        (f"rediss://:x@localhost:{port}", "its certificate cannot be trusted"),
        (tls_server.url.replace("localhost", "127.0.0.1"), "its certificate cannot be trusted"),
        (f"redis://:x@localhost:{port}", ""),
    ):
        with opened(url) as revocations:
            assert not revocations.has(one)
            assert cause in (revocations.try_out() or "")
            assert revocations.since is not None


def test_a_frozen_one_behind_tls_costs_no_more(tls_server: RedisServer) -> None:
    with opened(tls_server.url, seconds=SECONDS) as revocations, tls_server.frozen():
        started = time.monotonic()
        assert not revocations.reach()
        assert time.monotonic() - started < SECONDS + GRACE


def _trickle(taken: socket.socket) -> None:
    for _ in range(1000):
        taken.sendall(b"1")
        time.sleep(0.01)


def _flood(taken: socket.socket) -> None:
    while True:
        taken.sendall(b"x" * 65536)


def _reset(taken: socket.socket) -> None:
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    taken.close()


LIES: dict[str, bytes | Callable[[socket.socket], None]] = {
    "garbage": bytes(range(256)),
    "HTML": b"HTTP/1.1 400 Bad Request\r\n\r\n<html>",
    "no number": b":one\r\n",
    "nothing": b"$-1\r\n",
    "a text": b"$1\r\n1\r\n",
    "true": b"#t\r\n",
    "a list": b"*1\r\n:1\r\n",
    "lists in lists": b"*1\r\n" * 100_000,
    "half an answer": b":",
    "a length that never comes": b"$1000000000\r\nx",
    "an error": b"-ERR unknown command 'EXISTS', with args beginning with: 'canary'\r\n",
    "an error without a name": b"-\r\n",
    "a number without end": b":" + b"9" * 100_000,
    "a number of digits": b":" + b"9" * 10_000 + b"\r\n",
    "a trickle": _trickle,
    "a flood": _flood,
    "the end": lambda taken: taken.shutdown(socket.SHUT_RDWR),
    "a reset": _reset,
}


@pytest.mark.parametrize("lie", LIES)
def test_what_is_no_answer_counts_as_none(lie: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = LIES[lie]
    with (
        false_redis(words if callable(words) else lambda taken: taken.sendall(words)) as server,
        opened(server.url, seconds=SECONDS) as revocations,
    ):
        started = time.monotonic()
        assert not revocations.has(session())
        assert time.monotonic() - started < SECONDS + GRACE
        assert revocations.since is not None
        assert len(revocations._idle) == 0
        revocations._paused_until = 0
        revocations.add(session())
        assert revocations.try_out()
    told = capsys.readouterr().out
    assert "canary" not in told
    assert "The list of revocations is away" in told


def test_a_name_that_nobody_knows_is_no_answer(capsys: pytest.CaptureFixture[str]) -> None:
    with opened("redis://nowhere.invalid", seconds=SECONDS) as revocations:
        started = time.monotonic()
        assert not revocations.reach()
        assert time.monotonic() - started < SECONDS + GRACE
    assert "The list of revocations is away" in capsys.readouterr().out
