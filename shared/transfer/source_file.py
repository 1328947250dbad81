"""A users file on the disk, which has to stay as it is while it is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from shared import files
from shared.errors import InvalidSource
from shared.transfer.json_rows import JsonSource, copy_rows

CHUNK = 128 * 1024
"""Bytes that a copy, or the body of a request, is read by."""


class SourceFile:
    """A users file that has to stay as it is while it is read."""

    def __init__(self, path: Path) -> None:
        """Open it. Raises OSError."""
        self.path = path
        self._last: JsonSource | None = None
        self._file = files.open_regular(path)
        try:
            self._first = os.fstat(self._file.fileno())
        except OSError:
            self._file.close()
            raise

    def __enter__(self) -> SourceFile:
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._file.close()

    def read(self, size: int, /) -> bytes:
        """Read on. At the end, raises InvalidSource where the file has changed or was replaced."""
        chunk = self._file.read(size)
        if not chunk and not self._is_as_it_was():
            raise InvalidSource(f"The file {self.path} changed while it was read.")
        return chunk

    def rewind(self) -> None:
        """Begin again, with what must still be the same bytes."""
        self._file.seek(0)

    @property
    def rejected_suffix(self) -> str:
        """How the name of a file of its rejected rows ends: as its own."""
        return self.path.suffix

    def source(self) -> JsonSource:
        """Begin at the beginning."""
        self.rewind()
        is_json_lines = None if self._last is None else self._last.is_json_lines
        self._last = JsonSource(self, is_json_lines=is_json_lines or None)
        return self._last

    def copy_rows(self, numbers: Iterable[int], write: Callable[[bytes], object]) -> None:
        """Write the rows with these numbers as they stand, in a file that can be read again."""
        copy_rows(self.source(), numbers, write)

    @property
    def is_empty(self) -> bool:
        """Tell whether there is nothing in it."""
        return self._first.st_size == 0

    @property
    def modified(self) -> float:
        """When it was written, in seconds since 1970."""
        return self._first.st_mtime

    def _is_as_it_was(self) -> bool:
        try:
            now = self.path.lstat()
        except OSError:
            return False
        return os.path.samestat(now, self._first) and (now.st_size, now.st_mtime_ns) == (
            self._first.st_size,
            self._first.st_mtime_ns,
        )


def open_source(path: Path) -> SourceFile:
    """Open a users file. Raises InvalidSource where that cannot be done."""
    try:
        return SourceFile(path)
    except FileNotFoundError:
        raise InvalidSource(f"There is no file {path}.") from None
    except files.NotARegularFile as error:
        raise InvalidSource(f"{error}.") from None
    except OSError as error:
        raise InvalidSource(f"{path} cannot be read: {error.strerror}.") from error
