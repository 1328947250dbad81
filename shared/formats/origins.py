"""Origins of pages: a scheme, a host and a port (RFC 6454), however they are spelled."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

PORTS = {"http": 80, "https": 443}
"""The ports that browsers leave out."""

_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
_NAME_MAX_LENGTH = 253
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT = re.compile(r"[0-9]{1,5}")


class InvalidOrigin(ValueError):
    """No page has such an origin; the text says why, without quoting it."""


class Origin(NamedTuple):
    """An origin whose parts have one spelling each; it is compared as a whole."""

    scheme: str
    host: str
    """In lower case and ASCII, without a dot at the end; an IPv6 address in brackets."""
    port: int

    def __str__(self) -> str:
        """Write it as browsers do."""
        port = "" if self.port == PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}"


def parse(text: str) -> Origin:
    """Read an origin in ASCII, such as that of a request. Raises InvalidOrigin."""
    if "*" in text:
        raise InvalidOrigin("a wildcard matches nothing; list each origin")
    if text == "null":
        raise InvalidOrigin("a page of anybody's can have it")
    scheme, is_complete, rest = text.partition("://")
    if not is_complete:
        raise InvalidOrigin("it does not begin with https:// or http://")
    scheme = scheme.lower()
    if scheme not in PORTS:
        raise InvalidOrigin("its scheme is neither https nor http")
    if "@" in rest:
        raise InvalidOrigin("browsers send no user name with an origin")
    if set(rest) & set("/?#\\"):
        raise InvalidOrigin("an origin ends after the host and the port")
    host, separator, port = rest.rpartition(":")
    if not separator or "]" in port:
        host, port = rest, ""
    return Origin(scheme, _host(host.lower()), _port(port) if port else PORTS[scheme])


def parse_written(text: str) -> Origin:
    """Read an origin as people write it, with a host in any script. Raises InvalidOrigin."""
    if text.isascii():
        return parse(text)
    import idna  # Only names in other scripts need its tables.

    scheme, separator, rest = text.partition("://")
    name, colon, port = rest.partition(":")
    try:
        name = idna.encode(name, uts46=True, transitional=False).decode()
    except idna.IDNAError:
        raise InvalidOrigin("its host has no form in ASCII; write that one, xn--…") from None
    return parse(f"{scheme}{separator}{name}{colon}{port}")


def _host(text: str) -> str:
    if text.startswith("[") and text.endswith("]"):
        try:
            address = IPv6Address(text[1:-1])
        except ValueError:
            raise InvalidOrigin("its host is not an IPv6 address") from None
        if address.scope_id is not None:
            raise InvalidOrigin("browsers send no zone with an address")
        return f"[{IPv6Address(int(address)).compressed}]"
    name = text.removesuffix(".")
    if not _NAME.fullmatch(name) or len(name) > _NAME_MAX_LENGTH:
        raise InvalidOrigin("its host is not a name or an address")
    if _NUMBER.fullmatch(name.rpartition(".")[2]):
        try:
            return str(IPv4Address(name))
        except ValueError:
            raise InvalidOrigin("its host is not an IPv4 address") from None
    return name


def _port(text: str) -> int:
    port = int(text) if _PORT.fullmatch(text) else 0
    if not 0 < port < 2**16:
        raise InvalidOrigin("its port is not a number from 1 to 65535")
    return port
