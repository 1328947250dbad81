"""A bulkhead: how many callers do work that costs a hash, how many may wait, and who is next.

A place is for all that belongs to a login: its statements and its hashes. Whoever finds none waits,
and holds a thread meanwhile; so holders and waiters together are bounded, and the threads that
are left answer everything else, even while the store is silent.

Places are shared fairly. One network may have all of them while nobody else asks; otherwise the
region that was served least recently is next, within it the network that was, and within that
whoever came first. A region is what `Client.coarse` tells: an IPv6 /48 costs nothing and is 65,536
networks, each of which would be new.

Where a process has several applications, the one that was served least recently comes before all
that, and a place is kept for each that has none: while the stores of some are silent, the others
get on.
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


class _Caller:
    def __init__(self, client: Client, application: str) -> None:
        self.client, self.application = client, application
        self.outcome, self.settled = EXPIRED, threading.Event()
        self.network = f"{application} {client.network}"
        self.levels = (f"{application} ", f"{application} {client.coarse}", self.network)
        """Whose turns are remembered, from the top."""

    def settle(self, outcome: str) -> None:
        self.outcome = outcome
        self.settled.set()


class Bulkhead:
    """A number of places with a fair queue. Thread-safe; time is monotonic."""

    def __init__(
        self, places: int, room: int, *, patience: float = PATIENCE, applications: int = 1
    ) -> None:
        """`room` limits holders and waiters together; `patience` is the wait in seconds."""
        self._places, self._room, self._patience = places, room, patience
        self._applications = applications
        self._changing = threading.Lock()
        self._held: Counter[str] = Counter()
        """By network."""
        self._held_by: Counter[str] = Counter()
        """By application."""
        self._waiting: list[_Caller] = []
        """In the order of arrival; for none of them a place is free."""
        self._turns: OrderedDict[str, int] = OrderedDict()
        self._next_turn = itertools.count(1)

    @classmethod
    def of(cls, concurrency: int, threads: int, applications: int = 1) -> Bulkhead:
        """Make one for a number of concurrent hashes, of server threads, and of applications.

        A quarter of the threads stays free for other requests, if there are four per hash. Places
        that are kept come on top, so that one application alone has as many as ever.
        """
        room = max(CALLERS_PER_HASH * concurrency, threads * 3 // 4)
        places = min(PLACES_PER_HASH * concurrency + applications - 1, room)
        return cls(places, room, applications=applications)

    @contextmanager
    def place(self, client: Client, application: str = "") -> Iterator[None]:
        """Hold a place, at once or after a wait.

        Raises Overloaded: at once if the queue is full, or after a wait if no place became free
        in time or a network with fewer turns displaced the caller.
        """
        began = time.monotonic()
        caller = _Caller(client, application)
        outcome = self._take(caller)
        metrics.PLACE_WAITS.record(time.monotonic() - began, outcome)
        if outcome != SERVED:
            raise Overloaded(cause=_CAUSES[outcome])
        try:
            yield
        finally:
            self._leave(caller)

    def counts(self) -> Counts:
        """Give the current numbers of callers."""
        with self._changing:
            return Counts(self._held_by.total(), len(self._waiting))

    def gauges(self) -> list[Gauge]:
        """Give the counts for the metrics."""
        counts = self.counts()
        return [
            Gauge("password_places_held", "Callers admitted to hash a password.", counts.held),
            Gauge("password_places_waiting", "Callers waiting to hash a password.", counts.waiting),
        ]

    def _take(self, caller: _Caller) -> str:
        with self._changing:
            if self._is_free_for(caller):
                self._serve(caller)
            elif not self._has_room_for(caller):
                return FULL
            else:
                self._waiting.append(caller)
        if not caller.settled.wait(self._patience):
            with self._changing:
                if caller in self._waiting:  # It may have been settled meanwhile.
                    self._waiting.remove(caller)
        return caller.outcome

    def _leave(self, caller: _Caller) -> None:
        with self._changing:
            self._held_by[caller.application] -= 1
            self._held[caller.network] -= 1
            if not self._held[caller.network]:
                del self._held[caller.network]
            # Among equals, min() takes the earliest arrival.
            free = [waiter for waiter in self._waiting if self._is_free_for(waiter)]
            if free:
                waiter = min(free, key=self._turn)
                self._waiting.remove(waiter)
                self._serve(waiter)

    def _is_free_for(self, caller: _Caller) -> bool:
        """Tell whether a place is free that is not kept for another application."""
        served = {caller.application, *(+self._held_by)}
        kept = max(0, self._applications - len(served))
        return self._held_by.total() + kept < self._places

    def _serve(self, caller: _Caller) -> None:
        self._held[caller.network] += 1
        self._held_by[caller.application] += 1
        turn = next(self._next_turn)
        for name in caller.levels:
            self._turns[name] = turn
            self._turns.move_to_end(name)
        while len(self._turns) > MAX_REMEMBERED:
            self._turns.popitem(last=False)
        caller.settle(SERVED)

    def _has_room_for(self, caller: _Caller) -> bool:
        """Tell whether a newcomer may wait; displace a waiter for it if that is fair.

        The network with the largest share loses its youngest waiter, if the newcomer's network has
        less even with the newcomer. Of networks with equal shares the most recently served loses.
        Likewise, before that, of applications.
        """
        if self._held_by.total() + len(self._waiting) < self._room:
            return True
        networks = self._held + Counter(waiter.network for waiter in self._waiting)
        applications = self._held_by + Counter(waiter.application for waiter in self._waiting)

        def has_had(one: _Caller, more: int = 0) -> tuple[int, ...]:
            return networks[one.network] + more, *self._turn(one)

        def in_all(one: _Caller) -> tuple[int, ...]:
            return applications[one.application], *has_had(one)

        def is_fair(one: _Caller) -> bool:
            if one.application == caller.application:
                return has_had(caller, 1) < has_had(one)
            return applications[caller.application] + 1 < applications[one.application]

        youngest_first = filter(is_fair, reversed(self._waiting))
        victim = max(youngest_first, key=in_all, default=None)
        if victim is None:
            return False
        self._waiting.remove(victim)
        victim.settle(DISPLACED)
        return True

    def _turn(self, caller: _Caller) -> tuple[int, ...]:
        """Give the last turns from the top, 0 for never. The smallest is served next."""
        return tuple(self._turns.get(name, 0) for name in caller.levels)
