"""A bulkhead: how many callers do work that costs a hash, how many may wait, and who is next.

A place is for all that belongs to a login: its statements and its hashes. Whoever finds none waits,
and holds a thread meanwhile; so holders and waiters together are bounded, and the threads that
are left answer everything else, even while the store is silent.

Places are shared fairly. One network may have all of them while nobody else asks; otherwise the
region that was served least recently is next, within it the network that was, and within that
whoever came first. A region is what `Client.coarse` tells: an IPv6 /48 costs nothing and is 65,536
networks, each of which would be new.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from shared.errors import Overloaded
from shared.model.clients import Client
from shared.observe import metrics
from shared.observe.metrics import Gauge

PLACES_PER_HASH = 2
"""Of two callers one hashes, and one uses the store or hashes next."""
CALLERS_PER_HASH = 3
"""Minimum of callers that hold a place or wait, however few the threads."""
PATIENCE = 2.0
"""Seconds that a caller waits for a place."""
MAX_REMEMBERED = 20_000
"""Networks and regions whose last turn is stored; the oldest are dropped first."""

SERVED, FULL, DISPLACED, EXPIRED = "served", "full", "displaced", "expired"
"""The outcomes for a caller, as in the metrics."""

_CAUSES = {
    FULL: "the queue is full",
    DISPLACED: "displaced by a network with fewer callers",
    EXPIRED: "the wait timed out",
}


class Counts(NamedTuple):
    """Numbers of callers with a place, and of waiting ones."""

    held: int
    waiting: int


class _Waiter:
    def __init__(self, client: Client) -> None:
        self.client, self.outcome, self.settled = client, EXPIRED, threading.Event()

    def settle(self, outcome: str) -> None:
        self.outcome = outcome
        self.settled.set()


class Bulkhead:
    """A number of places with a fair queue. Thread-safe; time is monotonic."""

    def __init__(self, places: int, room: int, *, patience: float = PATIENCE) -> None:
        """`room` limits holders and waiters together; `patience` is the wait in seconds."""
        self._places, self._room, self._patience = places, room, patience
        self._changing = threading.Lock()
        self._held: Counter[str] = Counter()
        self._waiting: list[_Waiter] = []
        """In the order of arrival; empty while a place is free."""
        self._turns: OrderedDict[str, int] = OrderedDict()
        self._next_turn = itertools.count(1)

    @classmethod
    def of(cls, concurrency: int, threads: int) -> Bulkhead:
        """Make one for a number of concurrent hashes and of server threads.

        A quarter of the threads stays free for other requests, if there are four per hash.
        """
        room = max(CALLERS_PER_HASH * concurrency, threads * 3 // 4)
        return cls(PLACES_PER_HASH * concurrency, room)

    @contextmanager
    def place(self, client: Client) -> Iterator[None]:
        """Hold a place, at once or after a wait.

        Raises Overloaded: at once if the queue is full, or after a wait if no place became free
        in time or a network with fewer turns displaced the caller.
        """
        began = time.monotonic()
        outcome = self._take(client)
        metrics.PLACE_WAITS.record(time.monotonic() - began, outcome)
        if outcome != SERVED:
            raise Overloaded(cause=_CAUSES[outcome])
        try:
            yield
        finally:
            self._leave(client)

    def counts(self) -> Counts:
        """Give the current numbers of callers."""
        with self._changing:
            return Counts(self._held.total(), len(self._waiting))

    def gauges(self) -> list[Gauge]:
        """Give the counts for the metrics."""
        counts = self.counts()
        return [
            Gauge("password_places_held", "Callers admitted to hash a password.", counts.held),
            Gauge("password_places_waiting", "Callers waiting to hash a password.", counts.waiting),
        ]

    def _take(self, client: Client) -> str:
        waiter = _Waiter(client)
        with self._changing:
            if self._held.total() < self._places:
                self._serve(waiter)
            elif not self._has_room_for(client):
                return FULL
            else:
                self._waiting.append(waiter)
        if not waiter.settled.wait(self._patience):
            with self._changing:
                if waiter in self._waiting:  # It may have been settled meanwhile.
                    self._waiting.remove(waiter)
        return waiter.outcome

    def _leave(self, client: Client) -> None:
        with self._changing:
            self._held[client.network] -= 1
            if not self._held[client.network]:
                del self._held[client.network]
            if self._waiting:
                # Among equals, min() takes the earliest arrival.
                waiter = min(self._waiting, key=lambda waiter: self._turn(waiter.client))
                self._waiting.remove(waiter)
                self._serve(waiter)

    def _serve(self, waiter: _Waiter) -> None:
        self._held[waiter.client.network] += 1
        turn = next(self._next_turn)
        for name in (waiter.client.network, waiter.client.coarse):
            self._turns[name] = turn
            self._turns.move_to_end(name)
        while len(self._turns) > MAX_REMEMBERED:
            self._turns.popitem(last=False)
        waiter.settle(SERVED)

    def _has_room_for(self, client: Client) -> bool:
        """Tell whether a newcomer may wait; displace a waiter for it if that is fair.

        The network with the largest share loses its youngest waiter, if the newcomer's network has
        less even with the newcomer. Of networks with equal shares the most recently served loses.
        """
        if self._held.total() + len(self._waiting) < self._room:
            return True
        shares = self._held + Counter(waiter.client.network for waiter in self._waiting)

        def has_had(client: Client, more: int = 0) -> tuple[int, int, int]:
            return shares[client.network] + more, *self._turn(client)

        youngest_first = reversed(self._waiting)
        victim = max(youngest_first, key=lambda waiter: has_had(waiter.client), default=None)
        if victim is None or has_had(client, 1) >= has_had(victim.client):
            return False
        self._waiting.remove(victim)
        victim.settle(DISPLACED)
        return True

    def _turn(self, client: Client) -> tuple[int, int]:
        """Give the last turns of region and network, 0 for never. The smallest is served next."""
        return self._turns.get(client.coarse, 0), self._turns.get(client.network, 0)
