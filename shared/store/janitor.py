"""Does the store's upkeep, now and then, when a request has been answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from shared.errors import StoreUnreachable
from shared.store.contract import Maintenance

SECONDS = 60.0
"""Between two rounds of one instance."""


class Janitor:
    """Cleans one store up. Safe to share between threads: one at a time does anything."""

    def __init__(self, store: Maintenance, also: Callable[[], object] = lambda: None) -> None:
        """Clean up at the first call, and do something else, such as what a retry is due for."""
        self._store = store
        self._also = also
        self._cleaning = threading.Lock()
        self._next = float("-inf")

    def run(self) -> None:
        """Clean up if it is time, and again at the next call where something was left."""
        now = time.monotonic()
        if now < self._next or not self._cleaning.acquire(blocking=False):
            return
        try:
            self._next = now + SECONDS
            with suppress(StoreUnreachable):  # The log has it already.
                if self._store.clean_up():
                    self._next = now
            with suppress(StoreUnreachable):
                self._also()
        finally:
            self._cleaning.release()
