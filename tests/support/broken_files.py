"""Makes chosen file system calls of this process fail, as a full or a broken disk makes them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from shared import files

_BY_PATH = ("open", "stat", "lstat", "mkdir", "rename", "replace", "link", "unlink", "remove")
_BY_DESCRIPTOR = ("fstat", "fsync", "ftruncate", "pread")


class Call(NamedTuple):
    """One call about a file."""

    kind: str
    path: str


class BrokenFiles:
    """The calls about what is in a folder, in their order.

    The call number `at` fails with `number`, one of the `errno` module's; if `lasting`, every
    later one, too. A write that fails has written the half of it.
    """

    def __init__(
        self, folder: Path, at: int | None = None, number: int = 0, *, lasting: bool = False
    ) -> None:
        self._folder = str(folder)
        self.at, self._number, self._lasting = at, number, lasting
        self.calls: list[Call] = []

    @contextmanager
    def broken(self) -> Iterator[BrokenFiles]:
        """Have the calls fail in this block."""
        with pytest.MonkeyPatch.context() as patch:
            for module, names in ((os, (*_BY_PATH, *_BY_DESCRIPTOR)), (fcntl, ("flock",))):
                for name in names:
                    patch.setattr(module, name, self._watched(name, getattr(module, name)))
            files._NamedFile.__bases__ = (self._file(),)
            try:
                yield self
            finally:
                files._NamedFile.__bases__ = (FileIO,)

    def fails(self, kind: str, subject: Any) -> OSError | None:
        """Note a call about a path or a descriptor, and give the error that it is to raise."""
        by_path = kind in _BY_PATH and not isinstance(subject, int)
        path = os.fspath(subject) if by_path else os.readlink(f"/proc/self/fd/{subject}")
        if not path.startswith(self._folder):
            return None
        self.calls.append(Call(kind, path))
        number = len(self.calls) - 1
        if self.at is None or not (number == self.at or (self._lasting and number > self.at)):
            return None
        names = (path,) if by_path else ()  # The system names only what it was told by name.
        return OSError(self._number, os.strerror(self._number), *names)

    def _watched(self, kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(subject: Any, *arguments: Any, **options: Any) -> Any:
            if error := self.fails(kind, subject):
                raise error
            return real(subject, *arguments, **options)

        return call

    def _file(self) -> type[FileIO]:
        fails = self.fails

        class BrokenFile(FileIO):
            def write(self, data: Any, /) -> int:
                if error := fails("write", self.fileno()):
                    super().write(memoryview(data)[: len(data) // 2])
                    raise error
                return super().write(data)

            def readinto(self, buffer: Any, /) -> int:
                if error := fails("read", self.fileno()):
                    raise error
                return super().readinto(buffer)

            def readall(self) -> bytes:
                if error := fails("read", self.fileno()):
                    raise error
                return super().readall()

        return BrokenFile
