"""The edge: what knows Flask (with `bodies`), and the one place where errors become answers.

`@endpoint` checks method, origin, size and body before a function sees the call, and logs one
line after it. Whatever happens, the client gets JSON: its answer, or an RFC 9457 problem.
"""

from __future__ import annotations

import functools
import io
import itertools
import json
import random
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from flask import Flask, Request, Response, request
from werkzeug.exceptions import HTTPException

from shared import application, errors
from shared.credentials import express_sessions
from shared.errors import HttpError
from shared.model import clients
from shared.model.clients import Client
from shared.observe import log, metrics, request_context
from shared.settings import Settings
from shared.web import cors, problems, request_body, trace_headers
from shared.web.request_body import BodyStream

Body = Literal["none", "optional", "required", "stream"]

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_SAFE = ("GET", "HEAD")
_NO_BODY = BodyStream(io.BytesIO(), 0)
_HSTS = "max-age=31536000; includeSubDomains"


@dataclass(slots=True)
class Call:
    """One request, checked: what a function may see of it."""

    request: Request
    settings: Settings
    function: str
    """The endpoint's name in the log."""
    body: dict[str, Any] = field(default_factory=dict)
    stream: BodyStream = _NO_BODY
    """The body, of an endpoint that takes it as a stream."""
    takes_basic: bool = False
    """Whether a browser may prove who the administrator is, by HTTP's Basic scheme."""
    admin: str = ""
    """Who the administrator is, of an endpoint for one."""
    names: dict[str, object] = field(default_factory=dict)
    """What each line of the log says that the request causes."""
    log: dict[str, object] = field(default_factory=dict)
    """What else the request's own line says."""
    started: float = field(default_factory=time.perf_counter)
    is_streaming: bool = False
    """Whether lines of the answer are still to come."""
    failure: int = 0
    """The status that an error has, be it too late to send it."""
    later: list[Callable[[], None]] = field(default_factory=list)
    """What is done when the answer has been sent."""
    request_id: str = field(default_factory=lambda: f"{random.getrandbits(64):016x}")
    """Names the request in its answer and its log line; no secret, and so without a system call."""

    @property
    def client(self) -> Client:
        """Who asks; from then on the log tells it, too."""
        client = clients.find(
            self.request.headers.get("X-Forwarded-For"),
            self.request.remote_addr,
            self.settings.trusted_proxies,
        )
        self.log["client"] = client.coarse
        return client

    def afterwards(self, function: Callable[[], None]) -> None:
        """Do something when the answer has been sent. What it raises is only logged.

        Only the next request of the same connection waits for it. Where the platform takes the
        processor away with the answer, it goes on with a later request: what must happen has no
        place here.
        """
        self.later.append(function)

    @property
    def session_token(self) -> str | None:
        """The token in the session cookie."""
        return self._cookie(self.settings.cookie_name)

    @property
    def express_sid(self) -> str | None:
        """The id of the old server's session, if its cookie proves one."""
        value = self._cookie(express_sessions.COOKIE_NAME)
        if value is None or not self.settings.express_sessions:
            return None
        return express_sessions.session_id(value, self.settings.session_secrets)

    @property
    def bearer_token(self) -> str | None:
        """The token in the header `Authorization: Bearer …` (RFC 6750, section 2.1).

        Or the password of `Basic …` (RFC 7617), whatever the user's name, where it is taken. A
        browser sends that by itself, so that it must not be on an endpoint that changes anything.
        """
        scheme, _, token = self.request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token:
            return token.strip()
        given = self.request.authorization if self.takes_basic else None
        return given.password if given is not None and given.type == "basic" else None

    def _cookie(self, name: str) -> str | None:
        """Give the value of a cookie, but not if there are several.

        All but one of them come from elsewhere, such as a sibling domain's page, and nothing tells
        which: their order is no help (RFC 6265, section 4.2.2).
        """
        values = set(self.request.cookies.getlist(name))
        if len(values) > 1:
            self.log["cause"] = "several cookies of one name"
        return values.pop() if len(values) == 1 else None

    def text(self, name: str) -> str:
        """Give a member of the body that must be a non-empty string. Raises InvalidInput."""
        value = self.optional_text(name)
        if not value:
            raise errors.InvalidInput(name, f"Please enter your {name}")
        return value

    def optional_text(self, name: str) -> str | None:
        """Give a member of the body that may be absent or null. Raises InvalidInput."""
        value = self.body.get(name)
        if value is not None and not isinstance(value, str):
            raise errors.InvalidInput(name, f"The {name} must be a string")
        return value


