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


def from_iso(text: object) -> datetime | None:
    """Read a time, in UTC where it names no offset; None where it is none."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def now_iso() -> str:
    """Write what the clock says."""
    return to_iso(datetime.now(UTC))
