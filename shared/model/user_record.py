"""The record of a user: the columns that Postgres keeps, and the members of a users file.

The JSON store checks its file here, and an import whatever it is given. The digest is what the
proof of an import rests on. It is SHA-256 over every column in order, each text as
`<length in characters>:<text>`, or `:` where there is none; times as PostgreSQL keeps them, in 64
bits; a comma before each identity, and before what later releases added.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple, get_origin, get_type_hints

from shared.formats.password_hashes import hash_problem
from shared.formats.strict_json import loads
from shared.formats.timestamps import from_iso, from_milliseconds, to_iso
from shared.model.emails import email_key
from shared.model.users import EPOCH_PROBLEM, PROVIDERS, UUID, is_epoch

TEXT_MAX_LENGTH = 255
"""Characters: the width of the columns `email`, `password` and `name`; so long are identities."""
IDENTITIES, REVOKED, PENDING = "identities", "revokedSessions", "pending"
"""Members that are no columns. The last two are the JSON store's."""


@dataclass(frozen=True, slots=True)
class Column:
    """What a column of `users` holds, and which members of a row in a users file give it."""

    type: Literal["uuid", "text", "timestamptz", "integer"]
    members: tuple[str, ...] = ()
    is_object: bool = False
    """Whether the member is a JSON object, of which the column has the text."""


class UserRecord(NamedTuple):
    """A user with everything that the database keeps of one: the columns, and the identities."""

    id: Annotated[str, Column("uuid", ("id",))]
    email: Annotated[str, Column("text", ("email",))]
    email_key: Annotated[str | None, Column("text")]
    """None for a row of the old server's whose address another one has in another spelling."""
    password: Annotated[str | None, Column("text", ("password",))]
    name: Annotated[str | None, Column("text", ("name",))]
    provider: Annotated[str | None, Column("text", ("provider",))]
    created_at: Annotated[int | None, Column("timestamptz", ("createdAt", "created_at"))]
    """Microseconds since 2000 in UTC, as PostgreSQL keeps its times; so is `updated_at`.

    PostgreSQL's may be infinite, before the year 1 or after 9999, which no file's are.
    """
    updated_at: Annotated[int | None, Column("timestamptz", ("updatedAt", "updated_at"))]
    epoch: Annotated[int, Column("integer", ("epoch",))]
    email_verified_at: Annotated[
        int | None, Column("timestamptz", ("emailVerifiedAt", "email_verified_at"))
    ] = None
    unverified_since: Annotated[
        int | None, Column("timestamptz", ("unverifiedSince", "unverified_since"))
    ] = None
    """Without this and the one before, nothing is asked of the address, nor known."""
    disabled_at: Annotated[int | None, Column("timestamptz", ("disabledAt", "disabled_at"))] = None
    locale: Annotated[str | None, Column("text", ("locale",))] = None
    claims: Annotated[str | None, Column("text", ("claims",), is_object=True)] = None
    """What another system said of the user, such as roles: a JSON object, with sorted names."""
    totp_secret: Annotated[str | None, Column("text", ("totpSecret",))] = None
    """Of an authenticator app, as `shared.credentials.encryption` writes it."""
    identities: tuple[tuple[str, str], ...] = ()
    """Issuer and subject of each, in the order in which they were linked."""


COLUMNS: dict[str, Column] = {
    name: hint.__metadata__[0]
    for name, hint in get_type_hints(UserRecord, include_extras=True).items()
    if get_origin(hint) is Annotated
}
"""By name, in the order of the record."""
MEMBERS = frozenset({IDENTITIES, REVOKED, PENDING}.union(*(c.members for c in COLUMNS.values())))
"""What a row may say of a user. Anything else has no place in the database."""
NULL = r"\N"
"""As COPY writes it."""
_NOTHING_LATER = [
    UserRecord._field_defaults[name]
    for name in UserRecord._fields[UserRecord._fields.index("epoch") + 1 :]
]
"""What follows the epoch of nearly everybody whom the old server knew."""
_NULLS_LATER = f"\t{NULL}" * (len(_NOTHING_LATER) - 1)
"""The same in a line of COPY, in which identities are no column."""
_TAGS = "vad"
"""Of the later times in a digest, where NULL adds nothing."""

