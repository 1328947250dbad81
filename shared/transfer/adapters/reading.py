"""Reads a file of another system as rows of a users file, for the same transfer as any other.

What belongs to a user and stands in another place is read first, and kept in `Parts`; then the
users are streamed. Each place is one pass over its file, which has to stay as it is all the while.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from shared.errors import InvalidSource
from shared.formats.counts import count
from shared.model.user_record import InvalidRow
from shared.transfer.adapters.adapter import Adapter, Part
from shared.transfer.adapters.csv_rows import CsvSource, width
from shared.transfer.adapters.person import LeftBehind, Person, StaysBehind, Surroundings
from shared.transfer.json_rows import JsonSource
from shared.transfer.source_file import SourceFile, open_source
from shared.transfer.sources import Readable

if TYPE_CHECKING:
    from shared.transfer.adapters.parts import Parts

_SPACE = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"
_LOOKED_AT = 4096
_MAX_MODELS = 100
_MODEL = re.compile(r"\w{1,60}\.\w{1,60}")  # What else stands there may be an address.
_IS_OF_A_USER = re.compile("[@$]")
"""In an address, or a hash."""


class AdaptedFile:
    """A file of another system, and those that belong to it."""

    rejected_suffix = ".json"

    def __init__(
        self,
        main: SourceFile,
        adapter: Adapter,
        around: Callable[[LeftBehind], Surroundings],
        others: Mapping[str, Path],
    ) -> None:
        """Take the open file of users, and the paths of the others by their options."""
        self.path = main.path
        self.main = main
        self.adapter = adapter
        self.around = around
        self.others = others

    def source(self) -> AdaptedSource:
        """Begin at the beginning."""
        return AdaptedSource(self)

    def copy_rows(self, numbers: Iterable[int], write: Callable[[bytes], object]) -> None:
        """Write the rows with these numbers as a users file has them, to be corrected and read."""
        wanted = set(numbers)
        source = self.source()
        before = b"[\n  "
        for row in source.rows():
            if source.rows_read in wanted:
                if isinstance(row, InvalidRow):
                    row = {"row": source.rows_read, "problem": str(row), "source": source.original}
                text = json.dumps(row, default=str)
                write(before + text.encode())
                before = b",\n  "
        write(b"\n]\n")


class AdaptedSource:
    """The rows of another system's file, once."""

    def __init__(self, file: AdaptedFile) -> None:
        """Read nothing yet."""
        self._main, self._adapter, self._others = file.main, file.adapter, file.others
        self._left = LeftBehind()
        self._around = file.around(self._left)
        self._rows: JsonSource | CsvSource | None = None
        self._digests: list[str] = []
        self.original: Any = None
        """The last row as the file has it; an InvalidRow where it cannot be understood."""
        self.system: str | None = file.adapter.name
        self.stayed = 0
        """Rows of users who do not come along."""

    @property
    def rows_read(self) -> int:
        """The number of the last row, from 1."""
        return self._rows.rows_read if self._rows else 0

    @property
    def bytes_read(self) -> int:
        """How far the file of the users is read."""
        return self._rows.bytes_read if self._rows else 0

    @property
    def sha256(self) -> str:
        """The digest of the file; of several, that of their digests."""
        digests = [*self._digests, *([self._rows.sha256] if self._rows else [])]
        if len(digests) == 1:
            return digests[0]
        return hashlib.sha256(" ".join(digests).encode()).hexdigest()

    @property
    def left_behind(self) -> dict[str, dict[str, Any]]:
        """Why something stayed behind: in how many `rows`, and the first of them as `examples`."""
        return self._left.reasons

    def rows(self) -> Iterator[Any]:
        """Give every row of a user who comes along; one that cannot be understood is an InvalidRow.

        Raises InvalidSource, and OSError.
        """
        from shared.transfer.adapters.parts import Parts  # It loads sqlite3.

        with ExitStack() as stack:
            parts = Parts()
            stack.callback(parts.close)
            for part in self._adapter.parts:
                self._collect(part, parts, stack)
            yield from self._users(parts)
            for kind, number in parts.left():
                self._left.note(f"{kind} of a user who is not in the file", number)

    def _collect(self, part: Part, parts: Parts, stack: ExitStack) -> None:
        """Read what belongs to users."""
        if part.option is None:
            self._collect_from(self._main, part, parts)
            return
        path = self._others.get(part.option)
        if path is None:
            return
        try:
            rows = self._collect_from(stack.enter_context(open_source(path)), part, parts)
        except InvalidSource as problem:
            raise InvalidSource(f"--{part.option}: {problem.sentence}") from problem
        self._digests.append(rows.sha256)

    def _collect_from(self, file: SourceFile, part: Part, parts: Parts) -> JsonSource | CsvSource:
        rows = open_rows(file, member=part.member or self._adapter.member)
        for row in rows.rows():
            try:
                if not isinstance(row, dict):
                    raise row if isinstance(row, InvalidRow) else InvalidRow("It is not an object.")
                if (found := part.owner(row)) is not None:
                    parts.add(*found, rows.rows_read, row)
                    continue
                fault = "names no user"
            except InvalidRow as problem:
                fault = f"cannot be read: {problem}"
            if part.is_apart:
                self._left.note(f"{part.kinds[0]} that {fault}", rows.rows_read)
        return rows

    def _users(self, parts: Parts) -> Iterator[Any]:
        adapter = self._adapter
        self._rows = open_rows(self._main, member=adapter.member, headless=adapter.headless)
        is_checked = False
        others: Counter[str] = Counter()
        users = 0
        for row in self._rows.rows():
            if not is_checked:
                self._check_columns()
                is_checked = True
            self.original = row
            is_user = not isinstance(row, dict) or adapter.is_user(row)
            users += is_user
            if not isinstance(row, dict):
                yield row
            elif is_user:
                yield from self._adapted(row, parts)
            elif (
                isinstance(model := row.get("model"), str)
                and _MODEL.fullmatch(model)
                and (model in others or len(others) < _MAX_MODELS)
            ):
                others[model] += 1
        if not is_checked:  # There is no row.
            self._check_columns()
        if self._rows.rows_read and not users:
            raise self._no_users(others)

    def _adapted(self, row: dict[str, Any], parts: Parts) -> Iterator[Any]:
        person = Person(self._around, self.rows_read)
        try:
            found: dict[str, list[dict[str, Any]]] = {}
            for key in self._adapter.keys(row):
                for kind, these in parts.take(key).items():
                    found.setdefault(kind, []).extend(these)
            self._adapter.adapt(row, person, found)
            adapted = person.row()
        except InvalidRow as problem:
            yield problem
        except StaysBehind as reason:
            self.stayed += 1
            self._left.note(str(reason), self.rows_read)
        else:
            person.tell()
            yield adapted

    def _no_users(self, models: Counter[str]) -> InvalidSource:
        """Make the error for a file in which no row is of a user."""
        problem = f"none of its {count(self.rows_read, 'row')} is a user of {self._adapter.title}"
        if not models:
            return InvalidSource(f"The file cannot be read: {problem}.")
        likely = sorted(models, key=lambda name: ("user" not in name.lower(), -models[name]))
        names = ", ".join(f"{name} ({count(models[name], 'row')})" for name in likely[:10])
        return InvalidSource(
            f"The file cannot be read: {problem}. Name the model of users with --model; it has "
            f"{names}."
        )

    def _check_columns(self) -> None:
        if isinstance(self._rows, CsvSource) and self._rows.columns:
            lacking = sorted(self._adapter.columns.difference(self._rows.columns))
            if lacking:
                are = f"Its columns are {', '.join(self._rows.columns)[:300]}."
                if any(map(_IS_OF_A_USER.search, self._rows.columns)):
                    are = "Its first line has no names of columns."
                raise InvalidSource(
                    f"The file has no column {', '.join(lacking)}: is it one of "
                    f"{self._adapter.title}? {are}"
                )


class Rewindable(Readable, Protocol):
    """A stream that can begin again."""

    def rewind(self) -> None:
        """Begin again."""
        ...


def open_rows(
    file: Rewindable, *, member: str, headless: tuple[int, ...] = ()
) -> JsonSource | CsvSource:
    """Begin a file again, as the JSON or CSV that its first bytes are."""
    start = beginning(file)
    if not is_csv(start):
        return JsonSource(file, member=member)
    return CsvSource(file, has_header=width(start) not in headless)


def beginning(file: Rewindable) -> bytes:
    """Give the first bytes, and begin again."""
    file.rewind()
    start = file.read(_LOOKED_AT)
    file.rewind()
    return start


def is_csv(start: bytes) -> bool:
    """Tell whether a file that begins so is CSV, and not JSON."""
    first = start.removeprefix(_BOM).lstrip(_SPACE)[:1]
    return first not in (b"", b"[", b"{")
