"""Users and their external identities."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, TypeGuard

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""In the database's form: lower case."""
PROVIDERS = ("local", "google", "firebase-google")
"""How users authenticate: by a password here, or at an external provider."""
MAX_EPOCH = 2**31 - 2**16
"""The highest epoch in a file; the column leaves room for increments."""
MAX_STORED_EPOCH = 2**31 - 1
"""The maximum of the column."""
EPOCH_PROBLEM = f"The epoch is not a whole number from 0 to {MAX_EPOCH}."
TOKEN_MAX_SECONDS = 24 * 60 * 60
"""How long uses of an ID token are counted; Google's are valid for an hour."""
MAX_IDENTITIES = 20
"""Of one user: a person can get any number of identities from a provider."""
GOOGLE_ISSUER = "https://accounts.google.com"
"""Under which Google's identities are stored (OpenID Connect Core, section 2, `iss`)."""
FIREBASE_ISSUER = "https://securetoken.google.com/"
"""Begins the issuer of a Firebase project's, whose id follows."""
SOURCE_ISSUER = "urn:ai-coder:source:"
"""Begins the issuer of the id that a user had in another system, whose name follows.

It is kept as an identity, so that an import finds the user again, and is nobody's at a provider: no
ID token has such an issuer, and it keeps none from being linked.
"""
BROUGHT_ISSUERS = (SOURCE_ISSUER, FIREBASE_ISSUER)
"""Of ids that say nothing of an account at Google: who has one of Firebase's alone was imported.

A sign-in through Firebase brings Google's identity with it.
"""


class User(NamedTuple):
    """A user, without the password's hash."""

    id: str
    email: str
    name: str | None
    provider: str
    epoch: int = 0
    """Sessions issued under an earlier epoch are no longer renewed."""
    is_degraded: bool = False
    """Found by the fallback in an outage, from data that may be out of date."""
    email_verified: bool | None = None
    """Whether the address is proved; None for who is from before that was asked of anybody."""


USER_COLUMNS = ("id", "email", "name", "provider", "epoch")
"""What a `User` is made of: columns in the database, members of a row in a users file. One value
more tells whether the address is proved."""


def user_from(values: Iterable[Any]) -> User:
    """Make a user of the values of USER_COLUMNS, and of whether the address is proved."""
    user_id, email, name, provider, epoch, email_verified = values
    return User(
        str(user_id), email, name, provider or "local", epoch or 0, email_verified=email_verified
    )


Verification = Literal["from_before", "unproved", "asked", "required", "proved"]
"""What is known of a new user's address: nothing, and nothing is ever asked; that it is not proved;
that a mail asks for its proof, which may have to be given before the first login; or that somebody
has proved it already."""


class ExternalIdentity(NamedTuple):
    """A person at a provider: `iss` and `sub` of an ID token (ASVS V6.8.1)."""

    issuer: str
    subject: str


class IdToken(NamedTuple):
    """A verified ID token, for counting its uses."""

    id: str
    seconds: float
    """How long its uses are counted: until it expires, TOKEN_MAX_SECONDS at most, by the clock of
    the instance that verified it."""


def is_epoch(value: object) -> TypeGuard[int]:
    """Tell whether a file may contain this epoch."""
    return type(value) is int and 0 <= value <= MAX_EPOCH


def next_epoch(epoch: int) -> int:
    """Give the epoch that ends all sessions of this one.

    From the maximum on, which only old data reaches, it is half the maximum, which counting never
    reaches, so that sessions can still be ended. The same in SQL:
    `shared.store.postgres.statements.next_epoch`.
    """
    return epoch + 1 if epoch < MAX_EPOCH else MAX_EPOCH // 2