_LATER_TIMES = ("email_verified_at", "unverified_since", "disabled_at")
_TEXTS = tuple(
    column.members[0]
    for column in COLUMNS.values()
    if column.members and column.type in ("uuid", "text") and not column.is_object
)
_LATER = tuple(COLUMNS[name].members for name in _LATER_TIMES)
_LATER_MEMBERS = frozenset({"locale"}.union(*_LATER))
CLAIMS_MAX_LENGTH = 1024
"""Bytes."""
_LOCALE_MAX_LENGTH = 35
"""Characters (RFC 5646, section 4.4.1)."""
_ID_NAMESPACE = uuid.UUID("6ba1b6a1-1a3f-5c0e-9d51-7c1d7f6c2a55")
_UUID = re.compile(UUID.pattern.replace("a-f", "a-fA-F"))
_NO_ADDRESS = "The email is missing or not an address."
# Wider than for a new user: whoever the old server let in comes along.
_EMAIL = re.compile(r"[^\s@\x00-\x20\x7f]+@[^\s@\x00-\x20\x7f]+")
_POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIRST = (datetime.min.replace(tzinfo=UTC) - _POSTGRES_EPOCH) // _MICROSECOND
_LAST = (datetime.max.replace(tzinfo=UTC) - _POSTGRES_EPOCH) // _MICROSECOND
_BITS = struct.Struct(">q").pack
_HEX = "\\x"  # As PostgreSQL begins bytes.
_SPELLING = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
)
_SID = re.compile(r"[\x21-\x7e]{1,255}")
ENCRYPTED = re.compile(r"[A-Za-z0-9_-]{11}\.[A-Za-z0-9_-]{38,235}")
"""What `shared.credentials.encryption` writes: a key's id, and a nonce with what it encrypts."""
_LATEST_END = 253_402_300_799
"""The last second of the year 9999."""
_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


class InvalidRow(ValueError):
    """The row is no user; the message is a sentence that quotes none of it."""


def check(row: Any, *, strict: bool) -> tuple[Any, ...]:
    """Check a row of a users file, and give its texts in the order of COLUMNS. Raises InvalidRow.

    Without `strict` it serves the JSON mode, whose file may be the old server's own: members have
    their types, so that nobody who reads one fails, and that is all. An id and an email are there;
    `with_later_times` is for the rest.

    With `strict` it can be brought to Postgres: each value fits its column, the user can log in,
    and no identity is there twice. An id may be missing, and null is as good as missing. The times
    are left to `parse`.
    """
    if not isinstance(row, dict):
        raise row if isinstance(row, InvalidRow) else InvalidRow("It is not an object.")
    texts = tuple(map(row.get, _TEXTS))
    for value in texts:
        if value is not None and type(value) is not str:
            raise InvalidRow(f"The {_TEXTS[texts.index(value)]} is not a text.")
    if strict:
        _check_texts(row, *texts)
    elif row.get("id") is None or row.get("email") is None:
        raise InvalidRow("The id or the email is missing.")
    if "epoch" in row and not (is_epoch(row["epoch"]) if strict else type(row["epoch"]) is int):
        raise InvalidRow(EPOCH_PROBLEM)
    for member, examine in _CHECKS:
        if member in row:
            examine(row[member], strict=strict)
    return texts


def with_later_times(row: dict[str, Any]) -> dict[str, Any]:
    """Check the times that the old server does not have, and give a row that has them by one name.

    They decide who may come in: what is none must not be taken for one. Raises InvalidRow.
    """
    if _LATER_MEMBERS.isdisjoint(row):
        return row
    for camel, snake in _LATER:
        value = row.get(camel)
        if snake in row:
            _moment(row, camel, snake)
            row = row | {camel: row[snake] if value is None else value}
            del row[snake]
        elif value is not None and from_iso(value) is None:  # A fraction of what a moment costs.
            _moment(row, camel, snake)
    return row


