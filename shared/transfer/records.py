"""One user as a transfer carries it: read from a row of JSON, written as one, and its digest.

The digest is what a proof rests on. It is SHA-256 over every member in the order of `Record`,
each text as `<length in characters>:<text>`, or `:` where there is none; times as PostgreSQL keeps
them, in 64 bits; a comma before each identity. `shared.transfer.staging` computes the same in SQL,
from what the tables hold.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from shared.credentials.passwords import hash_problem
from shared.formats.timestamps import to_iso
from shared.model.emails import email_key
from shared.model.users import EPOCH_PROBLEM, PROVIDERS, is_epoch

TEXT_MAX_LENGTH = 255
"""Characters: the width of the columns `email`, `password` and `name`; so long are identities."""
MEMBERS = frozenset(
    {"id", "email", "password", "name", "provider", "identities", "epoch"}
    | {"createdAt", "created_at", "updatedAt", "updated_at", "pending", "revokedSessions"}
)
"""What a row may say of a user, and what the JSON store adds. Anything else has no place in the
database."""

_TEXTS = ("email", "id", "password", "name", "provider")
_ID_NAMESPACE = uuid.UUID("6ba1b6a1-1a3f-5c0e-9d51-7c1d7f6c2a55")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# Wider than for a new user: whoever the old server let in comes along.
_EMAIL = re.compile(r"[^\s@\x00-\x20\x7f]+@[^\s@\x00-\x20\x7f]+")
_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_64_BITS = 2**64 - 1
_HEX = "\\x"  # As PostgreSQL begins bytes.
_SID = re.compile(r"[\x21-\x7e]{1,255}")
_LATEST_END = 253_402_300_799
"""The last second of the year 9999."""


class InvalidRow(ValueError):
    """The row cannot be brought over; the message is a sentence that quotes none of it."""


class Record(NamedTuple):
    """A user with everything that the database keeps of one."""

    id: str
    email: str
    email_key: str | None
    """None for a row of the old server's whose address another one has in another spelling."""
    password: str | None
    name: str | None
    provider: str | None
    created_at: int | None
    """Microseconds since 2000 in UTC, as PostgreSQL keeps its times; so is `updated_at`."""
    updated_at: int | None
    epoch: int
    identities: tuple[tuple[str, str], ...] = ()
    """Issuer and subject of each, in the order in which they were linked."""


def parse(row: object) -> Record:
    """Check a row of a users file. Raises InvalidRow.

    Names in camel and in snake case are understood. A missing id is derived from the email key,
    so that every run makes the same.
    """
    if isinstance(row, InvalidRow):
        raise row
    if not isinstance(row, dict):
        raise InvalidRow("It is not an object.")
    email, user_id, password, name, provider = texts = tuple(map(row.get, _TEXTS))
    for value in texts:
        if value is not None and type(value) is not str:
            raise InvalidRow(f"The {_TEXTS[texts.index(value)]} is not a text.")
    if email is None or len(email) > TEXT_MAX_LENGTH or not _EMAIL.fullmatch(email.strip()):
        raise InvalidRow("The email is missing or not an address.")
    key = email_key(email)
    if user_id is None:
        user_id = str(uuid.uuid5(_ID_NAMESPACE, key))
    elif not _UUID.fullmatch(user_id):
        raise InvalidRow("The id is not a UUID.")
    _check_login(provider, password)
    if name is not None and len(name) > TEXT_MAX_LENGTH:
        raise InvalidRow(f"The name is longer than {TEXT_MAX_LENGTH} characters.")
    return Record(
        user_id.lower(),
        email,
        key,
        password or None,
        name,
        provider,
        _moment(row, "createdAt", "created_at"),
        _moment(row, "updatedAt", "updated_at"),
        _epoch(row),
        _identities(row),
    )


def _check_login(provider: str | None, password: str | None) -> None:
    if provider is not None and provider not in PROVIDERS:
        raise InvalidRow(f"The provider is none of {', '.join(PROVIDERS)}.")
    if not password and provider in (None, "local"):
        raise InvalidRow("A local user without a password could never log in.")
    if password and (problem := hash_problem(password)):
        raise InvalidRow(problem)


def canonical(record: Record) -> bytes:
    """Give the bytes that the digest is made of. Raises InvalidRow for what is no text."""
    user_id, email, key, password, name, provider, created, updated, epoch, identities = record
    text = (
        f"{user_id}{len(email)}:{email}"
        f"{':' if key is None else f'{len(key)}:{key}'}"
        f"{':' if password is None else f'{len(password)}:{password}'}"
        f"{':' if name is None else f'{len(name)}:{name}'}"
        f"{':' if provider is None else f'{len(provider)}:{provider}'}"
        f"{'' if created is None else f'{_HEX}{created & _64_BITS:016x}'},"
        f"{'' if updated is None else f'{_HEX}{updated & _64_BITS:016x}'},{epoch}"
    )
    for issuer, subject in identities:
        text += f",{len(issuer)}:{issuer}{len(subject)}:{subject}"
    if "\0" in text:
        raise InvalidRow("A text holds a NUL character.")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidRow("A text holds half of a surrogate pair.") from None


