"""Reads the rows of a CSV file as a stream (RFC 4180): a row has bounds, and a bad one costs none.

A record ends where a line does and no quoted cell is open. A cell is quoted that begins with a
quote; in any other it is a character (a 5" disk). So a row that is too long, or whose
quotes are wrong, is passed over, and the next one begins where it should.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from shared.errors import InvalidSource
from shared.model.user_record import InvalidRow
from shared.transfer.sources import FOREIGN, NOT_UTF_8, ROW_MAX_LENGTH, Readable

_PART = 64 * 1024
_MAX_COLUMNS = 1000
_SEPARATORS = {";": "semicolons", "\t": "tabs"}
_OPENS = re.compile(r'(?:^|(?<=,))"')
_WITHIN_QUOTES = re.compile(r'[^"]*+(?:""[^"]*+)*+')


class CsvSource:
    """The rows of a stream, each an object of the cells by the names in the first line."""

    def __init__(self, stream: Readable, *, has_header: bool = True) -> None:
        """Read nothing yet. Without a header the names are those of the places, from 0."""
        self._stream = stream
        self._hash = hashlib.sha256()
        self._has_header = has_header
        self.columns: Sequence[str] = ()
        self.bytes_read = 0
        self.rows_read = 0
        self._line = self._last_line = 1
        """Where the record begins and ends."""

    @property
    def sha256(self) -> str:
        """The digest of the bytes read so far, which is the file's own at its end."""
        return self._hash.hexdigest()

    def rows(self) -> Iterator[Any]:
        """Give every row; one that cannot be understood is an InvalidRow.

        Raises InvalidSource, and OSError where the stream does.
        """
        csv.field_size_limit(max(csv.field_size_limit(), ROW_MAX_LENGTH))
        records = self._records()
        if self._has_header:
            first = next(records, None)
            if first is None:
                raise self._invalid("is empty")
            self.columns = self._names(first)
        for record in records:
            self.rows_read += 1
            yield self._row(record)

    def _names(self, record: str | InvalidRow) -> Sequence[str]:
        if isinstance(record, InvalidRow):
            raise self._invalid(f"is no header: {record}")
        try:
            names = [name.strip() for name in _cells(record)]
        except csv.Error:
            raise self._invalid("is no header of a CSV file") from None
        if len(names) == 1:
            for mark, marks in _SEPARATORS.items():
                if mark in names[0]:
                    raise self._invalid(f"has {marks} between its cells; write commas there")
        if len(set(names)) < len(names):
            raise self._invalid("names a column twice")
        if len(names) > _MAX_COLUMNS or not all(map(str.isprintable, names)):
            raise self._invalid("is no header of a CSV file")
        return names

    def _row(self, record: str | InvalidRow) -> object:
        try:
            return self._parsed(record)
        except InvalidRow as problem:
            if self._last_line == self._line:
                return problem
            lines = f"lines {self._line:,} to {self._last_line:,}"
            return InvalidRow(f"{problem} A quote has made one row of {lines}.")

    def _parsed(self, record: str | InvalidRow) -> dict[str, str]:
        if isinstance(record, InvalidRow):
            raise record
        if "\0" in record:
            raise InvalidRow("It holds a NUL character.")
        try:
            cells = _cells(record)
        except csv.Error:
            raise InvalidRow("Its quotes are wrong.") from None
        if not self._has_header:
            return {str(place): cell for place, cell in enumerate(cells)}
        if len(cells) != len(self.columns):
            raise InvalidRow(f"It has {len(cells)} cells, and the header {len(self.columns)}.")
        return dict(zip(self.columns, cells, strict=True))

    def _records(self) -> Iterator[str | InvalidRow]:
        parts: list[str] = []
        length = lines = 0
        is_open = False
        for piece in self._pieces():
            self._line = self._line if length else lines + 1
            is_open = _is_open_behind(piece, is_open=is_open)
            length += len(piece)
            if length > ROW_MAX_LENGTH:
                parts.clear()
            else:
                parts.append(piece)
            if not piece.endswith("\n"):
                continue
            lines += 1
            self._last_line = lines
            if not is_open:
                yield from _whole(parts, length)
                parts, length = [], 0
        if is_open:
            self.rows_read += 1
            raise self._invalid("opens a quote that does not end")
        self._last_line = lines + 1
        yield from _whole(parts, length)

    def _pieces(self) -> Iterator[str]:
        """Give the text in lines, a long one in pieces of which the last one ends it."""
        decoder = codecs.getincrementaldecoder("utf-8-sig")()
        rest = ""
        while True:
            chunk = self._chunk()
            try:
                lines = decoder.decode(chunk, final=not chunk).split("\n")
            except UnicodeDecodeError:
                raise self._invalid(f"or one soon after it is {NOT_UTF_8}") from None
            if len(lines) > 1:
                yield f"{rest}{lines[0]}\n"
                for line in lines[1:-1]:
                    yield f"{line}\n"
                rest = ""
            rest += lines[-1]
            if not chunk or len(rest) > ROW_MAX_LENGTH:
                if rest:
                    yield rest
                rest = ""
            if not chunk:
                return

    def _chunk(self) -> bytes:
        chunk = self._stream.read(_PART)
        if not self.bytes_read:
            for start, form in FOREIGN.items():
                if chunk.startswith(start):
                    raise InvalidSource(f"The file cannot be read: it is {form}.")
        self._hash.update(chunk)
        self.bytes_read += len(chunk)
        return chunk

    def _invalid(self, problem: str) -> InvalidSource:
        row = f"row {self.rows_read}, " if self.rows_read else ""
        return InvalidSource(f"The file cannot be read: {row}line {self._line} {problem}.")


def width(start: bytes) -> int:
    """Count the cells of the first line."""
    line = start.split(b"\n")[0].decode(errors="replace")
    try:
        return len(_cells(line.strip("\r")))
    except csv.Error:
        return 0


def _whole(parts: list[str], length: int) -> Iterator[str | InvalidRow]:
    """Give a record, unless it is a blank line."""
    if length > ROW_MAX_LENGTH:
        yield InvalidRow(f"It is longer than {ROW_MAX_LENGTH:,} characters.")
    elif record := "".join(parts).strip("\r\n"):
        yield record


def _is_open_behind(piece: str, *, is_open: bool) -> bool:
    """Tell whether a quoted cell is open at the end of a piece, as one was at its beginning."""
    if '"' not in piece:
        return is_open
    position = 0
    while True:
        if not is_open:
            opening = _OPENS.search(piece, position)
            if opening is None:
                return False
            position = opening.end()
        within = _WITHIN_QUOTES.match(piece, position)
        assert within
        if within.end() == len(piece):
            return True
        position, is_open = within.end() + 1, False


def _cells(record: str) -> list[str]:
    return next(csv.reader([record], strict=True), [])
