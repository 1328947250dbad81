"""Reads a request's body: limited, complete, and of the declared type.

Everything else is an HttpError. The edge knows two kinds: a small JSON object, and a stream.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any, Literal

from flask import Request

from shared.errors import HttpError
from shared.formats.strict_json import InvalidJson, check_text, loads
from shared.web import framing

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_JSON = framing.MAX_BODY
"""Bytes. The server receives them before a function sees the request."""
MAX_STREAM = 512 * 1024 * 1024
"""Bytes."""
FORM = "multipart/form-data"


class BodyStream(io.RawIOBase):
    """A body that is read while it arrives and never held in memory; for `io.BufferedReader`.

    Its end is the body's own: reading raises HttpError, and goes on doing so, once the body has
    broken off (400) or grown over MAX_STREAM (413).
    """

    def __init__(self, source: IO[bytes], length: int | None) -> None:
        """`length` is the Content-Length, or None for a chunked body."""
        super().__init__()
        self._source = source
        self._length = length
        self._read = 0
        self._failure: HttpError | None = None

    def readable(self) -> bool:
        """Support reading."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read into the buffer; 0 is the end. Raises HttpError."""
        view = memoryview(buffer).cast("B")
        if self._failure is None:
            try:
                data = self._source.read(len(view))
            except Exception as error:  # noqa: BLE001  # each server has its own for a broken body
                self._failure = _unreadable(error)
                self._failure.__cause__ = error
            else:
                self._read += len(data)
                if self._read > MAX_STREAM:
                    self._failure = _too_large(MAX_STREAM)
                elif len(data) < len(view) and self._read < (self._length or 0):
                    self._failure = _incomplete("The body is shorter than its Content-Length")
        if self._failure is not None:
            raise self._failure
        view[: len(data)] = data
        return len(data)


def open_stream(request: Request) -> BodyStream:
    """Give the body as a stream; a body must be declared as JSON, JSON lines or a form."""
    length = request.content_length
    if length is None and "Transfer-Encoding" not in request.headers:
        length = 0
    if length != 0:
        _check_type(request, "application/json", "application/x-ndjson", FORM)
    if length is not None and length > MAX_STREAM:
        raise _too_large(MAX_STREAM)
    return BodyStream(request.stream, length)


def read_json(request: Request, expected: Literal["none", "optional", "required"]) -> Any:
    """Give the JSON object in the body, or an empty one if none is expected or sent.

    A body where none belongs is bounded as well.
    """
    if expected == "none" and not _may_have_body(request.environ):
        return {}
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


def _may_have_body(environ: Mapping[str, object]) -> bool:
    return environ.get("CONTENT_LENGTH", "0") != "0" or "HTTP_TRANSFER_ENCODING" in environ


def _read(request: Request) -> bytes:
    length = request.content_length or 0
    try:
        data = request.stream.read(MAX_JSON + 1) if length <= MAX_JSON else b""
    except Exception as error:  # Each server has its own errors for a body that breaks off.
        raise _unreadable(error) from error
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
            415, "unsupported_media_type", f"The body must have the Content-Type {names}"
        )
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise HttpError(415, "unsupported_encoding", "The body must not be compressed")


def _unreadable(error: Exception) -> HttpError:
    # This is the kernel's timeout. Werkzeug raises its own error while it handles the server's.
    if BlockingIOError in (type(error), type(error.__context__)):
        return HttpError(408, "request_timeout", "The body stopped arriving")
    return _incomplete("The body could not be read")


def _incomplete(sentence: str) -> HttpError:
    return HttpError(400, "incomplete_body", sentence)


def _too_large(limit: int) -> HttpError:
    return HttpError(413, "body_too_large", f"The body may have at most {limit} bytes")
