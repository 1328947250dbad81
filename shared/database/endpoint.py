"""Where SQL over HTTP is spoken."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import urlsplit


class Endpoint(NamedTuple):
    """A URL that takes POST requests."""

    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Read `https://host[:port]/path`. Raises ValueError."""
        if not re.fullmatch("[!-~]+", text):
            raise ValueError
        parts = urlsplit(text)
        if parts.scheme != "https" or not parts.hostname or parts.username is not None:
            raise ValueError
        if parts.port == 0 or parts.query or parts.fragment:
            raise ValueError
        return cls(parts.hostname, parts.port or 443, parts.path or "/")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == 443 else f":{self.port}"
        return f"https://{host}{port}{self.path}"

    @classmethod
    def of_neon(cls, host: str) -> Endpoint | None:
        """Name Neon's own: `ep-x.us-east-2.aws.neon.tech` has it at `api.us-east-2.aws…`."""
        _, _, rest = host.partition(".")
        return cls(f"api.{rest}", 443, "/sql") if rest.endswith(".neon.tech") else None
