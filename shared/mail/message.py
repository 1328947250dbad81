"""A mail as its reader will see it, ready for a transport."""

from __future__ import annotations

from typing import NamedTuple

from shared.model.mails import Kind


class Message(NamedTuple):
    """One mail in one language. Its text and its HTML say the same."""

    id: str
    """Of the mail in the outbox: the same at each try."""
    kind: Kind
    recipient: str
    locale: str
    subject: str
    text: str
    html: str

    def __repr__(self) -> str:
        """Show neither the address nor the link, whose token is a secret."""
        return f"Message(id={self.id!r}, kind={self.kind!r}, locale={self.locale!r})"
