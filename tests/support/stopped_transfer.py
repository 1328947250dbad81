"""Runs a command of `shared.transfer` in a child process that gets a signal at its n-th line.

`python -m tests.support.stopped_transfer SIGNAL ARGUMENT…` reads a number a line, runs the command
once for each, and answers with its exit status and how many lines it came to. Lines are counted
where an apply writes files, holds its transaction together, and commits, and wherever a
reconciliation does something; 0 is never reached.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

from shared import files
from shared.store.json_file import store
from shared.transfer import (
    actions,
    importing,
    outputs,
    pending_sign_ups,
    reconciling,
    staging,
    steps,
    writing,
)

_WATCHED = {
    module.__file__ for module in (files, outputs, steps, pending_sign_ups, reconciling, store)
}
_WATCHED_FUNCTIONS = {
    importing.__file__: {"apply", "_prove"},
    staging.__file__: {"write", "_insert_unindexed", "record_batch", "report_lines"},
}
INDEX_LATER_ROWS = 100
"""So that a few users are enough for the way that drops and builds indexes."""


def main(number: signal.Signals, arguments: list[str]) -> None:
    """Run the command once for each line of standard input."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # It may have been inherited ignored.
    writing.INDEX_LATER_ROWS = INDEX_LATER_ROWS
    with tempfile.TemporaryDirectory() as folder:
        count = Path(folder) / "count"
        for line in sys.stdin:
            child = os.fork()
            if child == 0:
                _run(number, int(line), arguments, count)
            _, status = os.waitpid(child, 0)
            print(os.waitstatus_to_exitcode(status), count.read_text(), flush=True)


def _run(number: signal.Signals, stop_at: int, arguments: list[str], count: Path) -> None:
    lines = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        code = frame.f_code
        names = _WATCHED_FUNCTIONS.get(code.co_filename, ())
        if code.co_filename not in _WATCHED and code.co_name not in names:
            return None
        if event == "line":
            lines += 1
            if lines == stop_at:
                count.write_text(str(lines))
                os.kill(os.getpid(), number)
        return trace

    code: Any = 1
    with Path(os.devnull).open("w") as nowhere:
        for descriptor in (1, 2):
            os.dup2(nowhere.fileno(), descriptor)
    sys.settrace(trace)
    try:
        actions.transfer(arguments, prog_name="stopped_transfer")
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.settrace(None)
        with contextlib.suppress(OSError):
            count.write_text(str(lines))
        os._exit(code)


if __name__ == "__main__":
    main(signal.Signals[sys.argv[1]], sys.argv[2:])