def _check_texts(
    row: dict[str, Any],
    user_id: str | None,
    email: str | None,
    password: str | None,
    name: str | None,
    provider: str | None,
    locale: str | None,
    totp_secret: str | None,
) -> None:
    if email is None or len(email) > TEXT_MAX_LENGTH or not _EMAIL.fullmatch(email.strip()):
        raise InvalidRow(_NO_ADDRESS)
    if user_id is not None and not _UUID.fullmatch(user_id):
        raise InvalidRow("The id is not a UUID.")
    if provider is not None and provider not in PROVIDERS:
        raise InvalidRow(f"The provider is none of {', '.join(PROVIDERS)}.")
    if not password and provider in (None, "local"):
        _check_way_in(row)
    if password and (problem := hash_problem(password)):
        raise InvalidRow(problem)
    if name is not None and len(name) > TEXT_MAX_LENGTH:
        raise InvalidRow(f"The name is longer than {TEXT_MAX_LENGTH} characters.")
    if locale is not None and len(locale) > _LOCALE_MAX_LENGTH:
        raise InvalidRow(f"The locale is longer than {_LOCALE_MAX_LENGTH} characters.")
    if totp_secret is not None and not ENCRYPTED.fullmatch(totp_secret):
        raise InvalidRow("The totpSecret is not one that an export has: it is encrypted.")


def _check_way_in(row: dict[str, Any]) -> None:
    """Refuse a local user without a password from before mail: who is asked for a proof is not.

    They set a password with "forgot password", or sign in with a link, and prove the address so.
    """
    if all(row.get(member) is None for members in _LATER[:2] for member in members):
        raise InvalidRow("A local user without a password could never log in.")


def _check_identities(entries: object, *, strict: bool) -> None:
    if strict and entries is None:
        return
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict)
        and entry.keys() == {"issuer", "subject"}
        and all(
            type(text) is str and (not strict or 0 < len(text) <= TEXT_MAX_LENGTH)
            for text in entry.values()
        )
        for entry in entries
    ):
        raise InvalidRow(
            "The identities are not objects of an issuer and a subject, both texts of 1 to "
            f"{TEXT_MAX_LENGTH} characters."
        )
    if strict and len(set(_pairs(entries))) < len(entries):
        raise InvalidRow("It names an identity twice.")


def _check_revoked(ends: object, *, strict: bool) -> None:
    if strict and ends is None:
        return
    if not isinstance(ends, dict) or not all(
        type(end) in (int, float) and (not strict or _SID.fullmatch(sid))
        for sid, end in ends.items()
    ):
        raise InvalidRow("The revokedSessions are not session ids, each with its end in seconds.")


def claims_text(claims: object, *, strict: bool = True) -> str | None:
    """Check claims, and give their one spelling; None where there are none. Raises InvalidRow."""
    if claims is None or claims == {}:
        return None
    if not isinstance(claims, dict):
        raise InvalidRow("The claims are not an object.")
    try:
        text = _SPELLING.encode(claims)
    except (TypeError, ValueError):  # The scanner gives an InvalidRow for what is no value.
        raise InvalidRow("The claims hold a number that is none, or a name twice.") from None
    if strict and len(text.encode(errors="replace")) > CLAIMS_MAX_LENGTH:
        raise InvalidRow(f"The claims are longer than {CLAIMS_MAX_LENGTH:,} bytes.")
    return text


def _check_pending(pending: object, *, strict: bool) -> None:
    if strict and pending is None:
        return
    found = pending.get("operation") if isinstance(pending, dict) else None
    if not isinstance(found, str) or not (_UUID if strict else UUID).fullmatch(found):
        raise InvalidRow("The pending names no operation.")


_CHECKS = (
    (IDENTITIES, _check_identities),
    (REVOKED, _check_revoked),
    (PENDING, _check_pending),
    ("claims", claims_text),
)


def parse(row: Any) -> UserRecord:
    """Check a row strictly, and give what it says of the columns. Raises InvalidRow.

    Names in camel and in snake case are understood. A missing id is derived from the email key,
    so that every run makes the same.
    """
    user_id, email, password, name, provider, locale, totp_secret = check(row, strict=True)
    key = email_key(email)
    if not email.isascii() and not _EMAIL.fullmatch(key):
        raise InvalidRow(_NO_ADDRESS)  # But for characters that nobody sees, which no key has.
    verified = asked = disabled = None
    if not _LATER_MEMBERS.isdisjoint(row):
        verified, asked, disabled = (_moment(row, camel, snake) for camel, snake in _LATER)
    return UserRecord(
        derived_id(key) if user_id is None else user_id.lower(),
        email,
        key,
        password or None,
        name,
        provider,
        _moment(row, "createdAt", "created_at"),
        _moment(row, "updatedAt", "updated_at"),
        row.get("epoch", 0),
        verified,
        asked,
        disabled,
        locale,
        claims_text(row["claims"]) if "claims" in row else None,
        totp_secret,
        _pairs(entries) if (entries := row.get(IDENTITIES)) else (),
    )


