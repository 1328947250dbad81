"""A circuit breaker: while the database is away, one prober asks it, and nobody else has to.

It opens at the first call that found the database away, and closes at the first answer of any
kind: what the database says of a call is for the call to hear.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from shared.errors import StoreUnreachable
from shared.observe import log, metrics

FIRST_PAUSE, PAUSE_MAX = 0.2, 1.0
"""Seconds before a probe, doubled before each further one up to the most; jittered by a third."""
PROBE_TIMEOUT = 3.0
"""Seconds that one probe may take: a server that hangs must not hide the one that comes back."""


class Breaker:
    """Open or closed. Safe to share between threads."""

    def __init__(self, probe: Callable[[float], object], on_open: Callable[[], None]) -> None:
        """Begin closed.

        `probe` asks the database once before a reading of `time.monotonic()`, and raises
        StoreUnreachable where it is away. `on_open` is called when the breaker opens, to wake
        those who wait.
        """
        self._probe = probe
        self._on_open = on_open
        self._changing = threading.Lock()
        self._closed = threading.Event()
        self._closed.set()
        self.since: float | None = None
        """When it opened, in seconds since the Unix epoch; None while it is closed."""
        self._opened_at = 0.0

    @property
    def is_open(self) -> bool:
        """Tell whether calls are refused."""
        return self.since is not None

    @property
    def seconds(self) -> float | None:
        """For how many seconds it has been open; None while it is closed."""
        return None if self.since is None else time.monotonic() - self._opened_at

    def check(self) -> None:
        """Raise StoreUnreachable, at once, while the breaker is open."""
        if self.is_open:
            raise StoreUnreachable(cause="the database is unreachable (circuit breaker open)")

    def trip(self, cause: str | None = None) -> None:
        """Open: a call found the database away. The cause is for the log."""
        with self._changing:
            if self.is_open:
                return
            self._opened_at = time.monotonic()
            self.since = time.time()
            self._closed = threading.Event()
            prober = threading.Thread(target=self._watch, args=(self._closed,), daemon=True)
            try:
                prober.start()
            except RuntimeError:  # As many threads as there may be: the next failure tries again.
                self.since = None
                return
        metrics.OUTAGES.add()
        log.write("ERROR", "The database is unreachable", cause=cause)
        self._on_open()

    def close(self) -> None:
        """Close: a call was answered, or nobody needs to know any more."""
        with self._changing:
            self._close()

    def _close(self) -> None:
        if (seconds := self.seconds) is not None:
            log.write("WARNING", "The database is reachable again", seconds=round(seconds, 1))
        self.since = None
        self._closed.set()

    def _watch(self, closed: threading.Event) -> None:
        pause = FIRST_PAUSE
        while not closed.wait(pause * random.uniform(0.67, 1.33)):  # noqa: S311  # jitter
            pause = min(pause * 2, PAUSE_MAX)
            try:
                self._probe(time.monotonic() + PROBE_TIMEOUT)
            except StoreUnreachable:
                continue
            except Exception:  # noqa: BLE001, S110  # an answer, and the next call hears it itself
                pass
            with self._changing:
                if closed is self._closed:  # Of this outage, not of one that has begun since.
                    self._close()
