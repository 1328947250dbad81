"""Whether something is wrong with this process: a few rules over its last minutes.

Each process judges what it sees itself, when it serves requests; probes are enough. Every change of
a state is told once, to the log and to a webhook. `now` is a reading of `time.monotonic()`: minutes
pass by it whatever becomes of the clock, which is only told to people.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Literal

from shared.errors import is_server_error
from shared.formats.timestamps import to_iso
from shared.observe import log
from shared.settings import Thresholds

MINUTES = 5
"""That are judged together, the current one included."""
MIN_REQUESTS = 20
"""With fewer of them a rate says nothing."""
SLOW_PART = 0.05
"""Of logins, from which on they count as slow."""
CHECK_SECONDS = 5.0
"""Between two judgements."""
WEBHOOK_SECONDS = 5.0
_MAX_CLIENTS = 10_000
"""Networks counted in a minute: an attacker with more must not fill the memory."""

Name = Literal["error_rate", "database_away", "failed_logins", "slow_login"]


@dataclass(frozen=True, slots=True)
class Alert:
    """The state of a rule."""

    name: Name
    sentence: str
    is_firing: bool = False
    since: float | None = None
    """When it took this state, in seconds since the Unix epoch; None from the start on."""

    @property
    def state(self) -> str:
        """What it is called outside."""
        return "firing" if self.is_firing else "resolved"


@dataclass(slots=True)
class _Minute:
    number: int
    requests: int = 0
    errors: int = 0
    logins: int = 0
    slow: int = 0
    failures: Counter[str] = field(default_factory=Counter)


class Alerts:
    """Counts requests by the minute, and judges them. Safe to share between threads."""

    def __init__(self, thresholds: Thresholds) -> None:
        """Begin with nothing wrong."""
        self._thresholds = thresholds
        self._counting = threading.Lock()
        self._judging = threading.Lock()
        self._checking = threading.Lock()
        self._minutes: list[_Minute] = []
        self._next_check = float("-inf")
        self._told: set[str] = set()
        """What the webhook knows to be firing."""
        self._states: dict[str, Alert] = {}
        """As they were judged last."""

    def record(self, function: str, status: int, seconds: float, client: str, now: float) -> None:
        """Count a request; `client` is its network, or empty."""
        with self._counting:
            minute = self._minute(now)
            minute.requests += 1
            minute.errors += is_server_error(status)
            if function != "login":
                return
            if status == 200:
                minute.logins += 1
                minute.slow += seconds > self._thresholds.slow_login
            elif status in (401, 429) and (
                client in minute.failures or len(minute.failures) < _MAX_CLIENTS
            ):
                minute.failures[client] += 1

    def is_due(self, now: float) -> bool:
        """Tell whether it is time to check."""
        return now >= self._next_check

    def check(self, away: float | None, webhook: str | None, now: float) -> None:
        """Judge, unless somebody else is at it, and tell the webhook what it does not know.

        What it did not take it is told again at the next check, if it is still so.
        """
        if not self._checking.acquire(blocking=False):
            return
        try:
            self._next_check = now + CHECK_SECONDS
            for alert in self.judge(away, now):
                if webhook and alert.is_firing != (alert.name in self._told):
                    self._tell(alert, webhook)
        finally:
            self._checking.release()

    def judge(self, away: float | None, now: float) -> list[Alert]:
        """Give the state of each rule, and log what has changed.

        `away` is for how many seconds the database has been away, if it is.
        """
        with self._judging:
            for judged in self._judge(away or 0.0, now):
                known = self._states.get(judged.name) or replace(judged, is_firing=False)
                is_new = judged.is_firing != known.is_firing
                alert = replace(judged, since=time.time() if is_new else known.since)
                self._states[alert.name] = alert
                if is_new:
                    severity: log.Severity = "ERROR" if alert.is_firing else "WARNING"
                    log.write(severity, alert.sentence, alert=alert.name, state=alert.state)
            return list(self._states.values())

    def _judge(self, away: float, now: float) -> list[Alert]:
        with self._counting:
            self._minute(now)
            requests = sum(minute.requests for minute in self._minutes)
            errors = sum(minute.errors for minute in self._minutes)
            logins = sum(minute.logins for minute in self._minutes)
            slow = sum(minute.slow for minute in self._minutes)
            failures = sum((minute.failures for minute in self._minutes), Counter[str]())
        limits = self._thresholds
        rate = errors / requests if requests >= MIN_REQUESTS else 0.0
        client, most = failures.most_common(1)[0] if failures else ("nowhere", 0)
        slow_rate = slow / logins if logins >= MIN_REQUESTS else 0.0
        return [
            Alert(
                "error_rate",
                f"{rate:.1%} of {requests} requests in {MINUTES} minutes were answered with 5xx.",
                0 < limits.error_rate <= rate,
            ),
            Alert(
                "database_away",
                f"The database has been away for {away:.0f} seconds.",
                0 < limits.database_away <= away,
            ),
            Alert(
                "failed_logins",
                f"{most} logins from {client} failed in {MINUTES} minutes.",
                0 < limits.failed_logins <= most,
            ),
            Alert(
                "slow_login",
                f"{slow} of {logins} logins in {MINUTES} minutes took more than "
                f"{limits.slow_login:g} seconds.",
                limits.slow_login > 0 and slow_rate >= SLOW_PART,
            ),
        ]

    def _minute(self, now: float) -> _Minute:
        number = int(now // 60)
        self._minutes = [m for m in self._minutes if number - MINUTES < m.number]
        if not self._minutes or self._minutes[-1].number != number:
            self._minutes.append(_Minute(number))
        return self._minutes[-1]

    def _tell(self, alert: Alert, webhook: str) -> None:
        from shared import https  # What it needs is loaded for nobody else.

        members = {
            "alert": alert.name,
            "state": alert.state,
            "at": to_iso(time.time()),
            "text": f"{alert.state}: {alert.sentence}",
        }
        try:
            https.send(
                webhook,
                method="POST",
                body=json.dumps(members).encode(),
                headers={"Content-Type": "application/json"},
                timeout=WEBHOOK_SECONDS,
            )
        except https.FAILURES as error:
            # The URL is a secret, and not in the log.
            cause = type(error).__name__
            log.write("WARNING", "The webhook did not take an alert", cause=cause, alert=alert.name)
        else:
            self._told ^= {alert.name}