def derived_id(key: str) -> str:
    """Give the id of who has none, from the key of the address."""
    return str(uuid.uuid5(_ID_NAMESPACE, key))


def revoked_sessions(row: dict[str, Any]) -> list[tuple[str, float]]:
    """Give the sessions that were logged out, each with its end in seconds, of a checked row.

    They are not of the record: a proof is about users.
    """
    if not (ends := row.get(REVOKED)):
        return []
    return [(sid, max(0, min(end, _LATEST_END))) for sid, end in ends.items()]


def pending_operation(row: dict[str, Any]) -> str | None:
    """Give the operation that brings who is pending, of a checked row."""
    pending = row.get(PENDING)
    return None if pending is None else pending["operation"]


def canonical(record: UserRecord) -> bytes:
    """Give the bytes that the digest is made of. Raises InvalidRow for what is no text.

    A new column goes to the end and adds nothing where it is NULL, or everybody whom an earlier
    release imported would count as changed. `canonical_sql` is the twin.
    """
    user_id, email, key, password, name, provider, created, updated, epoch, *later = record
    text = (
        f"{user_id}{len(email)}:{email}"
        f"{':' if key is None else f'{len(key)}:{key}'}"
        f"{':' if password is None else f'{len(password)}:{password}'}"
        f"{':' if name is None else f'{len(name)}:{name}'}"
        f"{':' if provider is None else f'{len(provider)}:{provider}'}"
        f"{'' if created is None else _HEX + _BITS(created).hex()},"
        f"{'' if updated is None else _HEX + _BITS(updated).hex()},{epoch}"
    )
    if later != _NOTHING_LATER:
        text += _canonical_later(record)
    if "\0" in text:
        raise InvalidRow("A text holds a NUL character.")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidRow("A text holds half of a surrogate pair.") from None


def _canonical_later(record: UserRecord) -> str:
    text = ""
    for issuer, subject in record.identities:
        text += f",{len(issuer)}:{issuer}{len(subject)}:{subject}"
    for tag, moment in zip(_TAGS, _later(record), strict=True):
        if moment is not None:
            text += f",{tag}{_BITS(moment).hex()}"
    for tag, value in (("l", record.locale), ("c", record.claims), ("t", record.totp_secret)):
        if value is not None:
            text += f",{tag}{len(value)}:{value}"
    return text


def canonical_sql(epoch: str, identities: str) -> str:
    """Give the twin of `canonical` over a row `u` of users, with these expressions for the rest.

    `concat` leaves NULLs out, and `timestamptz_send` gives the 64 bits as they are, at a third of
    the cost of `extract`.
    """
    return f"""concat(
        u.id, length(u.email), ':', u.email, length(u.email_key), ':', u.email_key,
        length(u.password), ':', u.password, length(u.name), ':', u.name,
        length(u.provider), ':', u.provider,
        timestamptz_send(u.created_at), ',', timestamptz_send(u.updated_at), ',',
        {epoch}, {identities},
        ',v' || encode(timestamptz_send(u.email_verified_at), 'hex'),
        ',a' || encode(timestamptz_send(u.unverified_since), 'hex'),
        ',d' || encode(timestamptz_send(u.disabled_at), 'hex'),
        ',l' || length(u.locale) || ':' || u.locale,
        ',c' || length(u.claims) || ':' || u.claims,
        ',t' || length(u.totp_secret) || ':' || u.totp_secret
    )"""


def digest(record: UserRecord) -> bytes:
    """Give the record's SHA-256. Raises InvalidRow for what is no text."""
    return hashlib.sha256(canonical(record)).digest()


