"""Who gets a place, who waits for one, and who hears at once that there is none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from deploy.services import API, Place, settings
from shared.errors import Overloaded
from shared.model.clients import Client
from shared.rules import bulkhead as module
from shared.rules.bulkhead import DISPLACED, EXPIRED, FULL, Bulkhead, Counts
from shared.settings import Settings
from tests.support.waiting import until

SECONDS = 30
A, B, C, D = (Client(f"198.51.{number}.7") for number in range(4))


class Callers:
    """Callers of a bulkhead, each on a thread of its own, who come in one after the other."""

    def __init__(self, bulkhead: Bulkhead, threads: ThreadPoolExecutor) -> None:
        self.bulkhead = bulkhead
        self.served: list[str] = []
        """Whoever got a place, in that order."""
        self._threads = threads
        self._leave = threading.Semaphore(0)

    def come(self, name: str, client: Client, application: str = "") -> Future[None]:
        """Have somebody come, and return when they hold a place, wait, or were refused."""
        before = self._settled()
        caller = self._threads.submit(self._call, name, client, application)
        until(lambda: caller.done() or self._settled() != before)
        return caller

    def fill(self, **clients: Client) -> None:
        """Have somebody come for each name."""
        for name, client in clients.items():
            self.come(name, client)

    def next(self) -> str:
        """Have one leave, and tell who got the place."""
        number = len(self.served)
        self._leave.release()
        until(lambda: len(self.served) > number)
        return self.served[number]

    def finish(self) -> None:
        """Have everybody leave."""
        while self.bulkhead.counts() != Counts(0, 0):
            self._leave.release()

    def _settled(self) -> tuple[list[str], list[object]]:
        return self.served.copy(), list(self.bulkhead._waiting)

    def _call(self, name: str, client: Client, application: str) -> None:
        with self.bulkhead.place(client, application):
            self.served.append(name)
            assert self._leave.acquire(timeout=SECONDS)


@contextmanager
def _callers(
    places: int = 1, room: int = 4, *, holders: int = 1, applications: int = 1
) -> Iterator[Callers]:
    """Give a bulkhead whose places somebody of D holds already."""
    with ThreadPoolExecutor(40) as threads:
        callers = Callers(
            Bulkhead(places, room, patience=SECONDS, applications=applications), threads
        )
        for number in range(holders):
            callers.come(f"holder {number}", D)
        try:
            yield callers
        finally:
            callers.finish()


def _cause(caller: Future[None]) -> str | None:
    error = caller.exception(SECONDS)
    assert isinstance(error, Overloaded)
    assert error.retry_after == 1
    return error.cause


def test_one_network_may_have_all_places_and_all_room_while_nobody_else_asks() -> None:
    with _callers(2, 4, holders=0) as callers:
        callers.fill(one=A, two=A, three=A, four=A)
        assert callers.bulkhead.counts() == Counts(held=2, waiting=2)
        assert callers.served == ["one", "two"]
        assert _cause(callers.come("five", A)) == module._CAUSES[FULL]


def test_the_network_that_was_served_least_recently_is_next_and_not_whoever_came_first() -> None:
    with _callers(room=20) as callers:
        callers.fill(a1=A, a2=A, a3=A, b1=B, b2=B, c1=C, d1=D)
        order = [callers.next() for _ in range(7)]
        assert order == ["a1", "b1", "c1", "d1", "a2", "b2", "a3"]
        callers.fill(a4=A, b3=B, d2=D, c2=C)
        assert [callers.next() for _ in range(4)] == ["c2", "d2", "b3", "a4"]


def test_whoever_has_many_networks_side_by_side_gets_the_turns_of_one() -> None:
    with _callers(room=20) as callers:
        callers.come("stranger", A)
        assert callers.next() == "stranger"
        side_by_side = [Client(f"2001:db8:1:{number}::1") for number in range(8)]
        callers.come("first", side_by_side[0])
        assert callers.next() == "first"
        for number, client in enumerate(side_by_side[1:]):
            callers.come(f"new {number}", client)
        callers.fill(again=A, stranger=B)
        assert [callers.next() for _ in range(3)] == ["stranger", "again", "new 0"]


def test_whoever_has_many_networks_side_by_side_displaces_nobody() -> None:
    with _callers(room=4) as callers:
        callers.come("stranger", A)
        assert callers.next() == "stranger"
        side_by_side = [Client(f"2001:db8:1:{number}::1") for number in range(8)]
        callers.come("first", side_by_side[0])
        assert callers.next() == "first"
        again = callers.come("again", A)
        callers.come("new 1", side_by_side[1])
        youngest = callers.come("new 2", side_by_side[2])
        for client in side_by_side[3:]:
            assert _cause(callers.come("new", client)) == module._CAUSES[FULL]
        callers.come("other", B)
        assert _cause(youngest) == module._CAUSES[DISPLACED]
        assert not again.done()
        assert [callers.next() for _ in range(3)] == ["other", "again", "new 1"]


def test_a_newcomer_takes_the_room_of_the_youngest_of_the_network_that_has_most() -> None:
    with _callers(room=6) as callers:
        callers.fill(a1=A, b1=B, b2=B)
        oldest, youngest = callers.come("b3", B), callers.come("b4", B)
        callers.come("c1", C)
        assert _cause(youngest) == module._CAUSES[DISPLACED]
        callers.come("a2", A)
        assert _cause(oldest) == module._CAUSES[DISPLACED]
        assert callers.bulkhead.counts() == Counts(held=1, waiting=5)
        # Now A and B have two each, so that neither may take from the other.
        for name, client in (("a3", A), ("b5", B)):
            assert _cause(callers.come(name, client)) == module._CAUSES[FULL]
        assert [callers.next() for _ in range(5)] == ["a1", "b1", "c1", "a2", "b2"]


def test_of_networks_with_as_much_room_the_one_served_most_recently_gives_way() -> None:
    with _callers(room=4) as callers:
        callers.fill(b1=B, a1=A)
        assert [callers.next(), callers.next()] == ["b1", "a1"]
        callers.come("d2", D)
        assert callers.next() == "d2"
        last_b, last_a = callers.come("b2", B), callers.come("a2", A)
        callers.come("d3", D)
        newcomer = callers.come("c1", C)
        # D has the place, too.
        assert callers.bulkhead.counts() == Counts(held=1, waiting=3)
        assert not newcomer.done()
        assert _cause(callers.come("d4", D)) == module._CAUSES[FULL]
        assert _cause(callers.come("a3", A)) == module._CAUSES[FULL]
        callers.come("e1", Client("198.51.200.7"))
        assert _cause(last_a) == module._CAUSES[DISPLACED]
        assert not last_b.done()
        assert [callers.next() for _ in range(3)] == ["c1", "e1", "b2"]


def test_beside_any_number_of_connections_of_one_network_everybody_else_is_let_in() -> None:
    with _callers(2, 6, holders=0) as callers:
        for number in range(12):
            callers.come(f"hostile {number}", A)
        for number in range(20):
            owner = f"owner {number}"
            callers.come(owner, Client(f"100.64.{number}.7"))
            assert callers.next() == owner
            callers.come(f"hostile again {number}", A)
            assert callers.bulkhead.counts() == Counts(held=2, waiting=4)


def test_for_an_application_that_has_no_place_one_is_kept() -> None:
    with _callers(4, 9, holders=0, applications=3) as callers:
        for number, client in enumerate((A, B, C)):
            callers.come(f"shop {number}", client, "shop")
        callers.come("blog 1", A, "blog")
        callers.come("blog 2", A, "blog")
        assert callers.served == ["shop 0", "shop 1", "blog 1"]
        callers.come("wiki", A, "wiki")
        assert callers.served[3:] == ["wiki"]
        assert callers.bulkhead.counts() == Counts(held=4, waiting=2)


def test_of_two_applications_none_has_the_last_place() -> None:
    with _callers(3, 9, holders=0, applications=2) as callers:
        for number, client in enumerate((A, B, C)):
            callers.come(f"shop {number}", client, "shop")
        assert callers.bulkhead.counts() == Counts(held=2, waiting=1)
        callers.come("blog", A, "blog")
        assert callers.served == ["shop 0", "shop 1", "blog"]
        assert callers.bulkhead.counts() == Counts(held=3, waiting=1)


def test_a_place_that_becomes_free_is_not_kept_from_whoever_may_have_it() -> None:
    with _callers(2, 9, holders=0, applications=2) as callers:
        callers.come("shop 1", A, "shop")
        callers.come("shop 2", B, "shop")
        callers.come("blog 1", A, "blog")
        callers.come("blog 2", B, "blog")
        assert callers.served == ["shop 1", "blog 1"]
        assert {callers.next(), callers.next()} == {"shop 2", "blog 2"}


def test_the_application_that_was_served_least_recently_is_next_whatever_its_networks() -> None:
    with _callers(room=20) as callers:
        callers.come("shop a", A, "shop")
        callers.come("blog a", A, "blog")
        assert [callers.next(), callers.next()] == ["shop a", "blog a"]
        for name, client in (("shop b", B), ("shop c", C)):
            callers.come(name, client, "shop")
        callers.come("blog a again", A, "blog")
        callers.come("blog a anew", A, "blog")
        order = [callers.next() for _ in range(4)]
        assert order == ["shop b", "blog a again", "shop c", "blog a anew"]


def test_an_application_that_is_flooded_makes_room_for_another_and_not_the_reverse() -> None:
    with _callers(room=5) as callers:
        flood = [
            callers.come(f"shop {number}", Client(f"100.64.{number}.7"), "shop")
            for number in range(4)
        ]
        assert _cause(callers.come("shop 4", Client("100.64.4.7"), "shop")) == module._CAUSES[FULL]
        callers.come("blog 1", A, "blog")
        assert _cause(flood[3]) == module._CAUSES[DISPLACED]
        callers.come("blog 2", A, "blog")
        assert _cause(flood[2]) == module._CAUSES[DISPLACED]
        # Both have two now.
        assert _cause(callers.come("blog 3", A, "blog")) == module._CAUSES[FULL]
        again = Client("100.64.0.7")
        assert _cause(callers.come("shop 5", again, "shop")) == module._CAUSES[FULL]


def test_one_network_that_floods_every_application_displaces_nobody() -> None:
    with _callers(2, 6, holders=0, applications=2) as callers:
        for number in range(3):
            for name in ("shop", "blog"):
                callers.come(f"{name} {number}", A, name)
        assert callers.bulkhead.counts() == Counts(held=2, waiting=4)
        owner = callers.come("owner", B, "shop")
        assert not owner.done()
        assert callers.bulkhead.counts() == Counts(held=2, waiting=4)
        assert "owner" in (callers.next(), callers.next())


def test_who_finds_no_place_in_time_is_refused_and_takes_nothing_with_them() -> None:
    bulkhead = Bulkhead(1, 2, patience=0.01)
    with bulkhead.place(A):
        for client in (A, B, C):
            with pytest.raises(Overloaded) as refused, bulkhead.place(client):
                pass
            assert refused.value.cause == module._CAUSES[EXPIRED]
        assert bulkhead.counts() == Counts(held=1, waiting=0)
    with bulkhead.place(B):
        assert bulkhead.counts() == Counts(held=1, waiting=0)
    assert bulkhead.counts() == Counts(held=0, waiting=0)


def test_what_fails_in_a_place_gives_it_back() -> None:
    bulkhead = Bulkhead(1, 1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), bulkhead.place(A):
            _ = 1 / 0
    assert bulkhead.counts() == Counts(held=0, waiting=0)


def test_only_so_many_networks_are_remembered_and_the_oldest_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 2)  # One network and its region.
    with _callers() as callers:
        callers.come("a1", A)
        assert callers.next() == "a1"
        callers.fill(d1=D, c1=C)
        assert callers.next() == "d1"


@pytest.mark.parametrize(
    ("concurrency", "threads", "places", "room"),
    [(1, 4, 2, 3), (1, 8, 2, 6), (2, 8, 4, 6), (4, 16, 8, 12), (1, 1, 2, 3), (64, 8, 128, 192)],
)
def test_holders_and_waiters_leave_a_quarter_of_four_threads_for_each_hash(
    concurrency: int, threads: int, places: int, room: int
) -> None:
    bulkhead = Bulkhead.of(concurrency, threads)
    assert (bulkhead._places, bulkhead._room) == (places, room)
    # One that is alone among three has as many places as if there were no others.
    shared = Bulkhead.of(concurrency, threads, applications=3)
    assert (shared._places, shared._room) == (min(places + 2, room), room)


def test_what_is_deployed_leaves_a_quarter_of_its_threads() -> None:
    told = settings(API, Place(project="project", region="region"), {})
    numbers = {name: told[name] for name in ("THREADS", "HASH_CONCURRENCY")}
    deployed = Settings.from_env(numbers)
    bulkhead = Bulkhead.of(deployed.credentials.hash_concurrency, deployed.web.threads)
    assert bulkhead._room == 6
    assert deployed.web.threads == 8
