"""Who a user is to everyone above the store, and to the providers who vouch for them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeGuard

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""What the database takes for one, in lower case."""
PROVIDERS = ("local", "google", "firebase-google")
"""Who vouches for users: this system, by a password, or somebody else."""
MAX_EPOCH = 2**31 - 2**16
"""The highest epoch that a file may give a user; the column has room for those who add to it."""
MAX_STORED_EPOCH = 2**31 - 1
"""The highest epoch that the column can hold."""
EPOCH_PROBLEM = f"The epoch is not a whole number from 0 to {MAX_EPOCH}."
TOKEN_MAX_SECONDS = 24 * 60 * 60
"""For which the uses of an ID token are counted; Google's are good for an hour."""
MAX_IDENTITIES = 20
"""Of one user: a provider can be made to call one person by ever new names."""


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


USER_COLUMNS = ("id", "email", "name", "provider", "epoch")
"""What a `User` is made of: columns in the database, members of a row in a users file."""


def user_from(values: Iterable[Any]) -> User:
    """Make a user of the values of USER_COLUMNS."""
    user_id, email, name, provider, epoch = values
    return User(str(user_id), email, name, provider or "local", epoch or 0)


@dataclass(frozen=True, slots=True)
class ExternalIdentity:
    """What a provider calls somebody: the `iss` and `sub` of an ID token (ASVS V6.8.1)."""

    issuer: str
    subject: str


@dataclass(frozen=True, slots=True)
class IdToken:
    """Which verified ID token it is."""

    id: str
    seconds: float
    """For how long its uses are counted: until it expires, TOKEN_MAX_SECONDS at most. By the clock
    of the instance that verified it, so that another one may give another number."""


def is_epoch(value: object) -> TypeGuard[int]:
    """Tell whether a file may give a user this epoch."""
    return type(value) is int and 0 <= value <= MAX_EPOCH


def next_epoch(epoch: int) -> int:
    """Give an epoch that ends all sessions of this one.

    After the highest it is one halfway, which nobody comes to by counting: what was let in before
    there was a highest must not keep a user from ending sessions. Its twin in SQL is
    `shared.store.postgres.statements.next_epoch`.
    """
    return epoch + 1 if epoch < MAX_EPOCH else MAX_EPOCH // 2
