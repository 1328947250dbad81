"""GET /api/health, and /api/livez for probes that must not wake the database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flask import Response

from shared import log, runtime
from shared.errors import StoreFault, StoreUnavailable
from shared.http import Call, answer, endpoint

_DISCONNECTED = {"status": "disconnected", "message": "Database not connected"}


@endpoint("GET")
def health(call: Call) -> Response:
    """Tell that the process lives and, but for livez, how its database does: always 200."""
    status = {"status": "OK", "timestamp": _timestamp(datetime.now(UTC))}
    if call.request.path.endswith("/livez"):
        return answer(status)
    return answer(status | {"database": _database(call), "environment": call.settings.environment})


def _database(call: Call) -> dict[str, Any]:
    try:
        found = runtime.store().health()
    except (StoreUnavailable, StoreFault) as error:
        log.write(
            "ERROR", "The database is not healthy", request_id=call.request_id, cause=str(error)
        )
        return _DISCONNECTED
    if found is None:
        return _DISCONNECTED
    return {
        "status": "connected",
        "timestamp": _timestamp(found.timestamp),
        "version": found.version,
        "pool": {"total": found.total, "idle": found.idle, "waiting": found.waiting},
    }


def _timestamp(moment: datetime) -> str:
    """Write a time as JavaScript's `toISOString` does."""
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
