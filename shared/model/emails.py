"""Email keys, one for all spellings of an address, and the validation of new addresses."""

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
"""Up to this length every part of an address is short enough."""


def email_key(address: str) -> str:
    """Give the key under which an address is stored, searched, counted and compared.

    Stripped, NFC, lower case, the domain in its Unicode form (UTS 46, IDNA 2008). Total:
    addresses that only the old server accepted have a key too, so that their owners can log in.
    Idempotent.
    """
    address = normalized("NFC", address.strip())
    folded = address.lower()
    # The rest does not change ASCII, and its import costs a cold start 25 ms.
    if folded.isascii() and "xn--" not in folded:
        return folded
    with contextlib.suppress(ValueError):
        folded = _validated(address).lower()
    return normalized("NFC", folded)


def parse_new_email(address: str) -> str:
    """Validate the address of a new user and give its key.

    Raises InvalidInput if the syntax is wrong (RFC 5321, 5322, 6531) or the domain cannot receive
    mail by its name. Does not query the DNS.
    """
    key = email_key(address)
    if len(key) <= _PLAIN_MAX_LENGTH and _PLAIN.fullmatch(key):
        return key  # The usual case: the import below costs a cold start 25 ms.
    try:
        _validated(key)  # Not the address: the key is stored, and lower case can be longer.
    except ValueError as error:
        raise InvalidInput("email", str(error)) from None
    return key


def _validated(address: str) -> str:
    from email_validator import validate_email  # Slow to import, and a login rarely needs it.

    return validate_email(address, check_deliverability=False).normalized
