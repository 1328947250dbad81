"""A cache of locked networks, so that floods from them cost the store nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shared.errors import TooManyAttempts

ASK_AGAIN_SECONDS = 10.0
"""How long a lock is cached before one caller may query the store again: an operator may have
deleted it, or attempts in progress may be refunded."""
MAX_LOCKS = 10_000
"""Cached locks; beyond that the oldest are dropped."""


class Locks:
    """The networks that the store reported as locked, cached by one process.

    Refuses their requests without querying the store. Uses the monotonic clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives monotonic seconds."""
        self._clock = clock
        self._changing = threading.Lock()
        self._found: dict[str, _Lock] = {}

    def check(self, network: str, *, event: str) -> None:
        """Raise TooManyAttempts with the event if the network is known to be locked."""
        now = self._clock()
        with self._changing:
            lock = self._found.get(network)
            if lock is None:
                return
            if lock.ends_at <= now:
                del self._found[network]
            elif lock.asked_at + ASK_AGAIN_SECONDS <= now:
                lock.asked_at = now  # Only this caller queries the store now.
            else:
                raise TooManyAttempts(lock.ends_at - now, event=event)

    @contextmanager
    def learning(self, network: str) -> Iterator[None]:
        """Cache the store's answer in the block: TooManyAttempts is a lock, anything else is none.

        Inside the block only the store may raise TooManyAttempts.
        """
        try:
            yield
        except TooManyAttempts as error:
            now = self._clock()
            with self._changing:
                self._found.pop(network, None)
                while len(self._found) >= MAX_LOCKS:
                    del self._found[next(iter(self._found))]
                self._found[network] = _Lock(now + error.retry_after, now)
            raise
        with self._changing:
            self._found.pop(network, None)


class _Lock:
    def __init__(self, ends_at: float, asked_at: float) -> None:
        self.ends_at, self.asked_at = ends_at, asked_at
