"""The old server's session cookie, so that who is logged in there stays logged in here.

Its value is `s:<sid>.<signature>`, percent-encoded. The signature is the sid's HMAC-SHA256, base64
without padding (`setcookie` in express-session's index.js, `sign` in cookie-signature's).
"""

from __future__ import annotations

import hmac
import re
from base64 import b64encode
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
