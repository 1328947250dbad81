"""A TLS socket for which one deadline counts, and that counts round trips."""

from __future__ import annotations

import ssl
from typing import Any

from shared.deadlines import remaining
from shared.observe import metrics


class DeadlineSocket(ssl.SSLSocket):
    """Bounds everything until `deadline`, where a timeout bounds each single operation."""

    deadline: float
    _is_asked = False

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        """Receive in the time that is left."""
        if self._is_asked:
            self._is_asked = False
            metrics.ROUND_TRIPS.add()
        self.settimeout(remaining(self.deadline))
        return super().recv_into(*args, **kwargs)

    def send(self, *args: Any, **kwargs: Any) -> int:
        """Send in the time that is left."""
        self._is_asked = True
        self.settimeout(remaining(self.deadline))
        return super().send(*args, **kwargs)
