"""The networks that are known to be locked, so that a flood of them costs the store nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from shared.errors import TooManyAttempts

ASK_AGAIN_SECONDS = 10.0
"""How long a process believes that a network is locked before one caller asks the store again: an
operator may have deleted the lock, and attempts that were on their way may give theirs back."""
MAX_LOCKS = 10_000
"""Networks that a process remembers as locked; the oldest are forgotten, and the store is asked."""


class Locks:
    """The networks that the store said have no attempt left, as one process remembers them.

    Refuses a flood of them without asking the store. Knows nothing that the store did not say, and
    is asked by the monotonic clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Remember none. `clock` gives monotonic seconds."""
        self._clock = clock
        self._changing = threading.Lock()
        self._found: dict[str, _Lock] = {}

    def check(self, network: str, *, event: str) -> None:
        """Raise TooManyAttempts with the event, where the network is known to be locked."""
        now = self._clock()
        with self._changing:
            lock = self._found.get(network)
            if lock is None:
                return
            if lock.ends_at <= now:
                del self._found[network]
            elif lock.asked_at + ASK_AGAIN_SECONDS <= now:
                lock.asked_at = now  # By this caller, and by nobody else meanwhile.
            else:
                raise TooManyAttempts(lock.ends_at - now, event=event)

    @contextmanager
    def learning(self, network: str) -> Iterator[None]:
        """Ask the store whether the network has an attempt left, and remember what it says.

        Inside of the block nothing but the store may raise TooManyAttempts.
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


@dataclass(slots=True)
class _Lock:
    ends_at: float
    asked_at: float
