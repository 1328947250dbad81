"""Tells a file's system by the names in its first rows, which no other system has together."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from shared.errors import InvalidSource
from shared.transfer.adapters.adapter import Adapter
from shared.transfer.adapters.csv_rows import CsvSource, width
from shared.transfer.adapters.reading import beginning, is_csv, open_rows
from shared.transfer.adapters.systems import SYSTEMS
from shared.transfer.json_rows import JsonSource
from shared.transfer.source_file import SourceFile
from shared.transfer.sources import FOREIGN

_LOOKED_AT_ROWS, _LOOKED_AT_BYTES = 20, 1024 * 1024


class Recognised(NamedTuple):
    """A system, and what tells it."""

    adapter: Adapter
    mark: str


def recognise(file: SourceFile) -> Recognised | None:
    """Tell the system that a file comes from; None where it may be a users file of ours.

    Raises InvalidSource where it could be of two, or is CSV of none.
    """
    start = beginning(file)
    if start.startswith(tuple(FOREIGN)):
        return None  # Whoever reads it says what it is.
    found = _of_names(file) or _headless(start)
    if len(found) > 1:
        names = " or ".join(it.adapter.title for it in found)
        raise InvalidSource(f"The file could be {names}'s: name the system with --from.")
    if not found and is_csv(start):
        next(CsvSource(_Start(file)).rows(), None)  # What is wrong with it is the nearer reason.
        file.rewind()
        raise InvalidSource(
            "The file is neither JSON nor the CSV of a system that is recognised: name it with "
            "--from, or say with --from csv --map which column is what."
        )
    return found[0] if found else None


class _Start:
    """The beginning of a file, which is all that is looked at: the rest may be long."""

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self._left = _LOOKED_AT_BYTES

    def read(self, size: int, /) -> bytes:
        chunk = self._file.read(size) if self._left > 0 else b""
        self._left -= len(chunk)
        return chunk

    def rewind(self) -> None:
        self._file.rewind()
        self._left = _LOOKED_AT_BYTES


def _of_names(file: SourceFile) -> Sequence[Recognised]:
    start = _Start(file)
    found: list[Recognised] = []
    for member in {adapter.member: None for adapter in SYSTEMS.values()}:
        rows = open_rows(start, member=member)
        names: list[frozenset[str]] = []
        with suppress(InvalidSource):  # Whoever reads the whole file says what is wrong.
            looked_at = islice(rows.rows(), _LOOKED_AT_ROWS)
            names.extend(frozenset(row) for row in looked_at if isinstance(row, dict))
        if isinstance(rows, JsonSource) and rows.is_in_object:
            names = [it | {f"{member}[]"} for it in names]
        is_table = isinstance(rows, CsvSource)
        if isinstance(rows, CsvSource):
            names = [frozenset(rows.columns)]
        for adapter in SYSTEMS.values():
            if is_table or adapter.member == member:
                found += _marked(adapter, names)
        if is_table:
            break
    file.rewind()
    return found


def _marked(adapter: Adapter, rows: Sequence[frozenset[str]]) -> Sequence[Recognised]:
    for marks in adapter.marks:
        if any(marks <= names for names in rows):
            return [Recognised(adapter, ", ".join(sorted(marks)))]
    return []


def _headless(start: bytes) -> Sequence[Recognised]:
    """Tell a system by the number of columns, where its CSV has no header."""
    if not is_csv(start):
        return []
    columns = width(start)
    return [
        Recognised(adapter, f"{columns} columns without a header")
        for adapter in SYSTEMS.values()
        if columns in adapter.headless
    ]
