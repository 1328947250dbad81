"""What a source of users is to a transfer, whatever its form: rows, and what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

ROW_MAX_LENGTH = 1024 * 1024
"""Characters of one row."""
_UTF_16, _PACKED = "in UTF-16; save it as UTF-8", "compressed; unpack it first"
FOREIGN = {
    b"\xff\xfe": _UTF_16, b"\xfe\xff": _UTF_16, b"[\0": _UTF_16, b"{\0": _UTF_16, b"\0[": _UTF_16,
    b"\0{": _UTF_16,
    b"\x1f\x8b": _PACKED, b"PK\3\4": _PACKED, b"BZh": _PACKED, b"\xfd7zXZ": _PACKED,
    b"\x28\xb5\x2f\xfd": _PACKED, b"%PDF": "a PDF; export the users as JSON or CSV",
}  # fmt: skip
"""What is often given instead, by its first bytes."""
NOT_UTF_8 = "not in UTF-8; if it is Latin-1, convert the file: iconv -f WINDOWS-1252 -t UTF-8"


class Readable(Protocol):
    """A binary stream: a file, or the body of a request."""

    def read(self, size: int, /) -> bytes:
        """Give up to `size` bytes, and none at the end."""
        ...


class Rows(Protocol):
    """The rows of a source, once, and what is to be known of it on the way and at its end."""

    @property
    def rows_read(self) -> int:
        """The number of the last row, from 1."""
        ...

    @property
    def bytes_read(self) -> int:
        """How far it is read."""
        ...

    @property
    def sha256(self) -> str:
        """The digest of what is read so far."""
        ...

    @property
    def system(self) -> str | None:
        """The other system whose file it is, if it is one."""
        ...

    @property
    def stayed(self) -> int:
        """How many rows are of users who stay behind: they are not given."""
        ...

    @property
    def left_behind(self) -> dict[str, dict[str, Any]]:
        """Why they, or something of others, stay behind: how many `rows`, and `examples`."""
        ...

    def rows(self) -> Iterator[Any]:
        """Give every row; one that cannot be understood is an InvalidRow.

        Raises InvalidSource, and OSError where the stream does.
        """
        ...


class Opened(Protocol):
    """An open source, which can be read several times."""

    path: Path

    @property
    def rejected_suffix(self) -> str:
        """How the name of a file of its rejected rows ends."""
        ...

    def source(self) -> Rows:
        """Begin at the beginning."""
        ...

    def copy_rows(self, numbers: Iterable[int], write: Callable[[bytes], object]) -> None:
        """Write the rows with these numbers in a file that can be read again."""
        ...
