"""Times as the old system writes them."""

from __future__ import annotations

from datetime import UTC, datetime


def to_iso(moment: datetime) -> str:
    """Write an aware time as JavaScript's `toISOString` does: UTC, milliseconds, Z."""
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def now_iso() -> str:
    """Write what the clock says."""
    return to_iso(datetime.now(UTC))