def copy_line(record: UserRecord) -> str:
    """Write the columns in the text format of COPY, the times in microseconds since 2000."""
    user_id, email, key, password, name, provider, created, updated, epoch, *later = record
    # One look at all of them together costs a tenth of one at each.
    texts = f"{email}{key}{password}{name}{provider}"
    if "\\" in texts or "\t" in texts or "\n" in texts or "\r" in texts:
        email, key, password, name, provider = map(escaped, (email, key, password, name, provider))
    return (
        f"{user_id}\t{email}\t{NULL if key is None else key}"
        f"\t{NULL if password is None else password}\t{NULL if name is None else name}"
        f"\t{NULL if provider is None else provider}"
        f"\t{NULL if created is None else created}"
        f"\t{NULL if updated is None else updated}\t{epoch}"
        f"{_NULLS_LATER if later == _NOTHING_LATER else _cells_later(record)}"
    )


def _cells_later(record: UserRecord) -> str:
    moments = (NULL if moment is None else str(moment) for moment in _later(record))
    texts = map(escaped, (record.locale, record.claims, record.totp_secret))
    return "".join(f"\t{cell}" for cell in (*moments, *texts))


def _later(record: UserRecord) -> tuple[int | None, ...]:
    """Give the times that the old server does not have, in the order of _LATER."""
    return record.email_verified_at, record.unverified_since, record.disabled_at


def escaped(text: str | None) -> str:
    """Write a text, or NULL, in the text format of COPY."""
    return NULL if text is None else text.translate(_ESCAPES)


def to_json(record: UserRecord) -> dict[str, Any]:
    """Write the record as the old server does: its order of members, nothing that is absent.

    A time that ISO 8601 has no four digits of a year for is null, or, of those that decide who may
    come in, the nearest one that it has.
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
        row[IDENTITIES] = [{"issuer": i, "subject": s} for i, s in record.identities]
    if record.epoch:
        row["epoch"] = record.epoch
    for (member, _), moment in zip(_LATER, _later(record), strict=True):
        if moment is not None:
            row[member] = _iso(_nearest(moment))
    claims = None if record.claims is None else loads(record.claims)
    later = (("locale", record.locale), ("claims", claims), ("totpSecret", record.totp_secret))
    return row | {member: value for member, value in later if value is not None}


def _pairs(entries: Iterable[dict[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple([(entry["issuer"], entry["subject"]) for entry in entries])


def _moment(row: dict[str, Any], camel: str, snake: str) -> int | None:
    """Read a time in a form of `shared.formats.timestamps`, or milliseconds since 1970."""
    value = row.get(camel)
    if value is None:
        value = row.get(snake)
    elif snake in row and row[snake] not in (None, value):
        raise InvalidRow(f"{camel} and {snake} contradict each other.")
    if value is None:
        return None
    is_number = type(value) is int or type(value) is float
    moment = from_milliseconds(value) if is_number else from_iso(value)
    if moment is None:
        raise InvalidRow(
            f"{camel} is not a time: write it like 2025-06-09T17:54:12.721Z, or as a number of "
            "milliseconds since 1970."
        )
    since = moment - _POSTGRES_EPOCH  # Its parts are exact, and quicker than a division.
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def as_written(record: UserRecord) -> UserRecord:
    """Give the record as `to_json` writes it: itself, but for times that cannot be written."""
    times = record.created_at, record.updated_at, *_later(record)
    if all(moment is None or _FIRST <= moment <= _LAST for moment in times):
        return record
    verified, asked, disabled = map(_nearest, _later(record))
    return record._replace(
        created_at=None if _iso(record.created_at) is None else record.created_at,
        updated_at=None if _iso(record.updated_at) is None else record.updated_at,
        email_verified_at=verified,
        unverified_since=asked,
        disabled_at=disabled,
    )


def _nearest(moment: int | None) -> int | None:
    """Give the time that can be written and is nearest: null would say what is not true."""
    return None if moment is None else min(max(moment, _FIRST), _LAST)


def _iso(microseconds: int | None) -> str | None:
    """Write milliseconds, as the old server does, unless there is more to tell."""
    if microseconds is None:
        return None
    try:
        moment = _POSTGRES_EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return None
    if microseconds % 1000 == 0:
        return to_iso(moment)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
