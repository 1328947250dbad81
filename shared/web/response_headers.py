"""The headers of every answer."""

from __future__ import annotations

from flask import Response

from shared.web import cookies, cors
from shared.web.call import Call

_HEADERS = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; base-uri 'none'; frame-ancestors 'none'"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
)
"""Unless the function has set its own."""
_HSTS = "max-age=31536000; includeSubDomains"


def add(call: Call, response: Response) -> None:
    """Add them to the answer to a call."""
    headers = response.headers
    given = {name.lower() for name, _ in headers}
    for name, value in _HEADERS:
        if name.lower() not in given:
            headers.add(name, value)
    headers.add("X-Request-Id", call.request_id)
    if call.settings.web.secure:
        headers.add("Strict-Transport-Security", _HSTS)
    headers.update(cors.answer_headers(call.request.headers.get("Origin"), call.settings.web))
    if "set-cookie" in given:
        _warn_of_loss(call)


def _warn_of_loss(call: Call) -> None:
    forwarded = call.request.headers.get("X-Forwarded-Proto")
    secure = call.settings.web.secure
    if loss := cookies.loss(*call.source, forwarded=forwarded, secure=secure):
        call.app.notices.warn(loss, page=str(cors.read_origin(call.source[0]) or "unknown"))
