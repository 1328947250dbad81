"""Delivers what waits in the outbox: at least once, for a day, and never while somebody waits."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from shared.errors import StoreUnavailable
from shared.mail.letters import compose
from shared.mail.message import Message
from shared.mail.transport import NotDelivered, Refused, Transport, open_transport
from shared.model.mails import LIFETIMES, Kind, Mail, OutboxStatus, backoff
from shared.observe import log, metrics

if TYPE_CHECKING:
    from shared.credentials.mail_tokens import MailTokens
    from shared.mail.settings import MailSettings
    from shared.store.contract import Outbox

PAGES: dict[Kind, str] = {
    "verification": "/verify",
    "password_reset": "/reset",
    "login_link": "/link",
    "email_change": "/verify",
}
"""What a link opens. The token stands behind the `#`, which browsers send to no server."""

BATCH = 10
"""Mails that are leased at once."""
SEND_SECONDS = 20.0
"""For one mail, from the resolution of the server's name to its last answer. Less than a lease."""
RUN_SECONDS = 40.0
"""After which no other mail is begun."""


class Deliverer:
    """Sends what is due; one thread of a process at a time. Thread-safe."""

    def __init__(
        self,
        outbox: Outbox,
        tokens: MailTokens,
        settings: MailSettings,
        transport: Transport | None = None,
    ) -> None:
        """Send by a transport, or else by that of the settings."""
        self._outbox = outbox
        self._transport = transport or open_transport(settings)
        self._tokens = tokens
        self._settings = settings
        self._delivering = threading.Lock()
        self.status: OutboxStatus | None = None
        """As it was after the last run."""

    def deliver(self) -> int:
        """Send what is due, and count it. Raises StoreUnavailable."""
        if not self._delivering.acquire(blocking=False):
            return 0
        try:
            return self._deliver(time.monotonic() + RUN_SECONDS)
        finally:
            self._delivering.release()

    def _deliver(self, end: float) -> int:
        sent, is_away = 0, False
        while not is_away and time.monotonic() < end:
            mails = self._outbox.lease(BATCH)
            if not mails:
                break
            for mail in mails:
                outcome = self._send(mail) if mail.recipient else "nobody"
                if outcome == "postponed":
                    is_away = True  # The rest comes with its lease's end.
                    break
                self._outbox.delivered(mail.id)
                sent += outcome == "delivered"
        self.status = self._outbox.status()
        return sent

    def _send(self, mail: Mail) -> str:
        """Try once; whatever goes wrong is the mail's alone."""
        began, outcome = time.monotonic(), "delivered"
        try:
            self._transport.send(self._message(mail), began + SEND_SECONDS)
        except Refused as error:
            outcome = "refused"
            log.write(
                "ERROR", "A mail was refused", kind=mail.kind, mail=mail.id, cause=error.cause
            )
        except NotDelivered as error:
            outcome = self._postpone(mail, error.cause)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001  # one mail must not keep the others
            outcome = self._postpone(mail, type(error).__qualname__)
        metrics.MAILS.record(time.monotonic() - began, mail.kind, outcome)
        return outcome

    def _postpone(self, mail: Mail, cause: str) -> str:
        is_given_up = self._outbox.postpone(mail.id, backoff(mail.tries))
        log.write(
            "ERROR" if is_given_up else "WARNING",
            "A mail was given up" if is_given_up else "A mail could not be delivered yet",
            kind=mail.kind,
            mail=mail.id,
            tries=mail.tries + 1,
            cause=cause,
        )
        return "given_up" if is_given_up else "postponed"

    def _message(self, mail: Mail) -> Message:
        home = self._settings.public_url
        assert home is not None  # There is one where mail is sent.
        link = None
        if mail.kind in LIFETIMES:
            link = f"{home}{PAGES[mail.kind]}#token={self._tokens.issue(mail, time.time())}"
        return compose(mail, link=link, application=self._settings.application, home=home)
