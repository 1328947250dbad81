"""The context of the request that a thread is serving: its deadline and its names in the log.

Outside a request, as in a test or a command, each call gets a context of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import ParamSpec

P = ParamSpec("P")


class Scope:
    """The state that all calls of one request share."""

    __slots__ = ("_deadline", "_seconds", "names")

    def __init__(self, seconds: float, names: Mapping[str, object] = MappingProxyType({})) -> None:
        """`seconds` are for all database work of the request together."""
        self._seconds = seconds
        self.names = names
        """Fields of every log line of the request."""
        self._deadline: float | None = None

    @property
    def deadline(self) -> float:
        """In `time.monotonic()` seconds; the time runs from the first use of the store."""
        if self._deadline is None:
            self._deadline = time.monotonic() + self._seconds
        return self._deadline


_current: ContextVar[Scope | None] = ContextVar("scope", default=None)
_application: ContextVar[str] = ContextVar("application", default="")


@contextmanager
def request(seconds: float, names: Mapping[str, object]) -> Iterator[Scope]:
    """Make a scope current while one request is served."""
    scope = Scope(seconds, names)
    token = _current.set(scope)
    try:
        yield scope
    finally:
        _current.reset(token)


def names() -> Mapping[str, object]:
    """Give the log fields of the current request; outside one at most the application's name."""
    if serving := _current.get():
        return serving.names
    name = _application.get()
    return {"application": name} if name else {}


@contextmanager
def application(name: str) -> Iterator[None]:
    """Name one of several applications in the log lines of the block, which serves no request."""
    token = _application.set(name)
    try:
        yield
    finally:
        _application.reset(token)


def in_a_thread(function: Callable[P, None]) -> Callable[P, None]:
    """Have a thread of its own, which has no request, name the application of this one."""
    name = str(names().get("application", ""))

    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with application(name):
            function(*args, **kwargs)

    return run


def current(seconds: float) -> Scope:
    """Give the current request's scope, or a new one outside a request."""
    return _current.get() or Scope(seconds)
