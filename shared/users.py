"""Who a user is to everyone above the store."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class User:
    """A user without the password's hash, which only the store and a login know."""

    id: str
    email: str
    name: str | None
    provider: str
    epoch: int = 0
    """Sessions issued under an earlier epoch are no longer renewed."""
