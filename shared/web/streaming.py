"""Answers of JSON lines, each sent as soon as it is made."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Generator, Iterable, Iterator
from typing import Any

from flask import Response

from shared.web import exchange
from shared.web.call import Call


def stream_answer(call: Call, lines: Generator[dict[str, Any], None, None]) -> Response:
    """Answer with JSON lines (application/x-ndjson).

    The first line is made before the answer begins: an error until then is an ordinary problem
    with its status. A later error becomes the last line, `"event": "error"` and the problem's
    members, because the status has been sent. If the client hangs up, the generator is closed. The
    request is logged at the end of the stream.

    The generator may read `call.stream` meanwhile. Many clients read nothing before they have sent
    everything: then at most 64 KiB of lines fit until the end of the body.
    """
    first = list(itertools.islice(lines, 1))
    call.is_streaming = True
    encoded = _encoded(call, itertools.chain(first, lines))
    response = Response(encoded, content_type="application/x-ndjson")
    response.call_on_close(functools.partial(_end, call, lines))
    return response


def _encoded(call: Call, lines: Iterable[dict[str, Any]]) -> Iterator[str]:
    try:
        for line in lines:
            yield json.dumps(line) + "\n"
    except Exception as error:  # noqa: BLE001  # as in exchange.serve, but the status has been sent
        problem = exchange.describe(call, error)
        yield json.dumps({"event": "error"} | problem.members) + "\n"
    call.is_streaming = False


def _end(call: Call, lines: Generator[dict[str, Any], None, None]) -> None:
    if call.is_streaming:
        call.log.setdefault("cause", "the client hung up")
    try:
        lines.close()
    except Exception as error:  # noqa: BLE001  # the client is gone: only log it
        exchange.describe(call, error)
    exchange.end(call, 200)
