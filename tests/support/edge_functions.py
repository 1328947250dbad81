"""Entry points for the emulator that show what the edge does for any of them."""

from __future__ import annotations

import sys
import threading
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from typing import Any

from flask import Response

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import main
from shared.errors import NotAuthenticated, StoreUnreachable
from shared.web.call import Call
from shared.web.endpoint import endpoint
from shared.web.responses import answer
from shared.web.streaming import stream_answer

_GATE_SECONDS = 20
_SECRET = "for no line of a log"

gates: defaultdict[str, threading.Event] = defaultdict(threading.Event)


@endpoint("GET", "DELETE", body="optional")
def several(call: Call) -> Response:
    """Tell how it was called."""
    return answer({"method": call.request.method, "body": call.body})


@endpoint("GET")
def client(call: Call) -> Response:
    """Tell who calls."""
    return answer({"address": call.client.address})


@endpoint("GET", "POST")
def later(call: Call) -> Response:
    """Answer in the way that is asked for, and wait for the client afterwards."""
    name = call.request.args["name"]

    def wait() -> None:
        in_time = gates[name].wait(_GATE_SECONDS)
        print(f"{name}: {'the client went on' if in_time else 'the client waits'}", flush=True)

    call.afterwards(wait)
    match name:
        case "problem":
            raise NotAuthenticated
        case "empty":
            return Response(status=204)
        case "stream":
            return stream_answer(call, _lines())
    return answer({"padding": "x" * 1_000_000})


def _lines() -> Generator[dict[str, Any], None, None]:
    for number in range(3):
        yield {"number": number}


@endpoint("GET")
def failing(call: Call) -> Response:
    """Answer, and fail twice afterwards."""
    call.afterwards(_fail_unforeseen)
    call.afterwards(_fail_away)
    call.afterwards(lambda: print("the third ran", flush=True))
    return answer({})


def _fail_unforeseen() -> None:
    raise RuntimeError(_SECRET)


def _fail_away() -> None:
    raise StoreUnreachable(cause="nobody answers")


@endpoint("POST")
def opened(call: Call) -> Response:
    """Let a function go on that waits."""
    gates[call.request.args["name"]].set()
    return answer({})


_PATHS = {
    "/api/several": several,
    "/api/client": client,
    "/api/later": later,
    "/api/failing": failing,
    "/api/opened": opened,
}


def routed(request: Any) -> Response:
    """Serve the endpoints beside the product's own paths."""
    if endpoint := _PATHS.get(request.path):
        return endpoint(main.applications.own, request)
    return main.api(request)
