"""The ways by which a mail leaves, and what it means where it does not."""

from __future__ import annotations

import ssl
from socket import gaierror
from typing import TYPE_CHECKING, Protocol

from shared.mail import addresses
from shared.mail.message import Message
from shared.mail.settings import MailSettings
from shared.mail.url import SmtpServer

if TYPE_CHECKING:
    from shared.mail.folder import FolderTransport
    from shared.mail.hook import HookTransport
    from shared.mail.smtp import SmtpTransport

_HANG_UPS = (
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
    ConnectionResetError,
    ConnectionAbortedError,
    BrokenPipeError,
)


class Transport(Protocol):
    """Takes a mail to somebody who answers for it from then on. Thread-safe."""

    def send(self, message: Message, deadline: float) -> None:
        """Send it, before the deadline, a reading of `time.monotonic()`.

        Raises NotDelivered and Refused. Where the last answer is lost, that is NotDelivered, and
        the message may arrive twice, with one Message-ID.
        """


class NotDelivered(Exception):
    """The mail has not left, or nobody knows: it is to be tried again later.

    `cause` is a sentence for the log. It has no address and no secret, and quotes nothing that the
    other side said but its codes, because servers repeat addresses.
    """

    def __init__(self, cause: str, *, is_of_mail: bool = False) -> None:
        """`cause` is a sentence; `is_of_mail` tells that other mails may well leave."""
        self.cause = cause
        self.is_of_mail = is_of_mail
        super().__init__(cause)


class Refused(Exception):
    """The recipient will never have this mail. `cause` is a sentence like that of NotDelivered."""

    def __init__(self, cause: str) -> None:
        """`cause` is a sentence."""
        self.cause = cause
        super().__init__(cause)


def open_transport(settings: MailSettings) -> SmtpTransport | HookTransport | FolderTransport:
    """Give the transport that the settings name; nothing is connected yet. Mail must be on."""
    if settings.url is None:
        from shared.mail.folder import FolderTransport

        assert settings.folder is not None, "mail is off"
        return FolderTransport(settings.folder, settings)
    if isinstance(settings.url, SmtpServer):
        from shared.mail.smtp import SmtpTransport

        return SmtpTransport(settings.url, settings)
    from shared.mail.hook import HookTransport

    return HookTransport(settings.url, settings)


def recipient_of(message: Message) -> str:
    """Give the recipient's address, its domain in ASCII. Raises Refused."""
    try:
        return addresses.with_ascii_domain(message.recipient)
    except addresses.InvalidAddress as error:
        raise Refused(f"No mail can be sent to the recipient's address: {error}.") from None


def describe(error: Exception) -> str:
    """Say what a host did, as a predicate, where a connection to it failed."""
    if isinstance(error, TimeoutError):
        return "did not answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = error.verify_message.rstrip(".")
        return f"has a certificate that is not valid for this host: {reason}"
    if isinstance(error, _HANG_UPS):
        return "hung up"
    if isinstance(error, ssl.SSLError):
        return f"failed at TLS: {error.reason}"
    if isinstance(error, gaierror):
        return "cannot be found by its name"
    if isinstance(error, ConnectionRefusedError):
        return "refuses connections: check the port"
    if isinstance(error, OSError):
        return f"cannot be reached: {error.strerror or type(error).__name__}"
    return "answered something that is not of its protocol"