def endpoint(
    *methods: str, body: Body = "none", admin: bool = False, basic: bool = False
) -> Callable[[Callable[[Call], Response]], Callable[[Request], Response]]:
    """Make an entry point for functions-framework of a function that answers a Call.

    What answers GET answers HEAD too (RFC 9110, section 9.3.2), and every endpoint answers the CORS
    preflight of an allowed origin. `body` tells whether the other methods expect a JSON object, or
    that the function reads `call.stream` itself. An endpoint for an administrator does not exist
    where the settings know of none, and checks the credentials before it reads any of the body.
    With `basic`, for a page that only reads, a browser may ask for the token as a password.
    """
    if "GET" in methods:
        methods = (*methods, "HEAD")

    def decorate(function: Callable[[Call], Response]) -> Callable[[Request], Response]:
        def checked(call: Call) -> Response:
            if admin and not call.settings.has_admin:
                raise no_such_path()
            origin = call.request.headers.get("Origin")
            if call.request.method == "OPTIONS" and cors.is_allowed(origin, call.settings):
                request_body.read_json(call.request, "none")
                return _preflight(methods)
            _check(call, methods)
            if admin:
                call.takes_basic = basic
                _authenticate_admin(call)
            if call.request.method in _SAFE:
                request_body.read_json(call.request, "none")
            elif body == "stream":
                call.stream = request_body.open_stream(call.request)
            else:
                call.body = request_body.read_json(call.request, body)
            return function(call)

        @functools.wraps(function)
        def entry_point(request: Request) -> Response:
            return _respond(request, function.__name__, checked)

        return entry_point

    return decorate


def not_found(request: Request) -> Response:
    """Answer for a path that no function has, whatever the method."""
    return _fail(request, no_such_path())


def path(request: Request) -> str:
    """Give the path as the client has sent it: no other spelling of it is the same path.

    The server's own has each escape decoded and the slashes at its beginning made one. A target
    may be a path or a whole URL (RFC 9112, section 3.2).
    """
    target: str = request.environ.get("RAW_URI", request.path).partition("?")[0]
    scheme, is_whole, rest = target.partition("://")
    if is_whole and scheme.lower() in ("http", "https"):
        return "/" + rest.partition("/")[2]
    return target


def no_such_path() -> HttpError:
    """Answer as if the function did not exist."""
    return HttpError(404, "not_found", "There is nothing at this address")


def answer(payload: dict[str, Any], status: int = 200) -> Response:
    """Answer with a JSON object."""
    return Response(json.dumps(payload), status, content_type="application/json")


def stream_answer(call: Call, lines: Generator[dict[str, Any], None, None]) -> Response:
    """Answer with JSON lines (application/x-ndjson), each sent as soon as it is there.

    The first line is made before the answer begins: what is raised until then is an ordinary
    problem with its status. What is raised later becomes a last line, `"event": "error"` and the
    problem's members, because the status is on its way. If the client hangs up, the generator is
    closed. The log has its line when all is over.

    The generator may read `call.stream` meanwhile. But a client that reads nothing before it has
    sent everything, as many do, leaves room for some 64 KiB of lines until the body's end.
    """
    first = list(itertools.islice(lines, 1))
    call.is_streaming = True
    encoded = _encoded(call, itertools.chain(first, lines))
    response = Response(encoded, content_type="application/x-ndjson")
    response.call_on_close(functools.partial(_end_stream, call, lines))
    return response


def _encoded(call: Call, lines: Iterable[dict[str, Any]]) -> Iterator[str]:
    try:
        for line in lines:
            yield json.dumps(line) + "\n"
    except Exception as error:  # noqa: BLE001  # as in _respond; the answer has begun
        problem = _describe(call, error)
        yield json.dumps({"event": "error"} | problem.members) + "\n"
    call.is_streaming = False


def _end_stream(call: Call, lines: Generator[dict[str, Any], None, None]) -> None:
    if call.is_streaming:
        call.log.setdefault("cause", "the client hung up")
    try:
        lines.close()
    except Exception as error:  # noqa: BLE001  # nobody is left to be told but the log
        _describe(call, error)
    _afterwards(call, functools.partial(_log, call, 200))


def adopt(app: Flask) -> None:
    """Make functions-framework's own Flask app answer in JSON as well, and redirect nobody."""
    app.url_map.merge_slashes = app.url_map.strict_slashes = False
    app.register_error_handler(HTTPException, _framework_error)
    app.register_error_handler(500, _framework_error)
    # Its own lines are no JSON, and quote the texts of errors.
    app.logger.disabled = True


def refusal(error: Exception, method: str = "") -> Response:
    """Answer, in the server's stead, a request that has no function, and log it."""
    return _fail(Request({"REQUEST_METHOD": method, "wsgi.input": io.BytesIO()}), error)


