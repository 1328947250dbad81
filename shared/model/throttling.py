"""How often somebody may try, and under which keys attempts are counted.

An attempt to log in is counted three times, in this order, and each count is spent only where the
one before let it pass: for the client's network; for the account from this network; and for the
account from all networks from which its owner has not logged in lately. So one network can lock
nobody else out, and many networks together cannot lock out the owner at home.

What succeeds is counted as well, generously, because it writes rows: for the account, and for the
ID token.

A key holds hashes or a user's id, never an address. Addresses that are nobody's share a fixed
number of keys, so that inventing them makes no table grow, and counting them is the same work.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass

KNOWN_SECONDS = 30 * 24 * 60 * 60
"""For so long a network is the owner's after a login from there: as long as a session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Attempts until a key is locked, and for how many seconds it then is."""

    login: int = 5
    """For one account from one network."""
    account: int = 50
    """For one account from all networks that are not known as its owner's."""
    client: int = 100
    """For one network, whatever the accounts. What succeeds does not count."""
    sign_up: int = 50
    """Sign-ups from one network."""
    success: int = 100
    """Of one account, by its password or a provider's word, in `lockout_seconds` from the first."""
    id_token: int = 20
    """Sign-ins by one ID token, until it expires."""
    lockout_seconds: float = 900.0


class Pseudonyms:
    """Names addresses and networks by a keyed hash, so that a table or a log tells nobody's."""

    def __init__(self, secrets: Sequence[str]) -> None:
        """Take `SESSION_SECRET`'s; the key is derived from the first. Another one forgets all."""
        secret = secrets[0] if secrets else ""
        self._key = hmac.digest(secret.encode(), b"ai-coder-auth pseudonyms", hashlib.sha256)

    def of(self, text: str) -> str:
        """Give 128 bits as 22 characters of base64url."""
        digest = hmac.digest(self._key, text.encode(), hashlib.sha256)
        return urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class Keys:
    """Under which keys one attempt is counted."""

    client: str
    login: str
    account: str
    nobodys_login: str
    """Instead of `login` and `account` where the address is nobody's: 4,096 of each."""
    nobodys_account: str

    @classmethod
    def of(cls, account: str, network: str) -> Keys:
        """Make the keys of two pseudonyms."""
        return cls(
            client=f"client {network}",
            login=f"login {account} {network}",
            account=f"account {account}",
            nobodys_login=f"login {account[0]}{network[0]}",
            nobodys_account=f"account {account[:2]}",
        )


def sign_up_key(network: str) -> str:
    """Make the key under which the sign-ups of a network, by its pseudonym, are counted."""
    return f"sign-up {network}"


def success_key(user_id: str) -> str:
    """Make the key under which a user's successes are counted."""
    return f"success {user_id}"


def id_token_key(token_id: str) -> str:
    """Make the key under which the uses of an ID token are counted."""
    return f"id-token {token_id}"
