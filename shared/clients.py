"""Who asks, as far as throttling and the audit may know it."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address, ip_network


@dataclass(frozen=True, slots=True)
class Client:
    """An address, and the networks that stand for it."""

    address: str

    @property
    def network(self) -> str:
        """IPv4 as such, IPv6's /64."""
        return self._network(32, 64)

    @property
    def coarse(self) -> str:
        """IPv4's /24, IPv6's /48."""
        return self._network(24, 48)

    def _network(self, v4: int, v6: int) -> str:
        version = ip_address(self.address).version
        return str(ip_network((self.address, v4 if version == 4 else v6), strict=False))
