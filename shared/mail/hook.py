"""Mail by a hook: an HTTPS endpoint of the operator's, which sends it by whatever way it likes.

Requests are signed as Standard Webhooks (1.0.0) has it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time

from shared import https
from shared.deadlines import remaining
from shared.formats.timestamps import to_iso
from shared.mail.addresses import Mailbox
from shared.mail.message import Message
from shared.mail.settings import MailSettings
from shared.mail.transport import NotDelivered, Refused, describe, recipient_of
from shared.mail.url import Hook

_UNPROCESSABLE = 422
"""The one status that means the recipient; others mean us, the hook, or the moment."""
_OF_MAIL = (400, 413, 500)
"""Statuses that may well mean this mail alone, so that others are tried."""


class HookTransport:
    """Posts mail to a hook. Each message has a connection of its own."""

    def __init__(self, hook: Hook, settings: MailSettings) -> None:
        """Connect to nothing yet."""
        assert settings.sender is not None, "mail is off"
        self._hook = hook
        self._sender = settings.sender
        self._reply_to = settings.reply_to

    def send(self, message: Message, deadline: float) -> None:
        """See `Transport.send`."""
        recipient = recipient_of(message)
        now = time.time()
        body = self._body(message, recipient, now)
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message.id,
            "webhook-timestamp": str(int(now)),
            "webhook-signature": self._signatures(f"{message.id}.{int(now)}.".encode() + body),
        }
        try:
            https.send(
                self._hook.url,
                method="POST",
                body=body,
                headers=headers,
                timeout=remaining(deadline),
            )
        except https.UnexpectedAnswer as error:
            self._judge(error.status)
        except https.FAILURES as error:
            raise NotDelivered(self._sentence(describe(error))) from None

    def reach(self, deadline: float) -> None:
        """Connect as `send` does, and send nothing. Raises NotDelivered."""
        try:
            https.reach(self._hook.url, timeout=remaining(deadline))
        except https.FAILURES as error:
            raise NotDelivered(self._sentence(describe(error))) from None

    def _body(self, message: Message, recipient: str, now: float) -> bytes:
        def written(mailbox: Mailbox | None) -> dict[str, str] | None:
            return mailbox and {"name": mailbox.name, "address": mailbox.address}

        data = {
            "from": written(self._sender),
            "reply_to": written(self._reply_to),
            "to": recipient,
            "locale": message.locale,
            "subject": message.subject,
            "text": message.text,
            "html": message.html,
        }
        event = {"type": f"mail.{message.kind}", "timestamp": to_iso(now), "data": data}
        return json.dumps(event).encode()

    def _signatures(self, signed: bytes) -> str:
        digests = (hmac.digest(key, signed, hashlib.sha256) for key in self._hook.secrets)
        return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)

    def _judge(self, status: int) -> None:
        if status == _UNPROCESSABLE:
            raise Refused(self._sentence(f"refuses the recipient (status {status})"))
        if status // 100 != 2:  # One with a long body is delivered.
            sentence = self._sentence(f"did not take the mail (status {status})")
            raise NotDelivered(sentence, is_of_mail=status in _OF_MAIL)

    def _sentence(self, predicate: str) -> str:
        return f"The mail hook {self._hook.host} {predicate}."
