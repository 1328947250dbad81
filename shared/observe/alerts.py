"""Alerts of this process: a few rules over its last five minutes.

Each process evaluates its own requests while it serves them; probes are enough. Each change of a
state is reported once, to the log and to a webhook. `now` is a reading of `time.monotonic()`, so
that setting the clock changes no alert.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from typing import Literal, NamedTuple

from shared.errors import is_server_error
from shared.formats.timestamps import to_iso
from shared.observe import log
from shared.observe.settings import AlertSettings

MINUTES = 5
"""The window of all rules, including the current minute."""
MIN_REQUESTS = 20
"""Below this number a rate means nothing."""
SLOW_PART = 0.05
"""The fraction of slow logins from which `slow_login` fires."""
CHECK_SECONDS = 5.0
"""Between two evaluations."""
WEBHOOK_SECONDS = 5.0
MAIL_SECONDS = 15 * 60.0
"""The wait of the oldest mail above which `mail_stuck` fires."""
_MAX_CLIENTS = 10_000
"""Networks counted per minute, so that an attacker with more cannot fill the memory."""

Name = Literal["error_rate", "database_away", "failed_logins", "slow_login", "mail_stuck"]


class Alert(NamedTuple):
    """A rule and its state."""

    name: Name
    sentence: str
    is_firing: bool = False
    since: float | None = None
    """When the state last changed, in seconds since the Unix epoch; None if it never did."""

    @property
    def state(self) -> str:
        """The state's name in the log and the webhook."""
        return "firing" if self.is_firing else "resolved"


class _Minute:
    def __init__(self, number: int) -> None:
        self.number = number
        self.requests = self.errors = self.logins = self.slow = 0
        self.failures: Counter[str] = Counter()


class Alerts:
    """Counts requests by the minute and evaluates the rules. Safe to share between threads."""

    def __init__(self, thresholds: AlertSettings, application: str = "") -> None:
        """Start with every alert resolved; they may be those of one of several applications."""
        self._thresholds, self._application = thresholds, application
        self._counting = threading.Lock()
        self._judging = threading.Lock()
        self._checking = threading.Lock()
        self._minutes: list[_Minute] = []
        self._next_check = float("-inf")
        self._reported: set[str] = set()
        """Firing alerts that the webhook has accepted."""
        self._states: dict[str, Alert] = {}
        """By name, from the last evaluation."""

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
        """Tell whether CHECK_SECONDS have passed since the last check."""
        return now >= self._next_check

    def check(self, away: float | None, unsent: float, webhook: str | None, now: float) -> None:
        """Evaluate, unless another thread does, and report changes to the webhook.

        A report that the webhook does not accept is sent again at the next check, if still true.
        """
        if not self._checking.acquire(blocking=False):
            return
        try:
            self._next_check = now + CHECK_SECONDS
            for alert in self.judge(away, unsent, now):
                if webhook and alert.is_firing != (alert.name in self._reported):
                    self._report(alert, webhook)
        finally:
            self._checking.release()

    def judge(self, away: float | None, unsent: float, now: float) -> list[Alert]:
        """Give the state of each rule and log the changes.

        `away` is the number of seconds since the database became unreachable; None if it is not.
        `unsent` is how long the oldest mail waited after the last delivery, in seconds.
        """
        with self._judging:
            for judged in self._judge(away or 0.0, unsent, now):
                known = self._states.get(judged.name) or judged._replace(is_firing=False)
                is_new = judged.is_firing != known.is_firing
                alert = judged._replace(since=time.time() if is_new else known.since)
                self._states[alert.name] = alert
                if is_new:
                    severity: log.Severity = "ERROR" if alert.is_firing else "WARNING"
                    log.write(severity, alert.sentence, alert=alert.name, state=alert.state)
            return list(self._states.values())

    def _judge(self, away: float, unsent: float, now: float) -> list[Alert]:
        with self._counting:
            self._minute(now)
            requests = sum(minute.requests for minute in self._minutes)
            errors = sum(minute.errors for minute in self._minutes)
            logins = sum(minute.logins for minute in self._minutes)
            slow = sum(minute.slow for minute in self._minutes)
            failures = sum((minute.failures for minute in self._minutes), Counter[str]())
        limits = self._thresholds
        rate = errors / requests if requests >= MIN_REQUESTS else 0.0
        client, most = failures.most_common(1)[0] if failures else ("", 0)
        source = f" from {client}" if client else ""
        slow_rate = slow / logins if logins >= MIN_REQUESTS else 0.0
        return [
            Alert(
                "error_rate",
                f"{rate:.1%} of {requests} requests failed with 5xx in the last {MINUTES} minutes.",
                0 < limits.error_rate <= rate,
            ),
            Alert(
                "database_away",
                f"The database has been unreachable for {away:.0f} s."
                if away
                else "The database is reachable.",
                0 < limits.database_away <= away,
            ),
            Alert(
                "failed_logins",
                f"{most or 'No'} failed sign-in{'s' * (most != 1)}{source} in the last "
                f"{MINUTES} minutes.",
                0 < limits.failed_logins <= most,
            ),
            Alert(
                "slow_login",
                f"{slow} of {logins} sign-ins took more than {limits.slow_login:g} s "
                f"in the last {MINUTES} minutes.",
                limits.slow_login > 0 and slow_rate >= SLOW_PART,
            ),
            Alert(
                "mail_stuck",
                f"The oldest mail has been waiting for {unsent / 60:.0f} minutes."
                if unsent
                else "No mail is waiting.",
                unsent > MAIL_SECONDS,
            ),
        ]

    def _minute(self, now: float) -> _Minute:
        number = int(now // 60)
        self._minutes = [m for m in self._minutes if number - MINUTES < m.number]
        if not self._minutes or self._minutes[-1].number != number:
            self._minutes.append(_Minute(number))
        return self._minutes[-1]

    def _report(self, alert: Alert, webhook: str) -> None:
        from shared import https  # Loaded only when there is something to send.

        members = {
            "alert": alert.name,
            "state": alert.state,
            "at": to_iso(time.time()),
            "text": f"{alert.state}: {alert.sentence}",
        }
        if self._application:
            members["application"] = self._application
            members["text"] = f"{self._application}, {members['text']}"
        try:
            https.send(
                webhook,
                method="POST",
                body=json.dumps(members).encode(),
                headers={"Content-Type": "application/json"},
                timeout=WEBHOOK_SECONDS,
            )
        except https.FAILURES as error:
            # Not the error's text, which may quote the URL: a secret.
            cause = type(error).__name__
            log.write(
                "WARNING", "The webhook did not accept an alert", cause=cause, alert=alert.name
            )
        else:
            self._reported ^= {alert.name}
