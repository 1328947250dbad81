"""The limits before every hash: known locks first, then the bulkhead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from shared.model.clients import Client
from shared.rules.bulkhead import Bulkhead
from shared.rules.locks import Locks


class Gate:
    """The limits that a caller passes before anything is counted or hashed.

    A caller of a locked network takes no place in the bulkhead.
    """

    def __init__(self, bulkhead: Bulkhead, application: str = "") -> None:
        """Start without known locks. Several applications can share the bulkhead."""
        self.bulkhead, self._application = bulkhead, application
        self.attempts, self.sign_ups = Locks(), Locks()

    @contextmanager
    def attempt(self, client: Client, kind: str) -> Iterator[None]:
        """Hold a place for an attempt. Raises TooManyAttempts and Overloaded."""
        self.attempts.check(client.network, event=f"{kind}_throttled")
        with self.bulkhead.place(client, self._application):
            yield

    @contextmanager
    def sign_up(self, client: Client) -> Iterator[None]:
        """Hold a place for a sign-up. Raises TooManyAttempts and Overloaded."""
        self.sign_ups.check(client.network, event="signup_throttled")
        with self.bulkhead.place(client, self._application):
            yield
