"""What a users file says: each record checked, and found by its key, its id, its identities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from shared.formats.strict_json import InvalidJson, loads
from shared.model.emails import email_key
from shared.model.user_record import PENDING, InvalidRow, check, with_later_times
from shared.model.users import (
    EPOCH_PROBLEM,
    USER_COLUMNS,
    ExternalIdentity,
    User,
    is_epoch,
    user_from,
)
from shared.store.contract import Credentials

VERIFIED_AT, UNVERIFIED_SINCE, DISABLED_AT = "emailVerifiedAt", "unverifiedSince", "disabledAt"

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Users:
    """The file as it was read, and where to find whom. The stamp tells one file from the next."""

    stamp: tuple[int, ...] | None
    records: list[Record]
    by_key: dict[str, Record]
    by_id: dict[str, Record]
    by_identity: dict[ExternalIdentity, Record]
    pending: list[Record]


def parse(data: bytes) -> list[Record]:
    """Check that the bytes are users as the old server writes them. Raises InvalidJson."""
    records = loads(data)
    if not isinstance(records, list):
        raise InvalidJson("It is not an array of users.")
    for number, record in enumerate(records, 1):
        try:
            check(record, strict=False)
        except InvalidRow as error:
            raise InvalidJson(f"Entry {number} is not a user.") from error
        try:
            records[number - 1] = with_later_times(record)
        except InvalidRow as error:
            raise InvalidJson(f"Entry {number}: {error}") from error
        # Of who is pending, a reconciliation will tell, and put them into the quarantine.
        if PENDING not in record and not is_epoch(record.get("epoch", 0)):
            raise InvalidJson(f"Entry {number}: {EPOCH_PROBLEM}")
    return records


def index(stamp: tuple[int, ...] | None, records: list[Record]) -> Users:
    """Make the users findable."""
    by_key: dict[str, Record] = {}
    for record in records:
        key = email_key(record["email"])
        other = by_key.setdefault(key, record)
        # Of records that differ only in spelling the same one is found as in migration 0002.
        if other is not record and _precedence(key, record) < _precedence(key, other):
            by_key[key] = record
    return Users(
        stamp,
        records,
        by_key,
        by_id={record["id"]: record for record in reversed(records)},
        by_identity={
            identity: record
            for record in reversed(records)
            if "identities" in record
            for identity in identities(record)
        },
        pending=[record for record in records if PENDING in record],
    )


def _precedence(key: str, record: Record) -> tuple[object, ...]:
    created = record.get("createdAt")
    return record["email"] != key, created is None, str(created), record["id"]


def identities(record: Record) -> list[ExternalIdentity]:
    """Give what providers call the user."""
    return [ExternalIdentity(**entry) for entry in record.get("identities", [])]


def with_identities(
    record: Record | None, more: Sequence[ExternalIdentity]
) -> list[dict[str, str]]:
    """Write a user's identities, and those that are added."""
    found = identities(record) if record else []
    found += [identity for identity in more if identity not in found]
    return [{"issuer": identity.issuer, "subject": identity.subject} for identity in found]


def credentials(record: Record) -> Credentials:
    """Give what a login needs."""
    return Credentials(user(record), record.get("password") if is_enabled(record) else None)


def is_as_found(record: Record | None, found: Credentials) -> TypeGuard[Record]:
    """Tell whether a user is as they were found, who could come in then, and can now."""
    return record is not None and is_enabled(record) and credentials(record) == found


def is_enabled(record: Record) -> bool:
    """Tell whether the user may come in."""
    return record.get(DISABLED_AT) is None


def user(record: Record) -> User:
    """Give the user."""
    is_verified = None
    if record.get(VERIFIED_AT) is not None:
        is_verified = True
    elif record.get(UNVERIFIED_SINCE) is not None:
        is_verified = False
    return user_from([*map(record.get, USER_COLUMNS), is_verified])
