"""One key for an address, however it is spelled, and the check that a new address must pass."""

from __future__ import annotations

import contextlib
import re

from shared.errors import InvalidInput
from shared.formats.unicode import normalized

_PLAIN = re.compile(
    r"[a-z0-9]+([._+-][a-z0-9]+)*@([a-z0-9]+(-[a-z0-9]+)*\.)+"
    r"(?!(arpa|invalid|local|localhost|onion|test)$)[a-z]{2,}"
)
_PLAIN_MAX_LENGTH = 64
"""Within it every part of an address is short enough."""


def email_key(address: str) -> str:
    """Give the key under which an address is stored, searched, counted and compared.

    Stripped, NFC, lower case, the domain in its Unicode form (UTS 46, IDNA 2008). It is total:
    an address that the old server let in and today's rules refuse has a key too, so that its
    owner can still log in. Applying it twice changes nothing.
    """
    address = normalized("NFC", address.strip())
    folded = address.lower()
    # Nothing below changes an ASCII address but its case, and the import costs a cold start 25 ms.
    if folded.isascii() and "xn--" not in folded:
        return folded
    with contextlib.suppress(ValueError):
        folded = _validated(address).lower()
    return normalized("NFC", folded)


def parse_new_email(address: str) -> str:
    """Give the key of an address that a new user may have.

    Raises InvalidInput where the syntax is wrong (RFC 5321, 5322, 6531) or the domain is one that
    cannot receive mail. It does not ask the DNS.
    """
    key = email_key(address)
    if len(key) <= _PLAIN_MAX_LENGTH and _PLAIN.fullmatch(key):
        return key  # Most are: the import below costs a cold start 25 ms.
    try:
        _validated(key)  # Not the address: lower case can be longer, and the key is what is stored.
    except ValueError as error:
        raise InvalidInput("email", str(error)) from None
    return key


def _validated(address: str) -> str:
    from email_validator import validate_email  # Slow to import, and a login rarely needs it.

    return validate_email(address, check_deliverability=False).normalized
