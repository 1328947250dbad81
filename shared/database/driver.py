"""pg8000 and scramp, without what they load for a few of their users.

scramp loads asn1crypto to read a server's certificate for channel binding, and pg8000 dateutil for
times that PostgreSQL does not write. Each cold start would pay for them; here each is loaded when
it is first used.
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


_LATER: dict[str, dict[str, object]] = {
    "asn1crypto": {"pem": SimpleNamespace(unarmor=_Later("asn1crypto.pem", "unarmor"))},
    "asn1crypto.x509": {"Certificate": _Later("asn1crypto.x509", "Certificate")},
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
