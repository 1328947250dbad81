"""The client of a request: a network address, for throttling and the audit.

Knows no web framework. Only the end of `X-Forwarded-For` is trusted, which our proxies wrote; the
part to its left may be forged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.model.sessions import Session

_WITH_PORT = re.compile(r"([\d.]+):\d+|\[([^\]]*)\](?::\d+)?", re.ASCII)
_NOWHERE = "0.0.0.0"  # noqa: S104  # nothing is bound to it; a socket of a file system has no address


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks: an address, with the networks that stand for it, and the session that it has."""

    address: str
    session: Session | None = field(default=None, compare=False)
    """Ends where the client begins a new one (ASVS V7.2.4)."""

    @property
    def network(self) -> str:
        """The smallest network of one caller: an IPv4 address, or an IPv6 /64."""
        return self._network(64) if ":" in self.address else self.address

    @property
    def coarse(self) -> str:
        """A network that identifies a region but no person: IPv4 /24, IPv6 /48."""
        return self._network(48 if ":" in self.address else 24)

    def _network(self, bits: int) -> str:
        return str(ip_network((self.address, bits), strict=False))


def find(forwarded_for: str | None, peer: str | None, trusted_proxies: int) -> Client:
    """Give the address that called the outermost trusted proxy.

    Each proxy appends the address of its caller, so it is the `trusted_proxies`-th element from the
    right. `peer`, the socket's address, is used without proxies, or if the element is missing or
    invalid, because such a call did not pass these proxies.
    """
    address = None
    if trusted_proxies and forwarded_for is not None:
        elements = forwarded_for.rsplit(",", trusted_proxies)[-trusted_proxies:]
        if len(elements) == trusted_proxies:
            address = _parse(elements[0])
    return Client(str(address or _parse(peer or "") or _NOWHERE))


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """Parse an address of a proxy or socket, with or without port and zone."""
    text = text.strip()
    if match := _WITH_PORT.fullmatch(text):
        text = match[1] or match[2]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
