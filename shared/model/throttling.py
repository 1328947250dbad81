"""The limits of attempts, and the keys under which they are counted.

A login attempt is counted under three keys, in this order, and only while the previous ones have
attempts left: the client's network; the account from this network; and the account from all
networks from which its owner has not logged in lately. So a network can lock out only its own
callers, and many networks together cannot lock out the owner at home.

Successes are also limited, generously, because they write rows: per account and per ID token.

A key contains hashes or a user's id, never an address. Unknown addresses share a fixed number of
keys, so that they cannot fill a table, and cost the same work.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from typing import NamedTuple

KNOWN_SECONDS = 30 * 24 * 60 * 60
"""How long a network counts as the owner's after a login: as long as a session."""


class Limits(NamedTuple):
    """Attempts until a key is locked, and the seconds of the lock."""

    login: int = 5
    """For one account from one network."""
    account: int = 50
    """For one account from all networks that are not its owner's."""
    client: int = 100
    """For one network, all accounts together. Successes do not count."""
    sign_up: int = 50
    """Sign-ups from one network."""
    success: int = 100
    """Of one account, by its password or a provider's word, in `lockout_seconds` from the first."""
    id_token: int = 20
    """Sign-ins by one ID token, until it expires."""
    lockout_seconds: float = 900.0


class Pseudonyms:
    """Keyed hashes of addresses and networks, so that tables and logs reveal none."""

    def __init__(self, secrets: Sequence[str]) -> None:
        """Derive the key from the first of `SESSION_SECRET`; a new one resets all counts."""
        secret = secrets[0] if secrets else ""
        self._key = hmac.digest(secret.encode(), b"ai-coder-auth pseudonyms", hashlib.sha256)

    def of(self, text: str) -> str:
        """Give 128 bits as 22 characters of base64url."""
        digest = hmac.digest(self._key, text.encode(), hashlib.sha256)
        return urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()


class Keys(NamedTuple):
    """The keys of one login attempt."""

    client: str
    login: str
    account: str
    nobodys_login: str
    """Instead of `login` and `account` for unknown addresses: 4,096 of each."""
    nobodys_account: str

    @classmethod
    def of(cls, account: str, network: str) -> Keys:
        """Make the keys from pseudonyms."""
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


HOME = " home"
"""Ends the keys of mails that are asked for from a network of the owner's."""


def mail_client_key(network: str) -> str:
    """Make the key under which the mails that a network asks for are counted."""
    return f"mail {network}"


def mail_keys(kind: str, account: str) -> tuple[str, str]:
    """Make the keys of the mails of a kind to an address, by its pseudonym: in an hour, in a day.

    With the first two characters alone they are shared by addresses that nobody has.
    """
    return f"mail {kind} {account}", f"mails {kind} {account}"


def notice_key(user_id: str) -> str:
    """Make the key under which it is kept that a user was told of a new network."""
    return f"notice {user_id}"


def success_key(user_id: str) -> str:
    """Make the key under which a user's successes are counted."""
    return f"success {user_id}"


def id_token_key(token_id: str) -> str:
    """Make the key under which the uses of an ID token are counted."""
    return f"id-token {token_id}"
