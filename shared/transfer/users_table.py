"""The users as Postgres holds them: what the SQL of transfers says of their columns and digest."""

from __future__ import annotations

from collections.abc import Mapping

from shared.model.user_record import COLUMNS, canonical_sql

COLUMN_NAMES = ", ".join(COLUMNS)
RECORD_DEFINITIONS = ", ".join(
    f"{name} {column.type.replace('timestamptz', 'bigint')}" for name, column in COLUMNS.items()
)
"""Of the same columns as a `UserRecord` has them, with times in microseconds since 2000."""

# Who is held: users `u` with the identities `i` of each. The order in which they were linked is the
# one that a users file has them in. A subquery for each user would take three times as long.
_TEXTS = """string_agg(
    concat(',', length(issuer), ':', issuer, length(subject), ':', subject), ''
    ORDER BY created_at, issuer, subject
) AS texts"""
HELD = f"""(users u LEFT JOIN (
    SELECT user_id, {_TEXTS},
        json_agg(json_build_array(issuer, subject) ORDER BY created_at, issuer, subject) AS pairs,
        jsonb_build_object('identities', jsonb_agg(
            to_jsonb(identities) ORDER BY created_at, issuer, subject)) AS member
    FROM identities GROUP BY user_id
) i ON i.user_id = u.id)"""
FEW_HELD = f"""(users u LEFT JOIN LATERAL (
    SELECT {_TEXTS} FROM identities WHERE user_id = u.id
) i ON true)"""
"""The same, but for `pairs` and `member`, where few users are looked for at once."""


def digest_with(epoch: str) -> str:
    """Give the digest of a row of HELD, but for its epoch."""
    return f"sha256(convert_to({canonical_sql(epoch, 'i.texts')}, 'UTF8'))"


DIGEST = digest_with("u.epoch")


def moment(microseconds: str) -> str:
    """Make a time of microseconds since 2000.

    An interval is multiplied in floating point, which is exact up to 2^53: for microseconds that is
    the year 2285. Beyond, it is exact for whole seconds times a million.
    """
    return f"""(timestamptz '2000-01-01 00:00:00Z' + CASE WHEN abs({microseconds}) < {2**53}
        THEN {microseconds} * interval '1 microsecond'
        ELSE {microseconds} / 1000000 * interval '1 second'
            + {microseconds} % 1000000 * interval '1 microsecond' END)"""


def read_from(user: str) -> str:
    """Write the SELECT list that gives a row of users as a `UserRecord` has it."""
    return ", ".join(_read(f"{user}.{name}", column.type) for name, column in COLUMNS.items())


def _read(value: str, kind: str) -> str:
    if kind == "timestamptz":  # Its 64 bits, of which `extract` would round the far ones.
        return f"('x' || encode(timestamptz_send({value}), 'hex'))::bit(64)::bigint"
    return f"{value}::text" if kind == "uuid" else value


def values_of(record: str) -> dict[str, str]:
    """Give the columns' values, by name, of a row with RECORD_DEFINITIONS."""
    return {
        name: moment(f"{record}.{name}") if column.type == "timestamptz" else f"{record}.{name}"
        for name, column in COLUMNS.items()
    }


def insert_from(record: str) -> str:
    """Begin an INSERT of the users of rows with RECORD_DEFINITIONS."""
    return f"INSERT INTO users ({COLUMN_NAMES}) SELECT {', '.join(values_of(record).values())}"


def assignments(values: Mapping[str, str]) -> str:
    """Write the SET of an UPDATE, to which an id stays what it is."""
    return ", ".join(f"{name} = {value}" for name, value in values.items() if name != "id")
