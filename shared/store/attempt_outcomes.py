"""What every way to count attempts shares: who denies one, and the errors of those too many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.errors import InvalidIdentityToken, TooManyAttempts

if TYPE_CHECKING:
    from shared.model.users import User
    from shared.store.contract import Attempt

CLIENT, ACCOUNT = "client", "account"
"""Who denies an attempt: the client's network, or the account."""


def succeeded(attempt: Attempt) -> User:
    """Give the user of an attempt that has succeeded, which nobody's cannot."""
    if attempt.credentials is None:
        raise ValueError("an attempt on nobody cannot succeed")
    return attempt.credentials.user


def too_many(
    retry_after: float, kind: str, user: User, account: str | None = None
) -> TooManyAttempts:
    """Make the error of a success too many; `kind` is what was tried."""
    return TooManyAttempts(retry_after, event=f"{kind}_throttled", user_id=user.id, account=account)


def used_up() -> InvalidIdentityToken:
    """Make the error of an ID token that has been used too often."""
    return InvalidIdentityToken(cause="used too often")
