"""Compares a source with Postgres by reading alone: without tables, or a right but SELECT.

The rows come in their order and are sent in batches, each as arrays that are joined to the users by
their keys; what Postgres says of a row is kept in some bytes, so that a million take little. The
verdicts are those that an apply comes to in its staging table.
"""

from __future__ import annotations

import hashlib
import json
import sys
from array import array
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from heapq import merge
from itertools import count, groupby, repeat
from operator import itemgetter
from typing import Any, NamedTuple

from shared.database.connection import Connection
from shared.model.user_record import UserRecord
from shared.transfer import access, losses
from shared.transfer.duplicates import Claims
from shared.transfer.staging import (
    CHANGED,
    DECISIONS_PART,
    DUPLICATE,
    EMAIL_TAKEN,
    FEW_LATEST,
    IDENTITY_TAKEN,
    INVALID,
    NEW,
    REASONS,
    VERDICTS,
    compare,
    is_any,
)
from shared.transfer.steps import Outcome
from shared.transfer.users_table import FEW_HELD

_TABLES = ("users", "identities", "import_batches", "import_records", "applied_ops")
BATCH_ROWS = 2_000

# By indexes: the server would read all users anew for each batch.
_BY_INDEXES = (
    "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off;"
    "SET LOCAL enable_mergejoin = off; SET LOCAL enable_material = off"
)
_BATCH = """(
    SELECT row, id, epoch, decode(hex, 'hex') AS digest, email_key, email,
        operation::uuid AS operation
    FROM ROWS FROM (
        unnest(:ids::uuid[]), unnest(:epochs::integer[]), unnest(:digests::text[]),
        json_array_elements_text(:keys::json), json_array_elements_text(:emails::json),
        json_array_elements_text(:operations::json)
    ) WITH ORDINALITY AS given (id, epoch, hex, email_key, email, operation, row)
)"""
_COMPARE = f"""
SELECT verdict, string_agg(row::text, ',' ORDER BY row),
    string_agg(encode(base, 'hex'), '' ORDER BY row) FILTER (WHERE verdict = '{CHANGED}'),
    string_agg(row::text, ',') FILTER (WHERE verdict = '{CHANGED}' AND gives_key),
    string_agg(row::text, ',') FILTER (WHERE verdict = '{CHANGED}' AND gives_email),
    string_agg(row::text, ',') FILTER (WHERE is_brought)
FROM ({compare(_BATCH, FEW_HELD, FEW_LATEST)}) compared GROUP BY verdict
"""
_TAKEN = """
WITH given AS (
    SELECT * FROM ROWS FROM (
        unnest(:rows::integer[]), unnest(:ids::uuid[]), json_array_elements_text(:keys::json),
        json_array_elements_text(:emails::json)
    ) AS given (row, id, email_key, email)
), claimed AS (
    SELECT (c->>0)::integer AS row, (c->>1)::uuid AS id, c->>2 AS issuer, c->>3 AS subject, position
    FROM json_array_elements(:identities::json) WITH ORDINALITY AS claims (c, position)
)
SELECT 'identity', row, user_id::text FROM (
    SELECT DISTINCT ON (row) row, user_id
    FROM claimed JOIN identities i USING (issuer, subject)
    WHERE i.user_id <> claimed.id ORDER BY row, position
) taken
UNION ALL SELECT 'key', row, u.id::text
    FROM given JOIN users u ON u.email_key = given.email_key AND u.id <> given.id
UNION ALL SELECT 'email', row, u.id::text
    FROM given JOIN users u ON u.email = given.email AND u.id <> given.id
"""
_LOST = f"""
WITH changed AS (
    SELECT row, id, email_key, has_password, has_factor, identities::jsonb AS identities
    FROM ROWS FROM (
        unnest(:rows::integer[]), unnest(:ids::uuid[]), json_array_elements_text(:keys::json),
        unnest(:passwords::boolean[]), unnest(:factors::boolean[]),
        json_array_elements(:identities::json)
    ) AS changed (row, id, email_key, has_password, has_factor, identities)
)
SELECT kind, row FROM ({losses.losing("changed")}) lost
"""
_BROUGHT = """
SELECT count(DISTINCT r.user_id) FROM import_records r JOIN users u ON u.id = r.user_id
"""
_CODES = {verdict: code for code, verdict in enumerate(VERDICTS)}


class _Override(NamedTuple):
    """What becomes of a valid row in spite of what Postgres has of its user."""

    verdict: str
    reason: str | None = None
    other_row: int | None = None
    other_id: str | None = None


