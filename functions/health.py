"""GET /api/health, and /api/livez for probes that must not wake the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Response

from shared.errors import StoreFault, StoreUnavailable
from shared.formats.timestamps import now_iso, to_iso
from shared.web.call import Call
from shared.web.endpoint import endpoint
from shared.web.responses import answer

if TYPE_CHECKING:
    from shared.store.contract import DatabaseStatus

_DISCONNECTED = {"status": "disconnected", "message": "Database not connected"}


@endpoint("GET")
def health(call: Call) -> Response:
    """Report liveness and, except for livez, database health: always 200."""
    status: dict[str, Any] = {"status": "OK", "timestamp": now_iso()}
    if call.request.path.endswith("/livez"):
        return answer(status)
    if call.app.applications:
        return answer(status | _of_all(call))
    database = call.app.store.database_status
    members = status | {
        "database": _database(call, database),
        "environment": call.settings.environment,
    }
    if database is not None:
        fallback = database.fallback()
        members["fallback"] = {
            "mode": fallback.mode,
            "since": _iso(fallback.since),
            "pending": fallback.pending,
            "snapshot": _iso(fallback.snapshot),
        }
    if call.settings.revocations.url is not None:
        is_there = call.app.revocations.reach()
        members["revocations"] = {"status": "connected" if is_there else "disconnected"}
    return answer(members)


def _of_all(call: Call) -> dict[str, Any]:
    """Report on all applications together: none was called by its name."""
    database: dict[str, Any] = {"status": "connected"}
    causes = []
    for app in call.app.applications:
        name = call.names["application"] = app.settings.application
        if _database(call, app.store.database_status) is _DISCONNECTED:
            database = _DISCONNECTED
            causes.append(f"{name}: {call.log.pop('cause', 'it has no database')}")
    del call.names["application"]
    call.log["cause"] = "; ".join(causes) or None
    return {"database": database, "environment": call.settings.environment}


def _database(call: Call, database: DatabaseStatus | None) -> dict[str, Any]:
    if database is None:
        return _DISCONNECTED
    try:
        found = database.health()
    except (StoreUnavailable, StoreFault) as error:
        call.log["cause"] = str(error)
        return _DISCONNECTED
    pool = found.pool
    return {
        "status": "connected",
        "timestamp": to_iso(found.timestamp),
        "version": found.version,
        "pool": {"total": pool.total, "idle": pool.idle, "waiting": pool.waiting},
    }


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else to_iso(seconds)