def digest(record: Record) -> bytes:
    """Give the record's SHA-256. Raises InvalidRow for what is no text."""
    return hashlib.sha256(canonical(record)).digest()


def to_json(record: Record) -> dict[str, Any]:
    """Write the record as the old server does: its order of members, nothing that is absent.

    Raises OverflowError for a time before the year 1.
    """
    name = {} if record.name is None else {"name": record.name}
    provider = {} if record.provider is None else {"provider": record.provider}
    row: dict[str, Any] = {"id": record.id, "email": record.email}
    if record.password is None:
        row |= name | provider
    else:
        row |= {"password": record.password} | provider | name
    if record.created_at is not None:
        row["createdAt"] = _iso(record.created_at)
    if record.updated_at is not None:
        row["updatedAt"] = _iso(record.updated_at)
    if record.identities:
        row["identities"] = [{"issuer": i, "subject": s} for i, s in record.identities]
    if record.epoch:
        row["epoch"] = record.epoch
    return row


def revoked_sessions(row: object) -> list[tuple[str, float]]:
    """Give the sessions that were logged out, each with its end in seconds. Raises InvalidRow.

    They are not of the record: a proof is about users.
    """
    ends = row.get("revokedSessions") if isinstance(row, dict) else None
    if ends is None:
        return []
    if not isinstance(ends, dict) or not all(
        _SID.fullmatch(sid) and type(end) in (int, float) and end == end
        for sid, end in ends.items()
    ):
        raise InvalidRow("The revokedSessions are not session ids, each with its end in seconds.")
    return [(sid, max(0, min(end, _LATEST_END))) for sid, end in ends.items()]


def operation(row: object) -> str | None:
    """Give the operation that brings who is pending. Raises InvalidRow."""
    pending = row.get("pending") if isinstance(row, dict) else None
    if pending is None:
        return None
    found = pending.get("operation") if isinstance(pending, dict) else None
    if not isinstance(found, str) or not _UUID.fullmatch(found):
        raise InvalidRow("The pending names no operation.")
    return found


def _moment(row: dict[str, Any], camel: str, snake: str) -> int | None:
    """Read an ISO 8601 time, in UTC where it names no offset, or milliseconds since 1970."""
    value = row.get(camel)
    if value is None:
        value = row.get(snake)
    elif row.get(snake) not in (None, value):
        raise InvalidRow(f"{camel} and {snake} contradict each other.")
    if value is None:
        return None
    try:
        if type(value) is str:
            moment = datetime.fromisoformat(value.upper())
            if moment.tzinfo is not UTC:
                # Of one that is out of range in UTC, PostgreSQL would be the only one to know.
                moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        elif type(value) in (int, float):
            moment = _UNIX_EPOCH + timedelta(microseconds=round(value * 1000))
        else:
            raise InvalidRow(f"{camel} is not a time.")
    except (ValueError, OverflowError):
        raise InvalidRow(f"{camel} is not a time.") from None
    since = moment - _POSTGRES_EPOCH  # Its parts are exact, and quicker than a division.
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _epoch(row: dict[str, Any]) -> int:
    epoch = row.get("epoch", 0)
    if not is_epoch(epoch):
        raise InvalidRow(EPOCH_PROBLEM)
    return epoch


def _identities(row: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    entries = row.get("identities")
    if entries is None:
        return ()
    if not isinstance(entries, list) or not all(map(_is_identity, entries)):
        raise InvalidRow(
            "The identities are not objects of an issuer and a subject, both texts of 1 to "
            f"{TEXT_MAX_LENGTH} characters."
        )
    identities = tuple((entry["issuer"], entry["subject"]) for entry in entries)
    if len(set(identities)) < len(identities):
        raise InvalidRow("It names an identity twice.")
    return identities


def _is_identity(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and entry.keys() == {"issuer", "subject"}
        and all(type(text) is str and 0 < len(text) <= TEXT_MAX_LENGTH for text in entry.values())
    )


def _iso(microseconds: int) -> str:
    """Write milliseconds, as the old server does, unless there is more to tell."""
    moment = _POSTGRES_EPOCH + timedelta(microseconds=microseconds)
    if microseconds % 1000 == 0:
        return to_iso(moment)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
