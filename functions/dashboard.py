"""GET /api/dashboard: statistics, metrics and alerts on one page without a script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flask import Response

from functions.pages import charts, rendering
from functions.pages.charts import Chart
from shared.errors import StoreFault, StoreUnavailable
from shared.formats.timestamps import to_iso
from shared.model.statistics import Statistics, Window
from shared.observe import metrics
from shared.observe.metrics import Series
from shared.web.call import Call
from shared.web.endpoint import endpoint

DAYS = 30
MAX_SERIES = 5
"""In one chart; dashboard.css has as many colours."""
SHADES = 4
_WEEK = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@endpoint("GET", admin=True, basic=True)
def dashboard(call: Call) -> Response:
    """Give the page: always 200; without statistics if the database is unreachable."""
    return rendering.styled_page(
        "dashboard.html",
        "dashboard.css",
        environment=", ".join(filter(None, (call.settings.application, call.settings.environment))),
        now=_moment(call.now),
        started=_moment(metrics.STARTED_AT),
        width=charts.WIDTH,
        height=charts.HEIGHT,
        alerts=_alerts(call),
        database=_database(call),
        latencies=_latencies(),
        **_figures(call),
        mail=_mail(call),
    )


def _alerts(call: Call) -> list[dict[str, Any]]:
    return [
        {
            "name": alert.name,
            "sentence": alert.sentence,
            "is_firing": alert.is_firing,
            "since": alert.since and _moment(alert.since),
        }
        for alert in call.app.judge_alerts()
        if alert.name != "mail_stuck" or call.app.outbox_status() is not None
    ]


def _database(call: Call) -> list[tuple[str, str]]:
    """Give the process's view of the database; does not query it."""
    database = call.app.store.database_status
    if database is None:
        return [("store", "JSON file"), *_revocations(call)]
    pool, fallback = database.pool(), database.fallback()
    found = [
        (
            "database",
            f"Unreachable since {_moment(fallback.since)}" if fallback.since else "Connected",
        ),
        ("outages", str(metrics.OUTAGES.total)),
        ("connections", f"{pool.total}, {pool.idle} idle, {pool.waiting} waiting"),
        ("round trips", str(metrics.ROUND_TRIPS.total)),
        ("fallback", fallback.mode),
        ("pending sign-ups", str(fallback.pending)),
    ]
    if fallback.mode != "off":
        found.append(("snapshot", _moment(fallback.snapshot) if fallback.snapshot else "none"))
    return [*found, *_revocations(call)]


def _revocations(call: Call) -> list[tuple[str, str]]:
    """Give the process's view of Redis; does not ask it."""
    if call.settings.revocations.url is None:
        return []
    since = call.app.revocations.since
    return [("list of revocations", f"Away since {_moment(since)}" if since else "Connected")]


def _mail(call: Call) -> list[tuple[str, str]]:
    """Give what waits in the outbox, and what came of the mails of this process.

    The outbox is asked, because the process that serves administrators may deliver none.
    """
    if not call.settings.mail.enabled:
        return []
    try:
        status = call.app.store.mail.status()
    except (StoreUnavailable, StoreFault) as error:
        call.log["cause"] = str(error)
        found = [("waiting", "unknown")]
    else:
        found = [("waiting", f"{status.waiting:,}")]
        if status.waiting:
            found.append(("the oldest for", f"{status.oldest / 60:.0f} minutes"))
    outcomes = sorted(metrics.MAILS.by_label(1).items())
    return [*found, *((f"{name} here", f"{series.number:,}") for name, series in outcomes)]


@dataclass(frozen=True, slots=True)
class _Latency:
    name: str
    number: int
    quantiles: list[str]
    part: float
    """The width of the bar: percent of a second."""


