"""The metrics of this process: counters and histograms.

`render` gives them in Prometheus' text format; `shared.observe.telemetry` exports them to
OpenTelemetry. Labels have few values, all defined in our code: no address, no path, no user.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds."""

STARTED_AT = time.time()

Labels = tuple[str, ...]
Listener = Callable[["Counter | Histogram", float, Labels], None]

INSTRUMENTS: list[Counter | Histogram] = []
_adding = threading.Lock()
_listeners: list[Listener] = []


class Counter:
    """A counter without labels, 0 before the first `add`."""

    labels: Labels = ()

    def __init__(self, name: str, description: str) -> None:
        """`name` is in Prometheus' form, unit included."""
        self.name, self.description, self.total = name, description, 0
        INSTRUMENTS.append(self)

    def add(self) -> None:
        """Increment by one."""
        with _adding:
            self.total += 1
        _notify(self, 1, ())

    def lines(self) -> Iterator[str]:
        """Render for Prometheus."""
        yield from _head(self.name, self.description, "counter")
        yield _line(self.name, (), self.total)


class Histogram:
    """The number of values up to each bound, and their sum, by label values."""

    def __init__(self, name: str, description: str, *labels: str) -> None:
        """`name` is in Prometheus' form and ends in `_seconds`."""
        self.name, self.description, self.labels = name, description, labels
        self._series: defaultdict[Labels, Series] = defaultdict(Series)
        INSTRUMENTS.append(self)

    def record(self, value: float, *values: str) -> None:
        """Count a value; `values` are those of the labels, in their order."""
        with _adding:
            series = self._series[values]
            series.counts[bisect_left(BUCKETS, value)] += 1
            series.total += value
        _notify(self, value, values)

    def series(self) -> dict[Labels, Series]:
        """Copy the values recorded so far."""
        with _adding:
            return {
                values: Series(series.counts.copy(), series.total)
                for values, series in self._series.items()
            }

    def by_label(self, index: int) -> dict[str, Series]:
        """Add up the series that share the value of one label."""
        found: defaultdict[str, Series] = defaultdict(Series)
        for values, series in self.series().items():
            found[values[index]] += series
        return found

    def all(self) -> Series:
        """Sum the series of all label values."""
        return sum(self.series().values(), Series())

    def lines(self) -> Iterator[str]:
        """Render for Prometheus."""
        yield from _head(self.name, self.description, "histogram")
        for values, series in self.series().items():
            labels = list(zip(self.labels, values, strict=True))
            count = 0
            for bound, more in zip((*map(str, BUCKETS), "+Inf"), series.counts, strict=True):
                count += more
                yield _line(f"{self.name}_bucket", [*labels, ("le", bound)], count)
            yield _line(f"{self.name}_sum", labels, series.total)
            yield _line(f"{self.name}_count", labels, count)


class Series:
    """One histogram's values under one set of labels."""

    def __init__(self, counts: list[int] | None = None, total: float = 0.0) -> None:
        """Start with given values, or with none."""
        self.counts = counts or [0] * (len(BUCKETS) + 1)
        """By bucket; the last one has no upper bound."""
        self.total = total

    @property
    def number(self) -> int:
        """The count of values."""
        return sum(self.counts)

    def __add__(self, other: Series) -> Series:
        counts = [one + two for one, two in zip(self.counts, other.counts, strict=True)]
        return Series(counts, self.total + other.total)

    def quantile(self, part: float) -> float | None:
        """Estimate a quantile as Prometheus' `histogram_quantile` does; None without values.

        The error is at most one bucket, and the result at most the last bound.
        """
        rank = part * self.number
        if not rank:
            return None
        below = 0
        for index, count in enumerate(self.counts[:-1]):
            if below + count >= rank:
                lower = BUCKETS[index - 1] if index else 0.0
                return lower + (BUCKETS[index] - lower) * (rank - below) / count
            below += count
        return BUCKETS[-1]


def _notify(instrument: Counter | Histogram, value: float, labels: Labels) -> None:
    for listener in _listeners:
        with suppress(Exception):  # A failing exporter must not fail the request.
            listener(instrument, value, labels)


class Gauge(NamedTuple):
    """A value at the moment of the scrape."""

    name: str
    description: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()


def listen(listener: Listener) -> None:
    """Pass every later record to the listener as well."""
    _listeners.append(listener)


def render(gauges: Iterable[Gauge]) -> str:
    """Give all metrics in Prometheus' text format, version 0.0.4."""
    lines = [line for instrument in INSTRUMENTS for line in instrument.lines()]
    for gauge in gauges:
        lines += [
            *_head(gauge.name, gauge.description, "gauge"),
            _line(gauge.name, gauge.labels, gauge.value),
        ]
    return "\n".join(lines) + "\n"


def _head(name: str, description: str, kind: str) -> Iterator[str]:
    yield f"# HELP {name} {description}"
    yield f"# TYPE {name} {kind}"


def _line(name: str, labels: Iterable[tuple[str, str]], value: float) -> str:
    # Label values are names in our code: nothing in them needs escaping.
    pairs = ",".join(f'{label}="{text}"' for label, text in labels)
    return f"{name}{{{pairs}}} {float(value)!r}" if pairs else f"{name} {float(value)!r}"


REQUESTS = Histogram(
    "http_server_request_duration_seconds",
    "Duration of requests by function, status and problem code.",
    "function",
    "status",
    "outcome",
)
HASHES = Histogram(
    "password_hash_duration_seconds", "Duration of the hashes of one password.", "operation"
)
PLACE_WAITS = Histogram(
    "password_place_wait_time_seconds",
    "Time spent waiting for permission to hash a password, by outcome.",
    "outcome",
)
QUERIES = Histogram(
    "db_client_operation_duration_seconds",
    "Duration of statements, excluding the wait for a connection.",
    "statement",
)
MAILS = Histogram(
    "mail_delivery_duration_seconds",
    "Duration of deliveries by kind and outcome.",
    "kind",
    "outcome",
)
REVOCATIONS = Histogram(
    "revocation_list_operation_duration_seconds",
    "Duration of reads and writes of the list in Redis, by outcome.",
    "operation",
    "outcome",
)
REPLICA_READS = Histogram(
    "db_replica_read_duration_seconds",
    "Duration of what was to be read from the replica, by outcome.",
    "read",
    "outcome",
)
CONNECTS = Histogram(
    "db_client_connection_create_time_seconds",
    "Time to connect, including TLS and login, by outcome.",
    "outcome",
)
WAITS = Histogram(
    "db_client_connection_wait_time_seconds", "Time spent waiting for a free connection."
)
ROUND_TRIPS = Counter(
    "db_client_round_trips_total", "Database round trips, excluding TCP and TLS handshakes."
)
OUTAGES = Counter("db_client_outages_total", "Database outages found.")
