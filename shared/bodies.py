"""What a function may see of a request's body: bounded, whole, and declared as what it is.

Everything else is an HttpError.
"""

from __future__ import annotations

from typing import Any, Literal

from flask import Request

from shared.errors import HttpError
from shared.strict_json import InvalidJson, check_text, loads

MAX_JSON = 16 * 1024
"""Bytes."""


def read_json(request: Request, expected: Literal["none", "optional", "required"]) -> Any:
    """Give the JSON object in the body, or an empty one where none is expected or, perhaps, sent.

    A body where none belongs is bounded as well.
    """
    data = _read(request)
    if expected == "none" or (expected == "optional" and not data):
        return {}
    _check_type(request, "application/json")
    try:
        value = loads(data)
        check_text(value)
    except InvalidJson as error:
        raise HttpError(400, "invalid_json", str(error)) from error
    if not isinstance(value, dict):
        raise HttpError(400, "invalid_json", "The JSON must be an object")
    return value


def _read(request: Request) -> bytes:
    length = request.content_length or 0
    try:
        data = request.stream.read(MAX_JSON + 1) if length <= MAX_JSON else b""
    except Exception as error:  # Each server has its own errors for a body that breaks off.
        raise _incomplete("The body could not be read") from error
    if len(data) < length <= MAX_JSON:
        raise _incomplete("The body is shorter than its Content-Length")
    if length > MAX_JSON or len(data) > MAX_JSON:
        raise _too_large(MAX_JSON)
    return data


def _check_type(request: Request, *types: str) -> None:
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    if request.mimetype not in types or charset not in ("utf-8", "utf8"):
        names = " or ".join(types)
        raise HttpError(
            415, "unsupported_media_type", f"The body must be JSON (Content-Type: {names})"
        )
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise HttpError(415, "unsupported_encoding", "The body must not be compressed")


def _incomplete(sentence: str) -> HttpError:
    return HttpError(400, "incomplete_body", sentence)


def _too_large(limit: int) -> HttpError:
    return HttpError(413, "body_too_large", f"The body may have at most {limit} bytes")
