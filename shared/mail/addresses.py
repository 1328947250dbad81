"""Addresses as mail servers take them: nothing in one can end a line or a command."""

from __future__ import annotations

import re
from typing import NamedTuple

_LOCAL = re.compile(r'[^\s\x00-\x20\x7f-\x9f"(),:;<>@\[\\\]]+')
"""Without quotes. Which of these names there are is for the server to say."""
_DOMAIN = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*", re.IGNORECASE)
_LOCAL_MAX_BYTES, _MAX_BYTES = 64, 254  # RFC 5321, section 4.5.3.1; RFC 3696, erratum 1690
_NAMED = re.compile(r"(?P<name>[^<>]*)<(?P<address>[^<>]*)>")
_NAME_MAX_LENGTH = 100


class InvalidAddress(ValueError):
    """No mail can be sent to it; the text is a clause that does not quote it."""


class Mailbox(NamedTuple):
    """A name, which may be empty, and an address in ASCII."""

    name: str
    address: str

    @property
    def host(self) -> str:
        """What stands behind the @."""
        return self.address.rpartition("@")[2]

    @classmethod
    def parse(cls, text: str) -> Mailbox:
        """Read `Name <address>`, with or without quotes around the name, or an address alone.

        Raises InvalidAddress.
        """
        found = _NAMED.fullmatch(text)
        name, address = found.group("name", "address") if found else ("", text)
        name = name.strip()
        if len(name) > 1 and name[0] == name[-1] == '"':
            name = re.sub(r"\\(.)", r"\1", name[1:-1])
        if not name.isprintable():
            raise InvalidAddress("its name has a character that cannot be printed")
        if len(name) > _NAME_MAX_LENGTH:
            raise InvalidAddress(f"its name has more than {_NAME_MAX_LENGTH} characters")
        address = with_ascii_domain(address.strip())
        if not address.isascii():
            raise InvalidAddress("what stands before its @ is not in ASCII")
        return cls(name, address)


def with_ascii_domain(address: str) -> str:
    """Give an address whose domain is in ASCII (IDNA 2008, UTS 46).

    What stands before the @ is left alone, whatever script it is in. Raises InvalidAddress.
    """
    local, at, domain = address.rpartition("@")
    if not at:
        raise InvalidAddress("it has no @")
    if not domain.isascii():
        import idna  # Only names in other scripts need its tables.

        try:
            domain = idna.encode(domain, uts46=True, transitional=False).decode()
        except idna.IDNAError:
            raise InvalidAddress("its domain has no form in ASCII") from None
    if not _DOMAIN.fullmatch(domain):
        raise InvalidAddress("what stands behind its @ is no domain")
    if not _LOCAL.fullmatch(local):
        raise InvalidAddress("what stands before its @ has a character that it cannot have")
    try:
        size = len(local.encode())
    except UnicodeEncodeError:
        raise InvalidAddress("it is not Unicode") from None
    if size > _LOCAL_MAX_BYTES or size + 1 + len(domain) > _MAX_BYTES:
        raise InvalidAddress("it is too long")
    return f"{local}@{domain}"
