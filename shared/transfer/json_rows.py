"""Reads the rows of a users file as a stream: an array, `{"users": […]}`, or JSON Lines.

Python's own scanner takes one row after the other out of a small buffer. The common streaming
parser is as fast, but gives `?` for half of a surrogate pair and crashes on a long number. A row
that is too long or too deep to be parsed is passed over by its quotes and brackets.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from shared.errors import InvalidSource
from shared.formats.strict_json import MAX_DEPTH, depth
from shared.model.user_record import InvalidRow
from shared.transfer.sources import FOREIGN, NOT_UTF_8, ROW_MAX_LENGTH, Readable

_PART = 16 * 1024
"""Bytes that are read at once where rows are short: in so many there are rarely more brackets than
a row may nest, and then `depth` has nothing to look at."""
_SPACE = re.compile(r"[ \t\n\r]*")
_BETWEEN_ROWS = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")
_REST_OF_TEXT = re.compile(r'[^"\\]*(?:\\.[^"\\]*)*("?)', re.DOTALL)
_TEXT = re.compile(f'"{_REST_OF_TEXT.pattern}', re.DOTALL)
_TOKEN = re.compile(rf"{_TEXT.pattern}|[\[\]{{}}]", re.DOTALL)
_MAX_DIGITS = 20
_MAX_TOKEN_LENGTH = 16
"""Of what the scanner takes for an error where it breaks off: `-Infinity`, half of an escape."""
_DEEPEST = MAX_DEPTH + 2
"""Of a buffer: its rows may stand in an array, and that in an object."""
_TOO_LONG = f"is longer than {ROW_MAX_LENGTH:,} characters"
_TOO_DEEP = "is nested too deeply"


class JsonSource:
    """The rows of a stream, and what is to be known of its bytes on the way."""

    def __init__(
        self, stream: Readable, *, is_json_lines: bool | None = None, member: str = "users"
    ) -> None:
        """Read nothing yet. Whether it is JSON Lines need not be found out a second time.

        `member` is what an object calls the array of its rows, where the file is one.
        """
        self._stream = stream
        self._member = member
        self._hash = hashlib.sha256()
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._buffer = ""
        self._shallow = ""
        self._depth = 0
        """Of the buffer, in which no row is deeper, but a line after a damaged one may be."""
        self._position = 0
        self._dropped = 0
        self._line = 1
        self._ended = False
        self._row = (0, 0)
        self._is_fresh = False
        """Whether the buffer has not been looked at since it was filled."""
        self._form = is_json_lines
        self.bytes_read = 0
        self.rows_read = 0
        self.is_json_lines = False
        self.is_in_object = False
        """Whether the rows are a member of one."""
        self.system, self.stayed = None, 0
        self.left_behind: dict[str, dict[str, Any]] = {}
        self.on_part: Callable[[str], object] | None = None
        """Is given the text of a row, in parts, that is too long or too deep for `row_text`.

        Only where there is one is `row_text` known of every row.
        """

    @property
    def sha256(self) -> str:
        """The digest of the bytes read so far, which is the file's own at its end."""
        return self._hash.hexdigest()

    @property
    def row_text(self) -> str:
        """The last row as it is written in the source."""
        return self._buffer[slice(*self._row)]

    def rows(self) -> Iterator[Any]:
        """Give every row; one that cannot be understood is an InvalidRow.

        Raises InvalidSource, and OSError where the stream does.
        """
        self._more()
        if self._buffer.startswith("\ufeff"):
            raise self._invalid("begins with a byte order mark; save it as UTF-8 without one")
        first = self._peek()
        if first == "":
            raise self._invalid("is empty")
        if first == "[":
            yield from self._array()
        elif first != "{":
            raise self._invalid("is neither an array of users nor one JSON object a line")
        elif self._is_json_lines() if self._form is None else self._form:
            yield from self._lines()
        else:
            yield from self._object()
        if self._peek():
            raise self._invalid("goes on after its end")

    def _is_json_lines(self) -> bool:
        """Tell whether every line is a row, and not all of them one object around the users."""
        while (end := self._buffer.find("\n", self._position)) < 0:
            if len(self._buffer) - self._position > ROW_MAX_LENGTH:
                return False  # Perhaps a long row; `_object` finds out.
            if not self._double():
                end = len(self._buffer)
                break
        text = self._buffer[self._position : end].rstrip()
        following = self._character_after(end)
        line = _parse_line(text)
        if isinstance(line, dict):
            if isinstance(line.get(self._member), list | dict):
                return False
            return bool(following) or "email" in line
        return following == "{" and not _is_in_array(text)  # A line that has been damaged.

    def _character_after(self, end: int) -> str:
        """Look for the next character behind white space, and consume nothing."""
        while True:
            match = _SPACE.match(self._buffer, end)
            assert match
            if match.end() < len(self._buffer):
                return self._buffer[match.end()]
            if len(self._buffer) - self._position > 2 * ROW_MAX_LENGTH:
                return ""
            end -= self._position
            if not self._more():
                return ""

    def _array(self) -> Iterator[object]:
        self._expect("[")
        if self._peek() != "]":
            while True:
                if self._is_fresh and self.on_part is None:
                    for row in self._rows_at_once():
                        self.rows_read += 1
                        yield row
                self.rows_read += 1
                yield self._value()
                between = _BETWEEN_ROWS.match(self._buffer, self._position)
                if between and between.end() < len(self._buffer):
                    self._position = between.end()
                    continue
                if self._peek() != ",":
                    break
                self._position += 1
                self._peek()
        self._expect("]")

    def _rows_at_once(self) -> list[object]:
        """Scan all but the last of the rows in the buffer together, which takes half of the time.

        They are what is an array between brackets. Nothing is given where they are not easily told
        apart, or too long or too deep.
        """
        self._is_fresh = False
        end = self._buffer.rfind("}", self._position) + 1
        between = _BETWEEN_ROWS.match(self._buffer, end)
        if not end or not between or between.end() == len(self._buffer):
            return []
        if self._depth > MAX_DEPTH or len(self._buffer) > ROW_MAX_LENGTH:
            return []
        try:
            rows: list[object] = _SCANNER.decode(f"[{self._buffer[self._position : end]}]")
        except json.JSONDecodeError:  # The bracket is one within a row, or something is wrong.
            return []
        self._position = between.end()
        return rows

    def _object(self) -> Iterator[object]:
        """Give the rows of the one array of an object, whatever else it holds."""
        line, start = self._current_line, self._offset
        is_found = False
        for name in self._each_member():
            if name != self._member:
                self._value()
                continue
            if is_found:
                raise self._invalid(f"names {name} a second time")
            is_found = self.is_in_object = True
            if self._peek() != "[":
                raise self._wrong_form(f"its {name} are not an array")
            yield from self._array()
        if is_found:
            return
        is_one_line = self._current_line == line
        if is_one_line and self._offset - start > ROW_MAX_LENGTH:
            self.rows_read = 1
            self._row = (0, 0)
            yield InvalidRow(f"The line {_TOO_LONG}.")
            yield from self._lines()
        elif self._peek() == "{":
            raise self._wrong_form("its objects do not stand one on a line")
        else:
            raise self._wrong_form(f"it is one object, and has no array of {self._member}")

    def _each_member(self) -> Iterator[object]:
        """Give the name of each member of an object; the value is to be read before the next."""
        self._expect("{")
        while self._peek() != "}":
            name = self._value()
            if type(name) is not str:
                raise self._invalid("is no JSON")
            self._expect(":")
            self._peek()
            yield name
            if self._peek() != ",":
                break
            self._position += 1
            if self._peek() == "}":
                raise self._invalid("is no JSON")
        self._expect("}")

    def _lines(self) -> Iterator[object]:
        self.is_json_lines = True
        while True:
            end = self._buffer.find("\n", self._position)
            length = (end if end >= 0 else len(self._buffer)) - self._position
            if length > ROW_MAX_LENGTH:
                self.rows_read += 1
                yield self._skip_line()
                continue
            if end < 0:
                if self._double():
                    continue
                end = len(self._buffer)
            self._row = (self._position, end)
            line = self.row_text.strip()
            self._position = end + 1
            if line:
                self.rows_read += 1
                yield _parse_line(line)
            if end == len(self._buffer):
                return

    def _value(self) -> object:
        """Scan one value, reading on for as long as it is incomplete."""
        while True:
            try:
                value, end = _SCANNER.raw_decode(self._shallow, self._position)
            except json.JSONDecodeError as error:
                if _is_certain(error):
                    self._position = error.pos
                    raise self._invalid("is no JSON") from error
                if len(self._shallow) < len(self._buffer):
                    return self._skip(_TOO_DEEP)
                value, end = None, None
            if end is not None and end < len(self._buffer):
                return self._scanned(value, end)
            if len(self._buffer) - self._position > ROW_MAX_LENGTH:
                return self._skip(_TOO_LONG)
            if not self._double():
                if end is None:
                    raise self._invalid("breaks off or is no JSON")
                return self._scanned(value, end)

    def _scanned(self, value: object, end: int) -> object:
        self._row = (self._position, end)
        self._position = end
        if self._row[1] - self._row[0] > ROW_MAX_LENGTH:
            return InvalidRow(f"It {_TOO_LONG}.")
        if self._depth > MAX_DEPTH and _is_too_deep(self.row_text):
            return InvalidRow(f"It {_TOO_DEEP}.")
        return value

    def _skip(self, problem: str) -> InvalidRow:
        """Pass over a value that cannot be parsed, and give its text away in parts."""
        if self._buffer[self._position] not in '"[{':
            raise self._invalid("is no JSON")
        levels, is_text = 0, False
        while True:
            end, levels, is_text = self._passed(levels, is_text)
            if not levels and not is_text:
                break
            self._pass_to(end)
            if not self._more():
                raise self._invalid(f"breaks off in a value that {problem}")
        self._pass_to(end)
        self._consume("")  # What was cut off may begin behind it.
        return InvalidRow(f"It {problem}.")

    def _passed(self, levels: int, is_text: bool) -> tuple[int, int, bool]:
        """Follow a value through the buffer: give where, in what depth and in what that ends."""
        end = self._position
        if is_text:
            found = _REST_OF_TEXT.match(self._buffer, end)
            assert found
            end = found.end()
            if not found[1]:
                return end, levels, True
        if not levels and end > self._position:
            return end, 0, False
        for found in _TOKEN.finditer(self._buffer, end):
            mark = self._buffer[found.start()]
            if mark == '"':
                if not found[1]:
                    return found.end(), levels, True
            else:
                levels += 1 if mark in "[{" else -1
            if not levels:
                return found.end(), 0, False
        return len(self._buffer), levels, False

    def _skip_line(self) -> InvalidRow:
        while (end := self._buffer.find("\n", self._position)) < 0:
            self._pass_to(len(self._buffer))
            if not self._more():
                return InvalidRow(f"The line {_TOO_LONG}.")
        self._pass_to(end)
        self._position += 1
        return InvalidRow(f"The line {_TOO_LONG}.")

    def _pass_to(self, end: int) -> None:
        if self.on_part is not None:
            self.on_part(self._buffer[self._position : end])
        self._position = end
        self._row = (end, end)

    def _peek(self) -> str:
        """Skip white space and give the next character, or nothing at the end."""
        while True:
            match = _SPACE.match(self._buffer, self._position)
            assert match
            self._position = match.end()
            if self._position < len(self._buffer):
                return self._buffer[self._position]
            if not self._more():
                return ""

    def _expect(self, character: str) -> None:
        found = self._peek()
        if found != character:
            raise self._invalid("breaks off" if not found else f"lacks a {character!r}")
        self._position += 1

    def _more(self, size: int = _PART) -> bool:
        """Read another part behind what is not consumed yet; tell whether there was one."""
        if self._ended:
            return False
        chunk = self._stream.read(size)
        if not self.bytes_read:
            for start, form in FOREIGN.items():
                if chunk.startswith(start):
                    raise InvalidSource(f"The file cannot be read: it is {form}.")
        self._ended = not chunk
        try:
            text = self._decoder.decode(chunk, final=self._ended)
        except UnicodeDecodeError:
            raise self._invalid(f"is {NOT_UTF_8}") from None
        if self._ended:
            return False
        self._hash.update(chunk)
        self.bytes_read += len(chunk)
        self._consume(text)
        return True

    def _double(self) -> bool:
        """Read as much again as is not consumed, so that a long value is not scanned often."""
        size = 2 * (len(self._buffer) - self._position)
        is_more = self._more(max(_PART, size // 2))
        while (lacking := size - len(self._buffer) + self._position) > 0:
            if not self._more(max(_PART, lacking)):
                break
        return is_more

    def _consume(self, text: str) -> None:
        """Drop what lies before the position, and put text behind the rest."""
        self._dropped += self._position
        self._line = self._current_line
        self._buffer, self._position = self._buffer[self._position :] + text, 0
        self._row = (0, 0)
        self._is_fresh = True
        self._depth = depth(self._buffer.encode())
        self._shallow = self._buffer if self._depth <= _DEEPEST else _shallow(self._buffer)

    @property
    def _offset(self) -> int:
        return self._dropped + self._position

    @property
    def _current_line(self) -> int:
        return self._line + self._buffer.count("\n", 0, self._position)

    def _invalid(self, problem: str) -> InvalidSource:
        row = f"row {self.rows_read}, " if self.rows_read else ""
        return InvalidSource(f"The file cannot be read: {row}line {self._current_line} {problem}.")

    def _wrong_form(self, problem: str) -> InvalidSource:
        remedy = f'Write {{"{self._member}": […]}}.'
        if self._member == "users":
            remedy = 'Write an array of users, {"users": […]}, or one user a line.'
        return InvalidSource(f"The file cannot be read: {problem}. {remedy}")


def _is_certain(error: json.JSONDecodeError) -> bool:
    """Tell an error from a text that only breaks off, which may go on."""
    is_open = error.msg.startswith("Unterminated string")
    return not is_open and len(error.doc) - error.pos > _MAX_TOKEN_LENGTH


def _parse_line(line: str) -> object:
    if _is_too_deep(line):
        return InvalidRow(f"The line {_TOO_DEEP}.")
    try:
        return _SCANNER.decode(line)
    except ValueError:
        return InvalidRow("The line is not JSON.")


def _is_in_array(text: str) -> bool:
    """Tell whether the beginning of an object breaks off in something within it."""
    marks = _TEXT.sub("", text)
    return sum(map(marks.count, "[{")) - sum(map(marks.count, "]}")) > 1


def _is_too_deep(text: str) -> bool:
    return depth(text.encode()) > MAX_DEPTH


def _shallow(buffer: str) -> str:
    """Cut off, before it is scanned, what begins outside of any text and gets too deep.

    The array around the rows counts as well, and so does the object around that, if they begin
    in this buffer: how deep a row is by itself is measured once it can be told where it ends.
    """
    ends = range(len(buffer))
    end = bisect_left(ends, _DEEPEST + 1, key=lambda end: depth(buffer[:end].encode()))
    return buffer[:end]


def _members(pairs: list[tuple[str, Any]]) -> object:
    members = dict(pairs)
    if len(members) < len(pairs):
        return InvalidRow("It names a member twice.")
    return members


def _integer(text: str) -> object:
    return int(text) if len(text) <= _MAX_DIGITS else InvalidRow("A number is too large.")


_SCANNER = json.JSONDecoder(
    object_pairs_hook=_members,
    parse_int=_integer,
    parse_constant=lambda _: InvalidRow("It holds NaN or Infinity."),
)


def copy_rows(source: JsonSource, numbers: Iterable[int], write: Callable[[bytes], object]) -> None:
    """Write the rows with these numbers as they stand, in a file that can be read again."""
    wanted = set(numbers)
    before = b"[\n  "
    copied = 0

    def copy(text: str) -> None:
        nonlocal before, copied
        if source.rows_read not in wanted:
            return
        if source.rows_read != copied and not source.is_json_lines:
            write(before)
            before = b",\n  "
        copied = source.rows_read
        write(text.encode())

    source.on_part = copy
    for _ in source.rows():
        copy(source.row_text.strip())
        if source.is_json_lines and source.rows_read in wanted:
            write(b"\n")
    if not source.is_json_lines:
        write(b"\n]\n")
