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
_UNSEEN = str.maketrans(
    "",
    "",
    "\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2061\u2062\u2063"
    "\u2064\u2066\u2067\u2068\u2069\u206a\u206b\u206c\u206d\u206e\u206f\ufe0e\ufe0f\ufeff",
)
"""What nobody sees and nobody types, but copying brings: marks of width, direction and form."""
_JOINERS = "\u200c\u200d"
"""They are part of a word in some scripts, but not at its end."""


def email_key(address: str) -> str:
    """Give the key under which an address is stored, searched, counted and compared.

    Stripped, without what cannot be seen, NFC, lower case, the domain in its Unicode form (UTS 46,
    IDNA 2008). Total: addresses that only the old server accepted have a key too, so that their
    owners can log in. Idempotent.
    """
    address = address.strip()
    if not address.isascii():
        address = normalized("NFC", _seen(address))
    folded = address.lower()
    # The rest does not change ASCII, and its import costs a cold start 25 ms.
    if folded.isascii() and "xn--" not in folded:
        return folded
    with contextlib.suppress(ValueError):
        folded = _validated(address).lower()
    return normalized("NFC", folded)


def parse_new_email(address: str, *, field: str = "email") -> str:
    """Validate the address of a new user and give its key.

    `field` is the body's member. Raises InvalidInput if the syntax is wrong (RFC 5321, 5322, 6531)
    or the domain cannot receive mail by its name. Does not query the DNS.
    """
    key = email_key(address)
    if len(key) <= _PLAIN_MAX_LENGTH and _PLAIN.fullmatch(key):
        return key  # The usual case: the import below costs a cold start 25 ms.
    try:
        _validated(key)  # Not the address: the key is stored, and lower case can be longer.
    except ValueError as error:
        raise InvalidInput(field, str(error)) from None
    return key


def _seen(address: str) -> str:
    address = address.translate(_UNSEEN)
    while (stripped := address.strip().strip(_JOINERS)) != address:
        address = stripped
    return address


def _validated(address: str) -> str:
    from email_validator import validate_email  # Slow to import, and a login rarely needs it.

    return validate_email(address, check_deliverability=False).normalized
