"""Delivers what waits in the outbox: at least once, for a day, and never while somebody waits."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING

from shared.errors import StoreUnavailable
from shared.mail.letters import compose
from shared.mail.message import Message
from shared.mail.transport import NotDelivered, Refused, Transport, open_transport
from shared.model.mails import LEASE_SECONDS, LIFETIMES, Kind, Mail, OutboxStatus, backoff
from shared.observe import log, metrics, request_context

if TYPE_CHECKING:
    from shared.credentials.mail_tokens import MailTokens
    from shared.mail.settings import MailSettings
    from shared.store.contract import Outbox

PAGES: dict[Kind, str] = {
    "verification": "/verify",
    "password_reset": "/reset",
    "login_link": "/link",
    "email_change": "/verify",
    "invitation": "/reset",
}
"""What a link opens. The token stands behind the `#`, which browsers send to no server."""

_SENTENCES = {
    "refused": "A mail was refused",
    "given_up": "A mail was given up",
    "postponed": "A mail could not be delivered yet",
    "away": "A mail could not be delivered yet",
}
BATCH = 10
"""Mails that are leased at once."""
SEND_SECONDS = 20.0
"""For one mail, from the resolution of the server's name to its last answer. Less than a lease."""
RUN_SECONDS = 25.0
"""After which no other mail is begun. With the last one it is less than a request may take."""
HIDING_SECONDS = 1.0
"""For which a delivery waits at most, at random: or the time of the answers that follow would tell
whether there was something to deliver."""


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
        self._delivering, self._starting = threading.Lock(), threading.Lock()
        self._due = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_wanted = False
        self._seen: tuple[OutboxStatus, float] | None = None
        """After the last run, and when that was."""

    @property
    def status(self) -> OutboxStatus | None:
        """What waited after the last run, which has grown older since; None before the first."""
        if self._seen is None:
            return None
        status, at = self._seen
        aged = status.oldest + time.monotonic() - at
        return status._replace(oldest=aged if status.waiting else 0.0)

    def wake(self) -> None:
        """Have what is due delivered soon, by a thread of its own, so that nobody waits."""
        with self._starting:
            # After a fork there is none.
            if self._thread is None or not self._thread.is_alive():
                run = request_context.in_a_thread(self._run)
                self._thread = threading.Thread(target=run, name="mail", daemon=True)
                self._thread.start()
        self._due.set()

    def close(self) -> None:
        """Have the thread end with its run; waits for so long as one mail may take."""
        ending, self._thread = self._thread, None
        if ending is not None and ending.is_alive():
            self._due.set()
            ending.join(SEND_SECONDS)

    def deliver(self, end: float | None = None) -> int:
        """Send what is due, and count it. Raises StoreUnavailable.

        None is begun after `end`, a reading of `time.monotonic()`. One thread of a process is at
        it. Others give 0, and what they came for is seen to.
        """
        sent, end = 0, end or time.monotonic() + RUN_SECONDS
        self._is_wanted = True
        while self._is_wanted and self._delivering.acquire(blocking=False):
            try:
                self._is_wanted = False
                sent += self._deliver(end)
            finally:
                self._delivering.release()
        return sent

    def hide(self) -> None:
        """Wait, so that nobody can tell by the time whether there is something to deliver."""
        if self._settings.url is not None:
            time.sleep(random.uniform(0, HIDING_SECONDS))  # noqa: S311  # noise, and no secret

    def _run(self) -> None:
        while self._due.wait() and threading.current_thread() is self._thread:
            self._due.clear()
            self.hide()
            try:
                self.deliver()
            except Exception as error:  # noqa: BLE001  # the thread goes on, and the log tells
                cause = error.cause if isinstance(error, StoreUnavailable) else type(error).__name__
                log.write("WARNING", "Mails could not be delivered", cause=cause)

    def _deliver(self, end: float) -> int:
        sent, is_away = 0, False
        while not is_away and time.monotonic() < end:
            # One that is begun later than this could be somebody else's before it is sent.
            latest = min(end, time.monotonic() + LEASE_SECONDS - SEND_SECONDS)
            mails = self._outbox.lease(BATCH)
            if not mails:
                break
            for mail in mails:
                if time.monotonic() > latest:
                    break
                outcome = self._settle(mail)
                sent += outcome == "delivered"
                if outcome == "away":
                    is_away = True  # The rest comes with its lease's end.
                    break
        self._seen = self._outbox.status(), time.monotonic()
        return sent

    def _settle(self, mail: Mail) -> str:
        """Send a mail, or have it wait; one that is too old is forgotten."""
        outcome, cause, began = "given_up", None, time.monotonic()
        if not mail.is_too_old:
            outcome, cause = self._send(mail, began + SEND_SECONDS)
        if outcome in ("postponed", "away"):
            self._outbox.postpone(mail.id, backoff(mail.tries))
        else:
            self._outbox.delivered(mail.id)
        metrics.MAILS.record(time.monotonic() - began, mail.kind, outcome)
        if sentence := _SENTENCES.get(outcome):
            severity: log.Severity = "WARNING" if outcome in ("postponed", "away") else "ERROR"
            facts = {"kind": mail.kind, "mail": mail.id, "tries": mail.tries, "cause": cause}
            log.write(severity, sentence, **facts)
        return outcome

    def _send(self, mail: Mail, deadline: float) -> tuple[str, str | None]:
        """Try once, and tell what came of it and why."""
        try:
            self._transport.send(self._message(mail), deadline)
        except Refused as error:
            return "refused", error.cause
        except NotDelivered as error:
            return "postponed" if error.is_of_mail else "away", error.cause
        except Exception as error:  # noqa: BLE001  # one mail must not keep the others
            return "postponed", type(error).__qualname__
        return "delivered", None

    def _message(self, mail: Mail) -> Message:
        home = self._settings.public_url
        assert home is not None  # There is one where mail is sent.
        link = None
        if mail.kind in LIFETIMES:
            link = f"{home}{PAGES[mail.kind]}#token={self._tokens.issue(mail, time.time())}"
        return compose(mail, link=link, application=self._settings.application, home=home)
