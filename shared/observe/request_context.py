"""What belongs to the one request that a thread is serving: its deadline, and its names in the log.

Without a request, as in a test or a command, every call is on its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(slots=True)
class Scope:
    """What the calls of one request share."""

    seconds: float
    """What all that it asks of the database may take together."""
    names: Mapping[str, object] = field(default_factory=dict)
    """What the log calls it, in every line."""
    _deadline: float | None = None

    @property
    def deadline(self) -> float:
        """The reading of `time.monotonic()` at which it ends, counted from the first question."""
        if self._deadline is None:
            self._deadline = time.monotonic() + self.seconds
        return self._deadline


_current: ContextVar[Scope | None] = ContextVar("scope", default=None)


@contextmanager
def request(seconds: float, names: Mapping[str, object]) -> Iterator[Scope]:
    """Serve one request."""
    scope = Scope(seconds, names)
    token = _current.set(scope)
    try:
        yield scope
    finally:
        _current.reset(token)


def names() -> Mapping[str, object]:
    """Give what the log calls the request that is being served, if any is."""
    serving = _current.get()
    return serving.names if serving else {}


def current(seconds: float) -> Scope:
    """Give the request that is being served, or a new one for the call that is on its own."""
    return _current.get() or Scope(seconds)
