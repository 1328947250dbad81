"""The old server's session cookie, so that who is logged in there stays logged in here.

Its value is `s:<sid>.<signature>`, percent-encoded. The signature is the sid's HMAC-SHA256, base64
without padding (`setcookie` in express-session's index.js, `sign` in cookie-signature's).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Sequence
from urllib.parse import unquote

COOKIE_NAME = "connect.sid"
MAX_LENGTH = 4096
"""Characters of a value; express-session's own have about 90."""

_SIGNED = re.compile(r"s:([!-~]+)\.([A-Za-z0-9+/]{43})")


def session_id(value: str, secrets: Sequence[str]) -> str | None:
    """Give the sid that one of the secrets signed; None for any other value of the cookie."""
    signed = _SIGNED.fullmatch(unquote(value)) if len(value) <= MAX_LENGTH else None
    if signed is None:
        return None
    sid, signature = (part.encode() for part in signed.groups())
    for secret in secrets:
        digest = hmac.digest(secret.encode(), sid, "sha256")
        if hmac.compare_digest(b64encode(digest).rstrip(b"="), signature):
            return sid.decode()
    return None


def exchanged_sid(sid: str) -> str:
    """Give the sid of the session of ours that this one is exchanged for: always the same.

    So however often it is exchanged, what comes of it is one session, and ends as one.
    """
    digest = hashlib.sha256(b"ai-coder-auth express\0" + sid.encode()).digest()
    return urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()