class _Waiting(NamedTuple):
    """A valid row that is still to be sent."""

    record: UserRecord
    digest: bytes
    operation: str | None


class Comparison:
    """A source that is being compared; rows are added first, and then `finish` is called."""

    def __init__(self, connection: Connection) -> None:
        """Look whether there is anything to compare with. Raises TransferRefused as `readable`."""
        self._connection = connection
        self._tables = access.readable(connection, *_TABLES)
        self._waiting: list[_Waiting] = []
        self._claims = Claims()
        self._invalid: dict[int, str] = {}
        self._codes = bytearray()
        """Of the valid rows, as Postgres alone decides."""
        self._bases = bytearray()
        """The digests that users have whom the source changes, in the order of their rows."""
        self._brought = bytearray()
        self._gives = {"key": array("Q"), "email": array("Q")}
        """Indexes of the rows of users who would give their key or address up."""
        self._holders: dict[str, dict[int, str]] = {"identity": {}, "key": {}, "email": {}}
        """By the index of a row, whose an identity, the key or the address of it is."""
        self._lost: dict[str, array[int]] = defaultdict(lambda: array("Q"))
        """By what is lost, the indexes of the rows of changed users who lose it."""
        self._overrides: dict[int, _Override] = {}
        self._is_empty = not any(
            table not in self._tables.lacking and is_any(connection, table)
            for table in ("users", "import_records", "applied_ops")
        )
        connection.run_script(_BY_INDEXES)

    def add(self, row: int, record: UserRecord, digest: bytes, operation: str | None) -> None:
        """Add a valid row; the numbers rise."""
        self._claims.add(row, record)
        self._codes.append(_CODES[NEW])
        self._brought.append(False)
        if self._is_empty:
            return
        self._waiting.append(_Waiting(record, digest, operation))
        if len(self._waiting) == BATCH_ROWS:
            self._send()

    def add_invalid(self, row: int, reason: str) -> None:
        """Add a row that is no user."""
        self._invalid[row] = sys.intern(reason)

    def finish(self) -> None:
        """Decide on every row."""
        if self._waiting:
            self._send()
        self._overrides = {
            index: _Override(DUPLICATE, reason, other_row)
            for index, (reason, other_row) in self._claims.duplicates().items()
        }
        for index, holder in self._holders["identity"].items():
            self._overrides.setdefault(index, _Override(IDENTITY_TAKEN, other_id=holder))
        self._reject_taken(CHANGED)  # First: who is rejected gives no address up.
        self._reject_taken(NEW)

    def _reject_taken(self, verdict: str) -> None:
        for column in ("key", "email"):
            free = self._given_up(column) if verdict == NEW else ()
            for index, holder in self._holders[column].items():
                if self._codes[index] == _CODES[verdict] and holder not in free:
                    self._overrides.setdefault(index, _Override(EMAIL_TAKEN, other_id=holder))

    def _given_up(self, column: str) -> Collection[str]:
        """Give those who hold a new user's address and change it in the same source."""
        wanted = set(self._holders[column].values())
        changing = (i for i in self._gives[column] if i not in self._overrides)
        return wanted.intersection(map(self._claims.id_of, changing)) if wanted else ()

    def counts(self) -> dict[str, int]:
        """Count the rows by verdict."""
        found = Counter(self._codes)
        counts = {verdict: found[code] for verdict, code in _CODES.items()}
        for index, override in self._overrides.items():
            counts[VERDICTS[self._codes[index]]] -= 1
            counts[override.verdict] += 1
        counts[INVALID] = len(self._invalid)
        return counts

    def absent(self) -> int:
        """Count the users of earlier imports whom the source no longer has."""
        if self._is_empty:
            return 0
        twice = sum(
            len(indexes) - 1 for indexes in self._claims.sharing_ids() if self._brought[indexes[0]]
        )
        brought = self._connection.execute(self._tables.sql(_BROUGHT))[0][0]
        return int(brought) - (sum(self._brought) - twice)

    def losses(self) -> dict[str, dict[str, Any]]:
        """Count what changed users lose, as `losses.staged` does."""
        return losses.counted(self._lost, self._claims.rows, self._overrides)

    def report(self, verdicts: Iterable[str]) -> Iterator[Outcome]:
        """Give the rows with these verdicts, by row number."""
        wanted = set(verdicts)
        for row, index in self._each_row():
            if index is None:
                if INVALID in wanted:
                    yield Outcome(INVALID, self._invalid[row], row)
                continue
            override = self._overrides.get(index) or _Override(VERDICTS[self._codes[index]])
            verdict, reason, other_row, other_id = override
            if verdict in wanted:
                reason = reason or REASONS[verdict]
                user_id = self._claims.id_of(index)
                yield Outcome(verdict, reason, row, other_row, user_id, other_id)

    def decisions_sha256(self) -> str:
        """Digest what `staging.decisions_sha256` does, so that an apply can be bound to a plan."""
        parts = hashlib.sha256()
        for _, part in groupby(self._decisions(), lambda decided: decided[0] // DECISIONS_PART):
            parts.update(hashlib.sha256(" ".join(text for _, text in part).encode()).digest())
        return parts.hexdigest()

    def _decisions(self) -> Iterator[tuple[int, str]]:
        """Give each row that is not simply new, and what was decided for it on what ground."""
        changed = 0
        for row, index in self._each_row():
            if index is None:
                yield row, f"{row}:{INVALID}"
                continue
            verdict = VERDICTS[self._codes[index]]
            if override := self._overrides.get(index):
                _, _, other_row, other_id = override
                more = [str(it) for it in (other_row, other_id) if it is not None]
                yield row, ":".join([str(row), override.verdict, *more])
            elif verdict == CHANGED:
                base = self._bases[changed * 32 : changed * 32 + 32].hex()
                yield row, f"{row}:{verdict}:{base}"
            elif verdict != NEW:
                yield row, f"{row}:{verdict}"
            changed += verdict == CHANGED

    def _each_row(self) -> Iterator[tuple[int, int | None]]:
        """Give each row's number, and its index among the valid ones if it is one."""
        valid: Iterator[tuple[int, int | None]] = zip(self._claims.rows, count(), strict=False)
        invalid: Iterator[tuple[int, int | None]] = zip(self._invalid, repeat(None), strict=False)
        return merge(valid, invalid, key=itemgetter(0))

    def _send(self) -> None:
        """Have a batch compared."""
        first = len(self._codes) - len(self._waiting)
        records = [waiting.record for waiting in self._waiting]
        operations = [waiting.operation for waiting in self._waiting]
        found = self._connection.execute(
            self._tables.sql(_COMPARE),
            ids=_array(record.id for record in records),
            epochs=_array(record.epoch for record in records),
            digests=_array(waiting.digest.hex() for waiting in self._waiting),
            keys=json.dumps([record.email_key for record in records]),
            emails=json.dumps([record.email for record in records]),
            operations=json.dumps(operations if any(operations) else []),
        )
        for verdict, rows, bases, give_key, give_email, brought in found:
            for place in _places(rows):
                self._codes[first + place] = _CODES[verdict]
            self._bases += bytes.fromhex(bases or "")
            self._gives["key"].extend(first + place for place in _places(give_key))
            self._gives["email"].extend(first + place for place in _places(give_email))
            for place in _places(brought):
                self._brought[first + place] = True
        written = (_CODES[NEW], _CODES[CHANGED])
        places = [n for n in range(len(records)) if self._codes[first + n] in written]
        if places:
            self._find_holders(first, places, records)
        if changed := [n for n in places if self._codes[first + n] == _CODES[CHANGED]]:
            self._find_losses(first, changed, records)
        self._waiting = []

    def _find_losses(self, first: int, places: list[int], records: list[UserRecord]) -> None:
        """Find what users lose whom the rows would change."""
        for kind, place in self._connection.execute(
            self._tables.sql(_LOST),
            rows=_array(places),
            ids=_array(records[place].id for place in places),
            keys=json.dumps([records[place].email_key for place in places]),
            passwords=_array(records[place].password is not None for place in places),
            factors=_array(records[place].totp_secret is not None for place in places),
            identities=json.dumps([records[place].identities for place in places]),
        ):
            self._lost[kind].append(first + place)

    def _find_holders(self, first: int, places: list[int], records: list[UserRecord]) -> None:
        """Find whose the addresses and identities are of rows that would be written."""
        claims = [
            (place, records[place].id, *pair)
            for place in places
            for pair in records[place].identities
        ]
        for kind, place, user_id in self._connection.execute(
            self._tables.sql(_TAKEN),
            rows=_array(places),
            ids=_array(records[place].id for place in places),
            keys=json.dumps([records[place].email_key for place in places]),
            emails=json.dumps([records[place].email for place in places]),
            identities=json.dumps(claims),
        ):
            self._holders[kind][first + place] = user_id


def _array(values: Iterable[object]) -> str:
    """Write values without anything that would have to be quoted."""
    return f"{{{','.join(map(str, values))}}}"


def _places(rows: str | None) -> list[int]:
    """Read numbers from 1 as places from 0."""
    return [int(row) - 1 for row in rows.split(",")] if rows else []
