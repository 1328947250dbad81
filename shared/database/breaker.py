"""A circuit breaker: while the database is away, one prober asks it, and nobody else has to.

It opens at the first call that found the database away, and closes at the first answer of any
kind: what the database says of a call is for the call to hear.

A process may be stopped for any time between two requests, as platforms do that bill by request.
The prober was stopped with it, so what it last found says nothing: then one call asks, instead of
being refused, and the time for which the process stood still is no outage.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from shared.errors import StoreUnreachable
from shared.observe import log, metrics, request_context

FIRST_PAUSE, PAUSE_MAX = 0.2, 1.0
"""Seconds before a probe, doubled before each further one up to the most; jittered."""
_JITTER = 0.33
PROBE_TIMEOUT = 3.0
"""Seconds that one probe may take: a server that hangs must not hide the one that comes back."""
OVERDUE = 1.0
"""Seconds by which the prober may be late on a busy machine. Later than that, it was stopped."""


class _Progress(NamedTuple):
    """How far an outage has come by readings of `time.monotonic()`."""

    lasted: float
    """Seconds up to `seen_at`, but for those in which the process was stopped."""
    seen_at: float
    """When the prober was seen to be at work."""
    due_at: float
    """When it is to be seen again at the latest."""

    def seconds(self, now: float) -> float:
        """Tell how long it has lasted."""
        return self.lasted + min(now, self.due_at) - self.seen_at


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
        self._progress = _Progress(0, 0, 0)

    @property
    def is_open(self) -> bool:
        """Tell whether calls are refused."""
        return self.since is not None

    @property
    def seconds(self) -> float | None:
        """For how many seconds it has been open; None while it is closed."""
        return None if self.since is None else self._progress.seconds(time.monotonic())

    def _expect(self, seconds: float) -> None:
        """Note that the prober, or who asks in its stead, takes at most so long from now."""
        now = time.monotonic()
        self._progress = _Progress(self._progress.seconds(now), now, now + seconds + OVERDUE)

    def _is_overdue(self) -> bool:
        return self.is_open and time.monotonic() > self._progress.due_at

    def admit(self, deadline: float) -> None:
        """Do as `check`; but where the prober is overdue, ask the database itself first."""
        if self._is_overdue():
            with self._changing:
                asks, closed = self._is_overdue(), self._closed
                if asks:
                    self._expect(PROBE_TIMEOUT)
            if asks:
                self._ask(closed, deadline)
        self.check()

    def check(self) -> None:
        """Raise StoreUnreachable, at once, while the breaker is open."""
        if self.is_open:
            raise StoreUnreachable(cause="the database is unreachable (circuit breaker open)")

    def trip(self, cause: str | None = None) -> None:
        """Open: a call found the database away. The cause is for the log."""
        with self._changing:
            if self.is_open:
                return
            self._progress = _Progress(0, 0, 0)
            self._expect(FIRST_PAUSE * (1 + _JITTER))
            self.since = time.time()
            self._closed = threading.Event()
            watch = request_context.in_a_thread(self._watch)
            prober = threading.Thread(target=watch, args=(self._closed,), daemon=True)
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
        while not closed.wait(pause * random.uniform(1 - _JITTER, 1 + _JITTER)):  # noqa: S311  # jitter
            pause = min(pause * 2, PAUSE_MAX)
            # Where the process goes on again, the first call may come before this has an answer.
            if not self._is_overdue():
                self._expect(PROBE_TIMEOUT)
            self._ask(closed)
            self._expect(pause * (1 + _JITTER))

    def _ask(self, closed: threading.Event, deadline: float = math.inf) -> None:
        """Ask the database, and close the breaker at an answer, if it is of this outage still."""
        try:
            self._probe(min(time.monotonic() + PROBE_TIMEOUT, deadline))
        except StoreUnreachable:
            return
        except Exception:  # noqa: BLE001, S110  # an answer, and the next call hears it itself
            pass
        with self._changing:
            if closed is self._closed:
                self._close()