def _latencies() -> list[_Latency]:
    requests = metrics.REQUESTS.by_label(0)
    rows = [_latency(f"{name} requests", series) for name, series in sorted(requests.items())]
    for name, histogram in (
        ("password hashes", metrics.HASHES),
        ("waits to hash a password", metrics.PLACE_WAITS),
        ("database statements", metrics.QUERIES),
        ("database connects", metrics.CONNECTS),
        ("reads from the replica", metrics.REPLICA_READS),
        ("waits for a connection", metrics.WAITS),
        ("deliveries of a mail", metrics.MAILS),
        ("reads and writes of the list of revocations", metrics.REVOCATIONS),
    ):
        series = histogram.all()
        if series.number:
            rows.append(_latency(name, series))
    return rows


def _latency(name: str, series: Series) -> _Latency:
    found = [series.quantile(part) or 0.0 for part in (0.5, 0.95, 0.99)]
    texts = [f"{seconds * 1000:.1f} ms" for seconds in found]
    return _Latency(name, series.number, texts, round(min(found[1], 1.0) * 100, 1))


def _figures(call: Call) -> dict[str, Any]:
    """Give the statistics, or a sentence if there are none."""
    window = Window(DAYS, call.now)
    try:
        found = call.app.store.statistics(window)
    except (StoreUnavailable, StoreFault) as error:
        call.log["cause"] = str(error)
        return {"problem": "No statistics available; see `cause` in the log."}
    days = window.each_day()
    names = [day.isoformat() for day in days]
    folded = _folded([name for name, _ in found.users.most_common()] or ["local"])
    numbers = {name: sum(map(found.users.__getitem__, of)) for name, of in folded.items()}
    registrations = [
        [sum(found.registrations[day, provider] for provider in of) for of in folded.values()]
        for day in days
    ]
    most = max(1, *numbers.values())
    return {
        "problem": None,
        "as_of": found.as_of and _moment(found.as_of),
        "users": [
            ("users", f"{found.users.total():,}"),
            ("new in a week", f"{found.users_last_week:,}"),
            ("new in 30 days", f"{found.users_last_month:,}"),
        ],
        "registrations": _columns(names, list(folded), registrations),
        "providers": [
            (name, f"{number:,}", round(100 * number / most, 1)) for name, number in numbers.items()
        ],
        **_logins(found, window, names),
    }


def _folded(providers: Sequence[str]) -> dict[str, Sequence[str]]:
    """Give the series of a chart with their providers, the greatest first: all fit into it."""
    if len(providers) <= MAX_SERIES:
        return {name: [name] for name in providers}
    rest = providers[MAX_SERIES - 1 :]
    return {name: [name] for name in providers[: MAX_SERIES - 1]} | {f"{len(rest)} others": rest}


def _logins(found: Statistics, window: Window, names: Sequence[str]) -> dict[str, Any]:
    if found.events is None:
        return {"logins": None, "hours": None}
    events = found.events
    successes = dict.fromkeys(window.each_day(), 0)
    for (day, _), number in events.logins.items():
        successes[day] += number
    values = [[number, events.failed_logins[day]] for day, number in successes.items()]
    most = max(events.login_hours.values(), default=0)
    busiest = max(events.login_hours, key=lambda key: events.login_hours[key], default=(0, 0))
    return {
        "logins": _columns(names, ["logins", "failed logins"], values),
        "hours": {
            "summary": f"maximum {most}, on {_WEEK[busiest[0]]} at {busiest[1]}:00",
            "days": [
                {
                    "name": name,
                    "hours": [
                        (value, charts.shade(value, most, SHADES))
                        for value in (events.login_hours[day, hour] for hour in range(24))
                    ],
                }
                for day, name in enumerate(_WEEK)
            ],
        },
    }


@dataclass(frozen=True, slots=True)
class _Columns:
    names: Sequence[str]
    series: Sequence[str]
    values: Sequence[Sequence[int]]
    chart: Chart
    summary: str


def _columns(
    names: Sequence[str], series: Sequence[str], values: Sequence[Sequence[int]]
) -> _Columns:
    sums = [
        f"{sum(column)} {name}"
        for name, column in zip(series, zip(*values, strict=True), strict=True)
    ]
    summary = f"in {len(names)} days {' and '.join(sums)}"
    return _Columns(names, series, values, charts.stacked(names, series, values), summary)


def _moment(seconds: float) -> str:
    return to_iso(seconds)[:16].replace("T", " ")
