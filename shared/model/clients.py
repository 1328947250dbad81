"""Who asks, as far as throttling and the audit may know it: an address on the network.

Nothing here knows a web framework. Of `X-Forwarded-For` only the end is believed, which the proxies
in front of the server have written; what the caller wrote stands to the left of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

_WITH_PORT = re.compile(r"([\d.]+):\d+|\[([^\]]*)\](?::\d+)?", re.ASCII)
_NOWHERE = "0.0.0.0"  # noqa: S104  # nothing is bound to it; a socket of a file system has no address


@dataclass(frozen=True, slots=True)
class Client:
    """An address, and the networks that stand for it."""

    address: str

    @property
    def network(self) -> str:
        """What one caller has at least: an IPv4 address, or an IPv6 network of /64."""
        return self._network(64) if ":" in self.address else self.address

    @property
    def coarse(self) -> str:
        """What tells a region or a provider, but nobody: IPv4's /24, IPv6's /48."""
        return self._network(48 if ":" in self.address else 24)

    def _network(self, bits: int) -> str:
        return str(ip_network((self.address, bits), strict=False))


def find(forwarded_for: str | None, peer: str | None, trusted_proxies: int) -> Client:
    """Give the address from which the outermost trusted proxy was called.

    Each proxy appends the address that called it, so it is as many elements from the right as there
    are proxies. `peer` is the socket's address: it counts where there is no proxy, and where the
    element is missing or no address, because such a call did not come by these proxies.
    """
    address = None
    if trusted_proxies and forwarded_for is not None:
        elements = forwarded_for.rsplit(",", trusted_proxies)[-trusted_proxies:]
        if len(elements) == trusted_proxies:
            address = _parse(elements[0])
    return Client(str(address or _parse(peer or "") or _NOWHERE))


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """Read an address as proxies and sockets write it, perhaps with a port or a zone."""
    text = text.strip()
    if match := _WITH_PORT.fullmatch(text):
        text = match[1] or match[2]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
