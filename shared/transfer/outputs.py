"""The files that an import or a rollback leaves: reports, and the rows it rejected."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from shared import files
from shared.errors import CommitUnknown
from shared.transfer.steps import sibling_path


class Outputs:
    """Files beside a users file, named for a batch, each durable before the COMMIT."""

    def __init__(self, source: Path, batch_id: str) -> None:
        """Write nothing yet."""
        self._source = source
        self._batch_id = batch_id
        self._open: dict[str, BinaryIO] = {}
        self._stack = ExitStack()
        self.written: list[Path] = []

    def __enter__(self) -> Outputs:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave no file that tells of what did not happen."""
        self._stack.__exit__(kind, error, traceback)
        if error is not None and not isinstance(error, CommitUnknown):
            for path in self.written:
                path.unlink(missing_ok=True)

    def write(self, kind: str, data: bytes, suffix: str = "") -> None:
        """Add to `users.<kind>.<batch>`, with the source's suffix or another. Raises OSError."""
        if kind not in self._open:
            path = sibling_path(self._source, kind, self._batch_id, suffix)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._open[kind] = self._stack.enter_context(files.creating(path))
            self.written.append(path)
        self._open[kind].write(data)

    def end(self) -> None:
        """Give the files their names, for good. Raises OSError."""
        self._stack.pop_all().close()
