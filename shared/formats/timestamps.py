"""Times as the old system writes them, and the few forms in which others may be read."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

MIN_MILLISECONDS, MAX_MILLISECONDS = 100_000_000_000, 253_402_300_799_999
"""March 1973 and the end of 9999, since 1970. A number below is one of seconds, or no time."""

# Not all that `datetime.fromisoformat` reads, which differs between versions of Python and takes
# "1624041492226" for a moment in 1624. PostgreSQL reads each of these as the same instant.
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?:[Tt ](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?"
    r"(?P<offset>[Zz]|[+-](?:0[0-9]|1[0-5])(?::?[0-5][0-9])?)?)?"
)
_USUAL = b"0000-00-00T00:00:00.000Z"
_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_iso(moment: datetime | float | str) -> str:
    """Write a time as JavaScript's `toISOString` does: UTC, milliseconds, Z.

    It is aware, or in seconds since the Unix epoch. A text stays what it is: PostgreSQL's of a time
    that no datetime holds, such as `infinity`.
    """
    if isinstance(moment, str):
        return moment
    if not isinstance(moment, datetime):
        moment = datetime.fromtimestamp(moment, UTC)
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def from_iso(text: object) -> datetime | None:
    """Read a date, or a date and a time to the second, of ISO 8601; None where it is none.

    It is in UTC where it names no offset; what is finer than a microsecond is cut off.
    """
    if not isinstance(text, str) or not (_is_usual(text) or _TIME.fullmatch(text)):
        return None
    try:
        moment = datetime.fromisoformat(text if text[-1] == "Z" else text.upper())
        if moment.tzinfo is UTC:
            return moment
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # No such day, or out of range in UTC.
        return None


def _is_usual(text: str) -> bool:
    """Tell quickly whether it is what `to_iso` writes, but for its ranges."""
    is_formed = text.isascii() and text.encode().translate(_DIGITS) == _USUAL
    return is_formed and text[11:13] < "24"  # Some versions of Python read 24:00.


def from_milliseconds(number: float) -> datetime | None:
    """Read milliseconds since 1970; None for a number that cannot be meant so."""
    if not MIN_MILLISECONDS <= number <= MAX_MILLISECONDS:
        return None
    return _UNIX_EPOCH + timedelta(microseconds=round(number * 1000))


def has_offset(text: str) -> bool:
    """Tell whether a time that `from_iso` reads says where it is so late."""
    found = _TIME.fullmatch(text)
    return found is not None and found["offset"] is not None


def now_iso() -> str:
    """Write what the clock says."""
    return to_iso(datetime.now(UTC))
