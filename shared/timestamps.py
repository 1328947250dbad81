"""Times as the old system writes them."""

from __future__ import annotations

from datetime import UTC, datetime


def to_iso(moment: datetime | float) -> str:
    """Write a time as JavaScript's `toISOString` does: UTC, milliseconds, Z.

    It is aware, or in seconds since the Unix epoch.
    """
    if not isinstance(moment, datetime):
        moment = datetime.fromtimestamp(moment, UTC)
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def now_iso() -> str:
    """Write what the clock says."""
    return to_iso(datetime.now(UTC))
