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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shared.errors import Overloaded
from shared.observe import metrics
from shared.observe.metrics import Gauge

if TYPE_CHECKING:
    from shared.model.clients import Client

PLACES_PER_HASH = 2
"""Of two callers one computes, and one talks to the store or computes next."""
CALLERS_PER_HASH = 3
"""How many hold a place or wait for one, where the server has no more threads for them."""
PATIENCE = 2.0
"""Seconds that a caller waits for a place."""
MAX_REMEMBERED = 20_000
"""Networks and regions whose last turn is known; the oldest turns are forgotten first."""

SERVED, FULL, DISPLACED, EXPIRED = "served", "full", "displaced", "expired"
"""What becomes of a caller, as the metrics call it."""

_CAUSES = {
    FULL: "no room to wait for a place",
    DISPLACED: "a network that has had less needed the room",
    EXPIRED: "no place came free in time",
}


@dataclass(frozen=True, slots=True)
class Counts:
    """Callers that hold a place, and callers that wait for one."""

    held: int
    waiting: int


@dataclass(slots=True, eq=False)
class _Waiter:
    client: Client
    outcome: str = EXPIRED
    settled: threading.Event = field(default_factory=threading.Event)

    def settle(self, outcome: str) -> None:
        self.outcome = outcome
        self.settled.set()


class Bulkhead:
    """A number of places. Safe to share between threads; time is monotonic."""

    def __init__(self, places: int, room: int, *, patience: float = PATIENCE) -> None:
        """Take how many may hold a place, how many may hold one or wait, and for how long."""
        self._places, self._room, self._patience = places, room, patience
        self._changing = threading.Lock()
        self._held: Counter[str] = Counter()
        self._waiting: list[_Waiter] = []
        """In the order of arrival; empty while a place is free."""
        self._turns: OrderedDict[str, int] = OrderedDict()
        self._next_turn = itertools.count(1)

    @classmethod
    def of(cls, concurrency: int, threads: int) -> Bulkhead:
        """Make one for as many hashes at once, and a server of as many threads.

        A quarter of the threads stays free for others, if there are four for each hash.
        """
        room = max(CALLERS_PER_HASH * concurrency, threads * 3 // 4)
        return cls(PLACES_PER_HASH * concurrency, room)

    @contextmanager
    def place(self, client: Client) -> Iterator[None]:
        """Hold a place, at once or after a wait.

        Raises Overloaded: at once where there is no room, and after a wait where no place came
        free in time or where the room went to a network that has had less.
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
        """Count callers right now."""
        with self._changing:
            return Counts(self._held.total(), len(self._waiting))

    def gauges(self) -> list[Gauge]:
        """Give the counts for the metrics."""
        counts = self.counts()
        return [
            Gauge("password_places_held", "Callers that have a place to hash in.", counts.held),
            Gauge("password_places_waiting", "Callers that wait for one.", counts.waiting),
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
                if waiter in self._waiting:  # It may have been settled since.
                    self._waiting.remove(waiter)
        return waiter.outcome

    def _leave(self, client: Client) -> None:
        with self._changing:
            self._held[client.network] -= 1
            if not self._held[client.network]:
                del self._held[client.network]
            if self._waiting:
                # The first of equals is who came first.
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
        """Tell whether a newcomer may wait, and displace somebody for it where that is fair.

        The youngest waiter of the network that has most of the room goes, if the newcomer's has
        less even with the newcomer; of networks that have as much, the one whose turn is last.
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
        """Tell when the region and the network were served last; 0 is never. The least is next."""
        return self._turns.get(client.coarse, 0), self._turns.get(client.network, 0)
