"""The context of the request that a thread is serving: its deadline and its names in the log.

Outside a request, as in a test or a command, each call gets a context of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType


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
    """Give the log fields of the current request, or none outside one."""
    serving = _current.get()
    return serving.names if serving else {}


def current(seconds: float) -> Scope:
    """Give the current request's scope, or a new one outside a request."""
    return _current.get() or Scope(seconds)
