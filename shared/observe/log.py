"""One JSON object a line on standard output, as Cloud Logging reads it.

The caller passes only what may be logged: no secret, no password, hash or token, no raw email.
The encoder escapes every control character, so that no value can forge a line (ASVS V16.4.1).
"""

from __future__ import annotations

import contextlib
import json
import sys
from datetime import UTC, datetime
from typing import Literal

from shared.observe import request_context

Severity = Literal["INFO", "WARNING", "ERROR", "CRITICAL"]

_ENCODER = json.JSONEncoder(default=str)


def write(severity: Severity, message: str, **fields: object) -> None:
    """Write one line, or nothing where that is impossible: what was logged is done all the same.

    A `None` among the fields is left out.
    """
    line: dict[str, object] = {
        "severity": severity,
        "time": datetime.now(UTC).isoformat(),
        "message": message,
    }
    line |= request_context.names()
    line |= {name: value for name, value in fields.items() if value is not None}
    # The output may be a full disk or a broken pipe, or closed: then there is no sys.stdout.
    with contextlib.suppress(Exception):
        sys.stdout.write(_ENCODER.encode(line) + "\n")
        sys.stdout.flush()
