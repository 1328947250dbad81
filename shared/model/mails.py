"""Mails about accounts, as the outbox keeps them, and how long what they ask for works.

A row holds neither a token nor a text: both are made when it is delivered, so that no secret lies
in the outbox. `email_digest` and `epoch` are of the user as the request saw them: whatever changed
since ends the token.
"""

from __future__ import annotations

import hashlib
from typing import Literal, NamedTuple

AskedKind = Literal["verification", "password_reset", "login_link"]
"""What anybody may ask for, for any address."""
Kind = Literal[
    "verification",
    "password_reset",
    "login_link",
    "email_change",
    "invitation",
    "address_taken",
    "password_changed",
    "email_changed",
    "account_deleted",
    "new_sign_in",
]
LIFETIMES: dict[Kind, int] = {
    "verification": 3 * 24 * 60 * 60,
    "password_reset": 60 * 60,
    "login_link": 15 * 60,
    "email_change": 3 * 24 * 60 * 60,
    "invitation": 7 * 24 * 60 * 60,
}
"""Seconds from the delivery for which the link works; other kinds have none."""
MAX_AGE = 24 * 60 * 60
"""Seconds after which a mail is given up."""
LEASE_SECONDS = 60
"""For which a mail is one deliverer's; whoever is killed with one loses it then."""
NOTICE_SECONDS = 7 * 24 * 60 * 60
"""Between two mails that tell a user of a sign-in from a network that was never seen."""
PER_HOUR, PER_DAY = 3, 10
"""Mails of a kind to an address."""


class Mail(NamedTuple):
    """A row of the outbox, as its deliverer has it."""

    id: str
    """A UUID; of the `Message-ID`, so that it is the same at each try."""
    kind: Kind
    recipient: str
    user_id: str
    epoch: int
    email_digest: str
    """The digest of the user's address as the request saw it."""
    locale: str | None
    asked_from: str | None
    """A coarse network, such as 192.0.2.0/24, where the kind tells it."""
    created_at: float
    """Seconds since the Unix epoch."""
    tries: int
    """How often it was tried before."""
    is_too_old: bool = False
    """Whether a day has passed by the store's clock, so that it is given up."""


class OutboxStatus(NamedTuple):
    """What waits in the outbox."""

    waiting: int
    """Mails."""
    oldest: float
    """Seconds since the oldest one was written; 0 where none waits."""


def digest_of(key: str) -> str:
    """Give 128 bits of an email key's SHA-256 in hexadecimal; `outbox_sql.digest` is the twin."""
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def backoff(tries: int) -> float:
    """Give the seconds until the next try: half a minute, doubled each time up to an hour."""
    return min(30.0 * 2.0 ** min(tries, 10), 3600.0)
