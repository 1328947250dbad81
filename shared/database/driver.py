"""pg8000 and scramp, without what they load for a few of their users.

scramp loads asn1crypto to learn one word from a server's certificate, for channel binding, and
pg8000 dateutil for times that PostgreSQL does not write. Each cold start would pay for them, the
first as much as for all of pg8000; here each is loaded when it is first needed.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType, SimpleNamespace
from typing import Any


class _Later:
    """An attribute of a module that is loaded when this is first used."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def _load(self) -> Any:
        return getattr(importlib.import_module(self._module), self._name)

    def __call__(self, *arguments: object, **named: object) -> object:
        return self._load()(*arguments, **named)

    def __getattr__(self, name: str) -> object:
        return getattr(self._load(), name)


_HASHES = {
    bytes.fromhex("2a864886f70d01010b"): "sha256",  # RSA (RFC 8017, appendix C)
    bytes.fromhex("2a864886f70d01010c"): "sha384",
    bytes.fromhex("2a864886f70d01010d"): "sha512",
    bytes.fromhex("2a8648ce3d040302"): "sha256",  # ECDSA (RFC 5758, section 3.2)
    bytes.fromhex("2a8648ce3d040303"): "sha384",
    bytes.fromhex("2a8648ce3d040304"): "sha512",
}
"""By the object identifiers of the usual signatures."""


class Certificate:
    """A certificate that TLS has verified, of which scramp asks one thing only."""

    def __init__(self, der: bytes) -> None:
        """Take the bytes as TLS gives them."""
        self._der = der

    @classmethod
    def load(cls, der: bytes, *, strict: bool) -> Certificate:  # noqa: ARG003  # asn1crypto's form
        """Read nothing yet."""
        return cls(der)

    @property
    def hash_algo(self) -> str:
        """The hash of its signature, which channel binding takes as well (RFC 5929, 4.1)."""
        return _HASHES.get(self._signature()) or str(self._parsed().hash_algo)

    def _signature(self) -> bytes:
        """Give the object identifier that stands behind what was signed (RFC 5280, 4.1)."""
        certificate, _ = _contents(self._der, 0)
        _, end_of_signed = _contents(self._der, certificate)
        algorithm, _ = _contents(self._der, end_of_signed)
        start, end = _contents(self._der, algorithm)
        return self._der[start:end]

    def _parsed(self) -> Any:
        return importlib.import_module("asn1crypto.x509").Certificate.load(self._der, strict=True)


def _contents(der: bytes, at: int) -> tuple[int, int]:
    """Tell where the contents of the element begin and end that begins here (X.690, 8.1.3)."""
    length, start = der[at + 1], at + 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[at + 2 : start])
    return start, start + length


_LATER: dict[str, dict[str, object]] = {
    "asn1crypto": {"pem": SimpleNamespace(unarmor=_Later("asn1crypto.pem", "unarmor"))},
    "asn1crypto.x509": {"Certificate": Certificate},
    # The error is a ValueError.
    "dateutil.parser": {"parse": _Later("dateutil.parser", "parse"), "ParserError": ValueError},
}


def _stand_in(name: str, attributes: dict[str, object]) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(attributes)
    return module


_stand_ins = {
    name: _stand_in(name, attributes)
    for name, attributes in _LATER.items()
    if name not in sys.modules
}
sys.modules.update(_stand_ins)
try:
    import pg8000.core
    import pg8000.exceptions
    import scramp
    import scramp.core
finally:
    for _name in _stand_ins:
        del sys.modules[_name]

__all__ = ["pg8000", "scramp"]
