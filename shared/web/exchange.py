"""A request from its arrival to its log line: the one place where errors become answers.

The client always gets a function's answer or an RFC 9457 problem.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from flask import Request, Response
from werkzeug.exceptions import HTTPException

from shared.observe import log, request_context
from shared.web import problems, request_log, response_headers, trace_headers
from shared.web.call import Call

if TYPE_CHECKING:
    from shared.application import Application


def serve(
    app: Application, request: Request, function: str, produce: Callable[[Call], Response]
) -> Response:
    """Answer a request and log one line under the function's name. Never raises."""
    call = Call(app, request, function, time.time())
    headers, project = request.headers, app.settings.web.google_cloud_project
    if app.settings.application:
        call.names["application"] = app.settings.application
    call.names |= {"request_id": call.request_id, "function": function} | trace_headers.fields(
        headers.get("traceparent"), headers.get("X-Cloud-Trace-Context"), project
    )
    with request_context.request(app.settings.database.timeout, call.names):
        try:
            response = produce(call)
        except Exception as error:  # noqa: BLE001  # the one place where errors become answers
            response = _problem(call, error)
    response_headers.add(call, response)
    _afterwards(call, functools.partial(_schedule, call, response))
    if not call.is_streaming:
        end(call, response.status_code)
    return response


def fail(app: Application, request: Request, error: Exception) -> Response:
    """Answer a request that has no function with an error."""

    def produce(_: Call) -> Response:
        raise error

    return serve(app, request, "none", produce)


def describe(call: Call, error: Exception) -> problems.Problem:
    """Make an error's problem, and add the error to the log line."""
    if isinstance(error, HTTPException) and error.code:
        error = problems.of_status(error.code)
    cookie_name = call.settings.web.cookie_name
    problem = problems.describe(error, request_id=call.request_id, cookie_name=cookie_name)
    call.log.update(problem.log)
    call.failure = problem.status
    return problem


def end(call: Call, status: int) -> None:
    """Count and log a finished request. Failures here do not change the answer."""
    _afterwards(call, functools.partial(request_log.record, call, status))


def _problem(call: Call, error: Exception) -> Response:
    problem = describe(call, error)
    text = json.dumps(problem.members).encode()
    headers = problem.headers | {"Content-Length": str(len(text))}
    if call.takes_basic and problem.status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="AI-Coder", charset="UTF-8"'
    # Streamed, because functions-framework otherwise reads the rest of the body into memory first.
    return Response(iter([text]), problem.status, headers, content_type="application/problem+json")


def _schedule(call: Call, response: Response) -> None:
    """Schedule the functions to call after the answer has been sent."""
    if call.app.alerts.is_due(time.monotonic()):
        call.afterwards(call.app.check_alerts)
    for function in call.later:
        response.call_on_close(functools.partial(_afterwards, call, function))


def _afterwards(call: Call, function: Callable[[], None]) -> None:
    """Call a function whose failure must not change the answer."""
    try:
        with request_context.application(call.settings.application):
            function()
    except Exception as error:  # noqa: BLE001  # nobody is left to be told but the log
        problem = problems.describe(error, request_id=call.request_id, cookie_name="")
        log.write("ERROR", f"{call.function} afterwards", **call.names, **problem.log)
