"""The service's request to itself: written, waited for by nobody, and believed of nobody else."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from shared.mail import wake
from shared.mail.wake import PATH, PAUSE, SECONDS, VALID_SECONDS, Wake
from tests.support.waiting import until

SECRET, OLD = "a" * 32, "b" * 32
NOW = 1_800_000_000.5
SOME_TIME = 1000.0


class Clock:
    """What the module takes for `time`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = SOME_TIME
        monkeypatch.setattr(wake, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """For how long somebody was ready to wait for the thread that writes."""
    found: list[float | None] = []
    join = threading.Thread.join

    def noted(thread: threading.Thread, timeout: float | None = None) -> None:
        found.append(timeout)
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", noted)
    return found


@contextmanager
def _target(backlog: int = 16) -> Iterator[tuple[socket.socket, int]]:
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as listener:
        listener.settimeout(30)
        yield listener, listener.getsockname()[1]


def _is_over() -> bool:
    return not any(thread.name == "wake" for thread in threading.enumerate())


def test_it_is_one_request_and_its_answer_is_not_waited_for(waits: list[float | None]) -> None:
    with _target() as (listener, port):
        sender = Wake((SECRET,), f"http://127.0.0.1:{port}")
        sender.send(NOW)
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(30)
            head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
            line, *fields = head.decode().split("\r\n")
            assert (line, body) == (f"POST {PATH} HTTP/1.1", b"")
            assert sorted(fields) == [
                f"Authorization: {sender.authorization(NOW)}",
                "Connection: close",
                "Content-Length: 0",
                f"Host: 127.0.0.1:{port}",
            ]
            connection.setblocking(False)
            with pytest.raises(BlockingIOError):
                connection.recv(1)  # It is not hung up, which would call the request off.
    assert waits == [SECONDS]
    sender.close()


def test_it_is_written_once_a_second_at_most(clock: Clock) -> None:
    with _target() as (listener, port):
        sender = Wake((SECRET,), f"http://127.0.0.1:{port}")
        written = 0
        for after, comes in (
            (0.0, True), (0.0, False), (PAUSE * 0.99, False), (PAUSE * 0.02, True),
            (PAUSE * 0.5, False), (PAUSE * 0.6, True), (PAUSE * 100, True), (0.1, False),
        ):  # fmt: skip
            clock.now += after
            sender.send(NOW)
            written += comes
            if comes:
                listener.accept()[0].close()
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.accept()
            listener.settimeout(30)
    assert written == 4
    sender.close()


def test_of_many_at_once_one_writes_it(clock: Clock) -> None:
    with _target() as (listener, port):
        sender = Wake((SECRET,), f"http://127.0.0.1:{port}")
        threads = [threading.Thread(target=sender.send, args=(NOW,)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        listener.accept()[0].close()
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    sender.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_target_that_lets_nobody_in_costs_a_quarter_of_a_second_and_no_more(
    waits: list[float | None], scheme: str
) -> None:
    with _target(backlog=0) as (_, port):
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:  # From now on nobody is let in, and nobody told so.
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        sender = Wake((SECRET,), f"{scheme}://127.0.0.1:{port}")
        sender.send(NOW)
        assert waits == [SECONDS] == [0.25]
        until(_is_over)
        for filler in fillers:
            filler.close()


def test_a_target_that_never_answers_costs_a_quarter_of_a_second_and_no_more(
    waits: list[float | None],
) -> None:
    """It lets everybody in, and says nothing to who wants to begin TLS."""
    with _target() as (_, port):
        sender = Wake((SECRET,), f"https://127.0.0.1:{port}")
        sender.send(NOW)
        assert waits == [SECONDS]
        until(_is_over)


def test_a_name_that_is_looked_up_for_ever_costs_a_quarter_of_a_second_and_no_more(
    waits: list[float | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: goes_on.wait(30) and [])
    Wake((SECRET,), "http://app.test").send(NOW)
    assert not goes_on.is_set()
    assert waits == [SECONDS]
    goes_on.set()
    until(_is_over)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "https://127.0.0.1:1", ""])
def test_a_target_that_is_not_there_disturbs_nobody(url: str) -> None:
    Wake((SECRET,), url).send(NOW)
    until(_is_over)


def test_each_of_our_secrets_is_believed_for_a_minute_and_the_first_one_signs() -> None:
    before, now = Wake((OLD,), ""), Wake((SECRET, OLD), "")
    for sender in (before, now):
        given = sender.authorization(NOW)
        for seconds in (-VALID_SECONDS, 0, VALID_SECONDS):
            assert now.is_ours(given, int(NOW) + seconds)
        for seconds in (-VALID_SECONDS - 1, VALID_SECONDS + 1, 10**9, -(10**9)):
            assert not now.is_ours(given, int(NOW) + seconds)
    assert not before.is_ours(now.authorization(NOW), NOW)


def test_whatever_else_is_said_is_not_believed() -> None:
    ours = Wake((SECRET,), "")
    moment, signature = ours.authorization(NOW).removeprefix("Bearer ").split(".")
    other = ours.authorization(NOW + 1).partition(".")[2]
    for given in (
        None, "", "Bearer", "Bearer ", "Bearer .", f"Bearer {moment}", f"Bearer {moment}.",
        f"Bearer .{signature}", f"Bearer {moment}.{other}", f"Bearer {moment}.{signature[:-1]}",
        f"Bearer {moment}.{signature}0", f"Bearer {moment}.{signature}.{signature}",
        f"Bearer {moment}.{signature.upper()}", f"Bearer 0{moment}.{signature}",
        f"Bearer +{moment}.{signature}", f"Bearer -{moment}.{signature}", "Bearer ١٢.x",
        f"Bearer {moment}.\xff", f"Bearer {moment}.\u2028", f"Bearer {'9' * 5000}.x",
        f"Basic {moment}.{signature}", f"bearer{moment}.{signature}", f"{moment}.{signature}",
    ):  # fmt: skip
        assert not ours.is_ours(given, NOW), given
