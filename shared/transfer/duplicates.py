"""The rows of one source that claim the same id, address or identity, and which of them wins.

The twin of the SQL in `shared.transfer.staging`. Of each row some fifty bytes are kept, and 16 more
of each identity; the rows that share something are found at the end.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import NamedTuple
from uuid import UUID

from shared.model.user_record import UserRecord

_BYTES = 16
"""Of an id, and of a digest that stands for an address or an identity."""
_AT_ONCE = 250_000
"""About so many numbers are compared with each other at once."""
_NO_TIME = 2**63 - 1
"""In the place of a missing time: it comes last."""
SAME_ID = "The other row has the same id and another address."
PROVED = "The address of the other row is proved, and of this one it is not."
LOWER_CASE = "The other row has the address in lower case."
OLDER = "The other row is older."
FIRST = "The other row comes first, by id."
SAME_IDENTITY = "The other row has one of its identities."


class Duplicate(NamedTuple):
    """Why a row cannot be imported, and the row that it shares something with."""

    reason: str
    other_row: int


class Claims:
    """What the rows of a source claim, by their numbers from 1."""

    def __init__(self) -> None:
        """Begin without a row."""
        self.rows = array("Q")
        """The numbers of the rows."""
        self._ids, self._keys = bytearray(), bytearray()
        self._created = array("q")
        self._exact, self._unproved = bytearray(), bytearray()
        self._identities, self._identity_rows = bytearray(), array("Q")

    def add(self, row: int, record: UserRecord) -> None:
        """Add a valid row; the numbers rise."""
        index = len(self.rows)
        self.rows.append(row)
        self._ids += bytes.fromhex(record.id.replace("-", ""))
        self._keys += _digest(record.email_key or "")
        self._created.append(_NO_TIME if record.created_at is None else record.created_at)
        self._exact.append(record.email == record.email_key)
        self._unproved.append(
            record.email_verified_at is None and record.unverified_since is not None
        )
        for issuer, subject in record.identities:
            self._identities += _digest(f"{len(issuer)}:{issuer}{subject}")
            self._identity_rows.append(index)

    def id_of(self, index: int) -> str:
        """Give the id of the valid row at an index from 0."""
        return str(UUID(bytes=bytes(self._ids[index * _BYTES : (index + 1) * _BYTES])))

    def sharing_ids(self) -> list[list[int]]:
        """Give the indexes of the rows of each id that several have."""
        return [indexes for _, indexes in _groups(self._ids)]

    def duplicates(self) -> dict[int, Duplicate]:
        """Give the rows that cannot be imported because of another one, by their index.

        Of rows with one address the one in lower case wins, else the oldest, else the first by id.
        Whose an id or an identity is that several have, nobody here can know; of rows with one
        address the losers claim no identity.
        """
        found: dict[int, Duplicate] = {}
        for indexes in self.sharing_ids():
            if len({self._key(index) for index in indexes}) > 1:
                first, *_, last = indexes
                for index in indexes:
                    other = last if index == first else first
                    found[index] = Duplicate(SAME_ID, self.rows[other])
        for _, indexes in _groups(self._keys):
            left = sorted((i for i in indexes if i not in found), key=self._rank)
            for index in left[1:]:
                found[index] = Duplicate(self._reason(left[0], index), self.rows[left[0]])
        others: defaultdict[int, list[int]] = defaultdict(list)
        for _, places in _groups(self._identities):
            left = [i for i in map(self._identity_rows.__getitem__, places) if i not in found]
            for index in left if len(left) > 1 else ():
                others[index].append(left[1] if index == left[0] else left[0])
        for index, sharing in others.items():
            found[index] = Duplicate(SAME_IDENTITY, self.rows[min(sharing)])
        return found

    def _key(self, index: int) -> bytes:
        return bytes(self._keys[index * _BYTES : (index + 1) * _BYTES])

    def _rank(self, index: int) -> tuple[object, ...]:
        return (
            self._unproved[index],
            not self._exact[index],
            self._created[index],
            self.id_of(index),
            index,
        )

    def _reason(self, winner: int, loser: int) -> str:
        if self._unproved[loser] and not self._unproved[winner]:
            return PROVED
        if self._exact[winner] and not self._exact[loser]:
            return LOWER_CASE
        return OLDER if self._created[winner] != self._created[loser] else FIRST


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=_BYTES).digest()


def _groups(values: bytearray) -> Iterator[tuple[bytes, list[int]]]:
    """Give each value that is there more than once, with its places, by its first one."""
    repeated = _repeated(values)
    places: defaultdict[bytes, list[int]] = defaultdict(list)
    if repeated:
        for place, number in enumerate(_numbers(values)):
            if number in repeated:
                places[bytes(values[place * _BYTES : (place + 1) * _BYTES])].append(place)
    return ((value, found) for value, found in places.items() if len(found) > 1)


def _repeated(values: bytearray) -> set[int]:
    """Give the numbers that stand for more than one of the values, some at once: a set is large."""
    parts = [array("Q") for _ in range(1 + len(values) // (_BYTES * _AT_ONCE))]
    for number in _numbers(values):
        parts[number % len(parts)].append(number)
    repeated: set[int] = set()
    for numbers in parts:
        if len(set(numbers)) < len(numbers):
            repeated |= {number for number, count in Counter(numbers).items() if count > 1}
    return repeated


def _numbers(values: bytearray) -> Iterator[int]:
    """Give a number for each value: its halves, mixed, because ids may differ in one alone."""
    halves = memoryview(values).cast("Q")
    return map(int.__xor__, halves[::2], halves[1::2])
