"""Tells from the bytes how much of a request has arrived, so that no thread waits for it.

The server's own parser interprets the same bytes. This module only decides when they are enough:
the head, and the body if it is small (RFC 9112).
"""

from __future__ import annotations

import re
from enum import Enum, auto

from shared.errors import HttpError

MAX_LINE = 8190
"""Bytes of the request line."""
MAX_FIELDS = 100
MAX_FIELD = 8190
"""Bytes of a header field."""
MAX_HEAD = 32 * 1024
"""Bytes of request line and header fields together."""
MAX_BODY = 16 * 1024
"""Bytes of a small body; a longer one is read by the function."""

_MAX_CHUNKS = 2 * MAX_BODY
"""Bytes of a small body in chunks, as sent."""
_END = re.compile(rb"\r\n\r\n|(?<!\r)\n")
# Possessive, so that matching hostile input takes linear time.
_FIELD = re.compile(rb"\r\n(content-length|transfer-encoding|expect):([^\r\n]*+)(?=\r\n)")
_FRAMING = (b"\ncontent-length:", b"\ntransfer-encoding:", b"\nexpect:")
"""What most heads lack, and what is found sooner than by a pattern."""
_HEXADECIMAL = re.compile(rb"[0-9a-fA-F]+")
_CRLF = b"\r\n"
_HEAD_END = b"\r\n\r\n"


class Arrival(Enum):
    """How much of a request has arrived."""

    PARTIAL = auto()
    """Not enough."""
    WHOLE = auto()
    """All of it, or enough to see that it is malformed."""
    LARGE = auto()
    """The head of a request with a large body, by its Content-Length or because more than MAX_BODY
    bytes have arrived."""


def line_too_long() -> HttpError:
    """Refuse a request line of more than MAX_LINE bytes."""
    return HttpError(414, "uri_too_long", f"The address may have at most {MAX_LINE} bytes")


def head_too_large() -> HttpError:
    """Refuse more than MAX_FIELDS, MAX_FIELD or MAX_HEAD. In browsers the cause is cookies."""
    sentence = "The header fields are too large. Deleting this site's cookies may help."
    return HttpError(431, "headers_too_large", sentence)


class Arriving:
    """One request while it arrives. The bytes may include the next one of the connection."""

    def __init__(self) -> None:
        """Start without any byte."""
        self.data = bytearray()
        self.expects_continue = False
        """Whether the client waits for `100 Continue` before it sends the body."""
        self._searched = 0
        self._body = -1
        """Offset of the body; -1 until the head has arrived."""
        self._length: int | None = None
        """Content-Length; None for a chunked body."""
        self._is_malformed = False
        self._chunk = 0
        """Offset of the first incomplete chunk."""
        self._decoded = 0
        """Bytes of the body in earlier chunks."""
        self._trailers = 0
        """Offset up to which the trailers have been searched."""

    def add(self, data: bytes) -> Arrival:
        """Add received bytes. Raises HttpError if a limit is exceeded."""
        self.data += data
        if self._body < 0 and not self._find_body():
            return Arrival.PARTIAL
        if self._is_malformed:
            return Arrival.WHOLE
        if self._length is None:
            return self._chunks()
        if self._length > MAX_BODY:
            return Arrival.LARGE
        is_whole = len(self.data) - self._body >= self._length
        return Arrival.WHOLE if is_whole else Arrival.PARTIAL

    @property
    def is_without_body(self) -> bool:
        """Whether the head says that no body follows."""
        return self._length == 0 and not self._is_malformed

    @property
    def has_head(self) -> bool:
        """Whether the head has arrived."""
        return self._body >= 0

    def _find_body(self) -> bool:
        end = self._end_of_head()
        self._searched = max(0, len(self.data) - len(b"\r\n\r"))
        # One empty line may come first (RFC 9112, section 2.2).
        longest = len(_CRLF) + MAX_LINE + len(_CRLF)
        if len(self.data) > longest and self.data.find(b"\n", len(_CRLF), longest) < 0:
            raise line_too_long()
        if (end or len(self.data)) > MAX_HEAD:
            raise head_too_large()
        if not end:
            return False
        self._body = self._chunk = end
        if self.data.endswith(_HEAD_END, 0, end):
            self._read_head(bytes(self.data[:end]))
        else:
            self._is_malformed = True
        return True

    def _end_of_head(self) -> int:
        """Give the offset behind an empty line or an earlier bare line feed; 0 for none."""
        found = self.data.find(_HEAD_END, self._searched)
        end = found + len(_HEAD_END) if found >= 0 else 0
        stop = end or len(self.data)
        if self.data.count(b"\n", 0, stop) == self.data.count(_CRLF, 0, stop):
            return end
        bare = _END.search(self.data, self._searched)
        return bare.end() if bare else 0

    def _read_head(self, head: bytes) -> None:
        lower = head.lower()
        if not any(field in lower for field in _FRAMING):
            self._length = 0
            return
        fields: dict[bytes, list[bytes]] = {}
        for name, value in _FIELD.findall(lower):
            fields.setdefault(name, []).append(value.strip(b" \t"))
        lengths, codings = fields.get(b"content-length", []), fields.get(b"transfer-encoding", [])
        expected = fields.get(b"expect", [])
        is_chunked = any(c.strip(b" \t") == b"chunked" for c in b",".join(codings).split(b","))
        # The parser refuses each of these.
        self._is_malformed = (
            any(expectation != b"100-continue" for expectation in expected)
            or (bool(codings) and (bool(lengths) or not is_chunked))
            or len(lengths) > 1
            or not all(length.isdigit() for length in lengths)
        )
        if self._is_malformed:
            return
        is_new = head.lstrip(_CRLF).partition(_CRLF)[0].endswith(b" HTTP/1.1")
        self.expects_continue = bool(expected) and is_new
        if not codings:
            # int() refuses thousands of digits.
            digits = lengths[0].lstrip(b"0") if lengths else b""
            self._length = int(digits[:20] or b"0")

    def _chunks(self) -> Arrival:
        """Scan the chunks received so far (RFC 9112, section 7.1)."""
        while (end := self.data.find(_CRLF, self._chunk)) >= 0:
            digits = bytes(self.data[self._chunk : end]).partition(b";")[0].rstrip(b" \t")
            if not _HEXADECIMAL.fullmatch(digits):
                return Arrival.WHOLE
            size = int(digits, 16)
            begin = end + len(_CRLF)
            if size == 0:
                return self._last_chunk(begin)
            if self._decoded + min(size, len(self.data) - begin) > MAX_BODY:
                return Arrival.LARGE
            if len(self.data) < begin + size + len(_CRLF):
                return self._more_chunks()
            if not self.data.startswith(_CRLF, begin + size):
                return Arrival.WHOLE
            self._decoded += size
            self._chunk = begin + size + len(_CRLF)
        return self._more_chunks()

    def _last_chunk(self, trailers: int) -> Arrival:
        start = max(trailers, self._trailers)
        if self.data.startswith(_CRLF, trailers) or _END.search(self.data, start):
            return Arrival.WHOLE
        self._trailers = len(self.data) - len(b"\r\n\r")
        return self._more_chunks()

    def _more_chunks(self) -> Arrival:
        if len(self.data) - self._body > _MAX_CHUNKS:
            raise HttpError(413, "body_too_large", f"The body may have at most {MAX_BODY} bytes")
        return Arrival.PARTIAL
