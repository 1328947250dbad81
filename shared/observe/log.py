"""One JSON object a line on standard output, as Cloud Logging reads it.

Callers never pass a secret, password, hash, token or raw email address. The encoder escapes every
control character, so that no value can forge a line (ASVS V16.4.1).
"""

from __future__ import annotations

import contextlib
import json
import sys
from datetime import UTC, datetime
from typing import Literal

from shared import console
from shared.observe import request_context

Severity = Literal["INFO", "WARNING", "ERROR", "CRITICAL"]

_ENCODER = json.JSONEncoder(default=str)


def write(severity: Severity, message: str, **fields: object) -> None:
    """Write one line. A line that cannot be written is dropped without an error.

    Fields that are None are left out.
    """
    line: dict[str, object] = {
        "severity": severity,
        "time": datetime.now(UTC).isoformat(),
        "message": message,
    }
    line |= request_context.names()
    line |= {name: value for name, value in fields.items() if value is not None}
    # The output may be a full disk, a broken pipe or closed (sys.stdout is None).
    with contextlib.suppress(Exception):
        sys.stdout.write(_ENCODER.encode(line) + "\n")
        sys.stdout.flush()


def end() -> None:
    """Drop what could not be written, so that the process does not fail with it at its own end."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        console.discard_output()
