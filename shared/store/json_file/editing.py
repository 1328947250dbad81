"""One change to a users file: in what was read of it, and in its bytes.

The other users are neither read nor written again, so that their number does not decide how long a
change takes; only their bytes are copied.
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Sequence
from typing import Any

from shared.formats.strict_json import InvalidJson, loads
from shared.model.emails import email_key
from shared.model.user_record import PENDING
from shared.store.json_file.users_file import Record, Users, identities, index

_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACE = b" \t\n\r"
_OPENING = re.compile(rb"\n  \{")


def changed(users: Users, old: Record | None, new: Record | None) -> Users:
    """Give the users, of no file yet, with a record that is added, replaced or left out.

    Who is added has a key, an id and identities that nobody has. A record is replaced by one of the
    same id and date of creation, and at least the same identities.
    """
    records = [record for record in users.records if record is not old]
    if old is None and new is not None:
        records.append(new)
    elif new is not None:
        records = [new if record is old else record for record in users.records]
        if old is not None and new["email"] != old["email"]:
            return index(None, records)
    elif not _is_unique(users):  # Another record takes the place.
        return index(None, records)
    record = new or old
    assert record
    return Users(
        None,
        records,
        _placed(users.by_key, [email_key(record["email"])], old, new),
        _placed(users.by_id, [record["id"]], old, new),
        _placed(users.by_identity, identities(record), old, new),
        pending=[record for record in records if PENDING in record],
    )


def _is_unique(users: Users) -> bool:
    """Tell whether no record stands in the shade of another one."""
    linked = sum(len(record.get("identities", ())) for record in users.records)
    return len(users.by_key) == len(users.by_id) == len(users.records) and (
        len(users.by_identity) == linked
    )


def _placed(
    known: dict[Any, Record], names: Sequence[Any], old: Record | None, new: Record | None
) -> dict[Any, Record]:
    placed = dict(known)
    for name in names:
        if placed.get(name, old) is old:
            placed.pop(name, None)
            if new is not None:
                placed[name] = new
    return placed


def edited(
    data: bytes | mmap.mmap, users: Users, old: Record | None, new: Record | None
) -> list[bytes | memoryview] | None:
    """Give the parts of a file that holds these users, changed as by `changed`.

    None where its layout is not the old server's, and everything is to be written.
    """
    view = memoryview(data)
    if old is None and new is not None:
        end = data.rfind(b"]")
        while end > 0 and data[end - 1] in _SPACE:
            end -= 1
        return [view[:end], b",\n  ", _entry(new), b"\n]"] if users.records else None
    assert old
    start, end = _place(data, users, old)
    if start < 0:
        return None
    if new is not None:
        return [view[:start], _entry(new), view[end:]]
    if data[end : end + 4] == b",\n  ":
        return [view[:start], view[end + 4 :]]
    if data[start - 4 : start] == b",\n  ":
        return [view[: start - 4], view[end:]]
    return None


def _place(data: bytes | mmap.mmap, users: Users, record: Record) -> tuple[int, int]:
    """Find where a record begins and ends, or (-1, -1)."""
    nowhere = -1, -1
    if data[:5] != b"[\n  {" or sum(1 for _ in _OPENING.finditer(data)) != len(users.records):
        return nowhere
    member = data.find(b'\n    "id": ' + _json(record["id"]).encode())
    start = data.rfind(b"\n  {", 0, max(member, 0)) + len(b"\n  ")
    end = data.find(b"\n  }", member) + len(b"\n  }")
    try:
        is_it = member > 0 and loads(data[start:end]) == record
    except InvalidJson:
        return nowhere
    return (start, end) if is_it else nowhere


def whole(records: list[Record]) -> bytes:
    """Write all records as the old server does."""
    return _json(records).encode()


def _entry(record: Record) -> bytes:
    return _json(record).replace("\n", "\n  ").encode()


def _json(value: object) -> str:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    # As JSON.stringify does: a lone surrogate has no UTF-8, but it has an escape.
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
