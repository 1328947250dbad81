"""The files that an apply leaves beside its source: its report, and the rows it rejected."""

from __future__ import annotations

from array import array
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from shared import files
from shared.errors import CommitUnknown
from shared.store import bulk
from shared.transfer.sources import Source, SourceFile, copy_rows
from shared.transfer.steps import Event, Outcome, Ready, beside


class Outputs:
    """The files that an apply leaves beside its source, each durable before the COMMIT."""

    def __init__(self, source: SourceFile, batch_id: str) -> None:
        """Write nothing yet."""
        self._source = source
        self._batch_id = batch_id
        self._open_files = ExitStack()
        self._rejected = array("Q")
        self._report: BinaryIO | None = None
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
        self._open_files.__exit__(kind, error, traceback)
        if error is not None and not isinstance(error, CommitUnknown):
            for path in self.written:
                path.unlink(missing_ok=True)

    def write_report(self, lines: bytes) -> None:
        """Add to the report."""
        if self._report is None:
            self._report = self._open_files.enter_context(self._creating("report", ".jsonl"))
        self._report.write(lines)

    def on_event(self, event: Event) -> None:
        """Remember rejected rows, and end every file before the COMMIT."""
        if isinstance(event, Outcome) and event.verdict in bulk.REJECTED and event.row:
            self._rejected.append(event.row)
        if isinstance(event, Ready):
            if self._rejected:
                self._source.rewind()
                with self._creating("rejected") as file:
                    copy_rows(Source(self._source), self._rejected, file.write)
            self._open_files.pop_all().close()

    def _creating(self, kind: str, suffix: str = "") -> AbstractContextManager[BinaryIO]:
        self.written.append(beside(self._source.path, kind, self._batch_id, suffix))
        return files.creating(self.written[-1])
