"""Whether a port can be listened on here, and what to do where it cannot."""

from __future__ import annotations

import errno
import socket
from typing import Any


def try_to_bind(family: int, address: tuple[Any, ...]) -> None:
    """Bind an address as a server does, and let go of it. Raises OSError."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def explain(error: OSError, port: int) -> tuple[str, str]:
    """Give what is wrong with a port that could not be bound, and the remedy, a sentence each."""
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} is in use.", "End what listens there, or set PORT to another."
    if error.errno == errno.EACCES:
        return f"Port {port} is not open to this user.", "Set PORT to 1024 or more."
    return f"Port {port} cannot be used: {error.strerror}.", "Set PORT to another."
