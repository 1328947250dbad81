"""Entry points for the emulator: an endpoint of the kind that `POST /api/migrate` is."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

from flask import Response

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from shared.errors import InvalidInput, StoreUnreachable
from shared.web.call import Call
from shared.web.endpoint import endpoint
from shared.web.streaming import stream_answer
from tests.support.google_functions import api, applications

CHUNK = 64 * 1024


@endpoint("POST", body="stream", admin=True)
def digest(call: Call) -> Response:
    """Digest the body and tell how it goes."""
    return stream_answer(call, _digest(call))


def _digest(call: Call) -> Generator[dict[str, Any], None, None]:
    what = call.request.args.get("what")
    if what == "fail first":
        raise StoreUnreachable(cause="a canary")
    if what == "say nothing":
        return
    try:
        total, lines, state = 0, 0, hashlib.sha256()
        while data := call.stream.read(CHUNK):
            total += len(data)
            state.update(data)
            if total // 10_000_000 >= lines:
                lines += 1
                yield {"event": "progress", "bytes": total}
            if what == "fail later":
                raise InvalidInput("row", "The row cannot be read")
            if what == "break":
                raise RuntimeError("a canary")
        yield {"event": "done", "bytes": total, "sha256": state.hexdigest()}
        while what == "go on":
            yield {"event": "progress", "padding": "x" * CHUNK}
    finally:
        print("the generator was closed", flush=True)


def routed(request: Any) -> Response:
    """Serve the endpoint beside the product's own paths."""
    return digest(applications.own, request) if request.path == "/api/digest" else api(request)
