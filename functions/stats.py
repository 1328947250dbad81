"""GET /api/stats: numbers of users, registrations and logins; for administrators."""

from __future__ import annotations

import re
from collections import Counter
from datetime import date
from typing import Any

from flask import Response

from shared.errors import InvalidInput
from shared.formats.timestamps import to_iso
from shared.model.statistics import MAX_DAYS, Events, Window
from shared.model.users import PROVIDERS
from shared.web.call import Call
from shared.web.endpoint import endpoint
from shared.web.responses import answer

_DAYS = "30"
_REASONS = ("unknown_account", "wrong_password", "too_many_attempts")


@endpoint("GET", admin=True, basic=True)
def stats(call: Call) -> Response:
    """Give the old server's numbers and the events of the last `days`: 200."""
    window = Window(_days(call), call.now)
    found = call.app.store.statistics(window)
    days = window.each_day()
    members: dict[str, Any] = {
        "total_users": found.users.total(),
        "local_users": found.users["local"],
        "google_users": found.users["google"],
        "firebase_google_users": found.users["firebase-google"],
        "users_last_week": found.users_last_week,
        "users_last_month": found.users_last_month,
        "window": {"days": window.days, "first": str(days[0]), "last": str(days[-1])},
        "registrations": _by_day(days, found.registrations),
    }
    if found.as_of is not None:
        members["as_of"] = to_iso(found.as_of)
    return answer(members | _of_events(days, found.events))


def _days(call: Call) -> int:
    given = call.request.args.getlist("days") or [_DAYS]
    if len(given) == 1 and re.fullmatch("[0-9]{1,3}", given[0]) and 1 <= int(given[0]) <= MAX_DAYS:
        return int(given[0])
    raise InvalidInput("days", f"The days must be a whole number from 1 to {MAX_DAYS}")


def _of_events(days: list[date], events: Events | None) -> dict[str, Any]:
    if events is None:
        return dict.fromkeys(("logins", "outcomes", "login_failures", "login_hours"))
    return {
        "logins": _by_day(days, events.logins),
        "outcomes": dict(sorted(events.outcomes.items())),
        "login_failures": {reason: events.login_failures[reason] for reason in _REASONS},
        "login_hours": [[events.login_hours[day, hour] for hour in range(24)] for day in range(7)],
    }


def _by_day(days: list[date], counts: Counter[tuple[date, str]]) -> list[dict[str, Any]]:
    """Give each day with its counts by provider."""
    providers = [*PROVIDERS, *sorted({provider for _, provider in counts} - {*PROVIDERS})]
    return [
        {"day": str(day), "providers": {provider: counts[day, provider] for provider in providers}}
        for day in days
    ]
