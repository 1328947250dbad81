"""Who a user is to everyone above the store, and to the providers who vouch for them."""

from __future__ import annotations

import re
from dataclasses import dataclass

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""What the database takes for one, in lower case."""
PROVIDERS = ("local", "google", "firebase-google")
"""Who vouches for users: this system, by a password, or somebody else."""


@dataclass(frozen=True, slots=True)
class User:
    """A user without the password's hash, which only the store and a login know."""

    id: str
    email: str
    name: str | None
    provider: str
    epoch: int = 0
    """Sessions issued under an earlier epoch are no longer renewed."""
    is_degraded: bool = False
    """Known from a copy that may be out of date, because the database is away: see `tokens`."""


@dataclass(frozen=True, slots=True)
class ExternalIdentity:
    """What a provider calls somebody: the `iss` and `sub` of an ID token (ASVS V6.8.1)."""

    issuer: str
    subject: str