def _framework_error(error: HTTPException) -> Response:
    cause = getattr(error, "original_exception", None)
    return _fail(request, cause or error)


def _fail(request: Request, error: Exception) -> Response:
    def fail(_: Call) -> Response:
        raise error

    return _respond(request, "none", fail)


def _respond(request: Request, name: str, produce: Callable[[Call], Response]) -> Response:
    """Answer, whatever happens, and log one line."""
    call = Call(request, application.settings(), name)
    headers, project = request.headers, call.settings.google_cloud_project
    call.names |= {"request_id": call.request_id, "function": name} | trace_headers.fields(
        headers.get("traceparent"), headers.get("X-Cloud-Trace-Context"), project
    )
    with request_context.request(call.settings.database_timeout, call.names) as serving:
        try:
            response = produce(call)
        except Exception as error:  # noqa: BLE001  # the one place where errors become answers
            response = _problem(call, error)
    if serving.is_offline:
        call.log["offline"] = True
    _finish(call, response)
    _afterwards(call, functools.partial(_conclude, call, response))
    return response


def _conclude(call: Call, response: Response) -> None:
    if application.alerts().is_due(time.monotonic()):
        call.afterwards(application.check_alerts)
    for function in call.later:
        response.call_on_close(functools.partial(_afterwards, call, function))
    if not call.is_streaming:
        _log(call, response.status_code)


def _afterwards(call: Call, function: Callable[[], None]) -> None:
    """Do what cannot undo the answer, which is decided."""
    try:
        function()
    except Exception as error:  # noqa: BLE001  # nobody is left to be told but the log
        problem = problems.describe(error, request_id=call.request_id, cookie_name="")
        log.write(
            "ERROR",
            f"{call.function} afterwards",
            **call.names,
            **problem.log,
        )


def _check(call: Call, methods: tuple[str, ...]) -> None:
    request = call.request
    if request.method not in methods:
        allow = ", ".join(methods)
        raise HttpError(
            405, "method_not_allowed", f"Use {allow} for this address", {"Allow": allow}
        )
    if request.method in _SAFE:
        return
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    if not cors.is_trusted_source(origin, site, request.host, call.settings):
        raise HttpError(403, "origin_not_allowed", "This page may not send requests here")


def _authenticate_admin(call: Call) -> None:
    from shared.rules import administrators  # What it needs is loaded for nobody else.

    call.admin = call.log["admin"] = administrators.authenticate(
        call.settings, call.bearer_token, application.google_id_tokens(), time.time()
    )


def _preflight(methods: tuple[str, ...]) -> Response:
    response = Response(status=204)
    del response.headers["Content-Type"]
    response.headers.update(cors.preflight_headers(methods))
    return response


def _problem(call: Call, error: Exception) -> Response:
    problem = _describe(call, error)
    text = json.dumps(problem.members).encode()
    headers = problem.headers | {"Content-Length": str(len(text))}
    if call.takes_basic and problem.status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="AI-Coder", charset="UTF-8"'
    # functions-framework reads what is left of a body into memory before it answers, unless the
    # answer is streamed.
    return Response(iter([text]), problem.status, headers, content_type="application/problem+json")


def _describe(call: Call, error: Exception) -> problems.Problem:
    """Make an error's problem, and note for the log what it was."""
    if isinstance(error, HTTPException) and error.code:
        error = problems.of_status(error.code)
    cookie_name = call.settings.cookie_name
    problem = problems.describe(error, request_id=call.request_id, cookie_name=cookie_name)
    call.log.update(problem.log)
    call.failure = problem.status
    return problem


def _finish(call: Call, response: Response) -> None:
    headers = response.headers
    for name, value in _HEADERS.items():
        headers.setdefault(name, value)
    headers["X-Request-Id"] = call.request_id
    if call.settings.secure:
        headers["Strict-Transport-Security"] = _HSTS
    headers.update(cors.answer_headers(call.request.headers.get("Origin"), call.settings))


def _log(call: Call, status: int) -> None:
    severity: log.Severity = "INFO"
    if errors.is_server_error(call.failure):
        severity = "ERROR"
    elif call.failure in (401, 403, 429) or call.is_streaming:
        severity = "WARNING"
    seconds, now = time.perf_counter() - call.started, time.monotonic()
    client = str(call.log.get("client", ""))
    application.alerts().record(call.function, call.failure or status, seconds, client, now)
    outcome = str(call.log.get("code", "ok"))
    metrics.REQUESTS.record(seconds, call.function, str(call.failure or status), outcome)
    log.write(
        severity,
        f"{call.function} {status}",
        **call.names,
        method=call.request.method[:16],
        status=status,
        milliseconds=round(seconds * 1000, 2),
        **call.log,
    )
