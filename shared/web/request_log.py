"""What is counted and logged of a request when it is over."""

from __future__ import annotations

import time

from shared import errors
from shared.observe import log, metrics
from shared.web.call import Call


def record(call: Call, status: int) -> None:
    """Count it for alerts and metrics, and write its one line."""
    severity: log.Severity = "INFO"
    if errors.is_server_error(call.failure):
        severity = "ERROR"
    elif call.failure in (401, 403, 429) or call.is_streaming:
        severity = "WARNING"
    seconds, now = time.perf_counter() - call.started, time.monotonic()
    network = call.known_client.coarse if call.known_client is not None else None
    call.app.alerts.record(call.function, call.failure or status, seconds, network or "", now)
    outcome = str(call.log.get("code", "ok"))
    metrics.REQUESTS.record(seconds, call.function, str(call.failure or status), outcome)
    log.write(
        severity,
        f"{call.function} {status}",
        **call.names,
        method=call.request.method[:16],
        status=status,
        milliseconds=round(seconds * 1000, 2),
        client=network,
        **call.log,
    )
