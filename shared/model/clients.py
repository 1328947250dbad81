"""The client of a request: a network address, for throttling and the audit.

Knows no web framework. Only the end of `X-Forwarded-For` is trusted, which our proxies wrote; the
part to its left may be forged.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from shared.model.sessions import Session

_WITH_PORT = re.compile(r"([\d.]+):\d+|\[([^\]]*)\](?::\d+)?", re.ASCII)
_NOWHERE = "0.0.0.0"  # noqa: S104  # nothing is bound to it; a socket of a file system has no address
_SHARED = "all its clients share one limit of attempts"
UNSET = (
    "A request came with X-Forwarded-For, which is ignored because TRUSTED_PROXIES is not set: if "
    f"it passed a proxy, {_SHARED}. Set TRUSTED_PROXIES to the number of proxies, or to 0"
)
NOT_APPENDED = (
    "A request came with a proxy's header, but without X-Forwarded-For: if it passed a proxy, "
    f"{_SHARED}. Let the proxy append to X-Forwarded-For, and set TRUSTED_PROXIES"
)
TOO_MANY = (
    "X-Forwarded-For has fewer addresses than TRUSTED_PROXIES says, and is ignored: if the request "
    f"passed a proxy, {_SHARED}. Lower TRUSTED_PROXIES, or let each proxy append an address"
)
TOO_FEW = (
    "The address that TRUSTED_PROXIES selects in X-Forwarded-For is not public, though others "
    f"stand before it: if it is a proxy's, {_SHARED}. Raise TRUSTED_PROXIES"
)


class Client(NamedTuple):
    """Who asks: an address, with the networks that stand for it, and the session that it has."""

    address: str
    session: Session | None = None
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


def find(forwarded_for: str | None, peer: str | None, trusted_proxies: int | None) -> Client:
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


def doubt(
    forwarded_for: str | None, trusted_proxies: int | None, *, is_proxied: bool
) -> str | None:
    """Tell why many clients may count as one: the number of proxies does not fit a request.

    `trusted_proxies` is None if nobody has said it, and `is_proxied` tells of other headers of
    proxies. Anyone can send them, so it is a warning for the operator and changes nothing.
    """
    if forwarded_for is None:
        return NOT_APPENDED if is_proxied and trusted_proxies != 0 else None
    if not trusted_proxies:
        return UNSET if trusted_proxies is None else None
    elements = forwarded_for.split(",")
    found = _parse(elements[-trusted_proxies]) if len(elements) >= trusted_proxies else None
    if found is None:
        return TOO_MANY
    return TOO_FEW if len(elements) > trusted_proxies and not found.is_global else None


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
