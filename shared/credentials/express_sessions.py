"""The old server's session cookie, so that its users stay logged in.

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
"""Characters; express-session's values have about 90."""

_SIGNED = re.compile(r"s:([!-~]+)\.([A-Za-z0-9+/]{43})")


def session_id(value: str, secrets: Sequence[str]) -> str | None:
    """Give the sid if one of the secrets signed it; None for any other value."""
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
    """Give the sid of our session for which this one is exchanged.

    It is always the same, so that repeated exchanges give one session, which ends as one.
    """
    digest = hashlib.sha256(b"ai-coder-auth express\0" + sid.encode()).digest()
    return urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()
