"""A session, as its token tells of it, and how long one lives."""

from __future__ import annotations

from typing import NamedTuple

from shared.model.users import User

FRESH_SECONDS = 10 * 60
SESSION_SECONDS = 30 * 24 * 60 * 60
SKEW_SECONDS = 10


class Session(NamedTuple):
    """The claims of a valid token. Times are in seconds since the Unix epoch."""

    user: User
    sid: str
    expires_at: int
    """Until then the signature alone proves the session."""
    ends_at: int
    """Until then the store can renew it."""
    issued_at: int
    auth_time: int
    """When the user authenticated (OpenID Connect Core, section 2)."""
    auth_method: str
    """`password`, `google`, `mail`, `signup` or `express` (the old server's session)."""

    @classmethod
    def of(cls, user: User) -> Session:
        """Stand for the session of a user who has none: it has no id, and has proved nothing."""
        return cls(user, "", 0, 0, 0, 0, "")

    def is_fresh(self, now: float) -> bool:
        """Tell whether the signature alone is still enough."""
        return now < self.expires_at

    def has_just_proven(self, method: str, at: float) -> bool:
        """Tell whether the user authenticated by this method in the ten minutes before `at`.

        `at` is the store's time: a slow local clock would prolong the proof. Renewing a session
        does not renew the proof.
        """
        age = at - self.auth_time
        return self.auth_method == method and -SKEW_SECONDS <= age <= FRESH_SECONDS
