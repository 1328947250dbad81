"""Answers of functions that have mails sent."""

from __future__ import annotations

from flask import Response

from shared.errors import MailNotConfigured
from shared.model.mails import AskedKind
from shared.web.call import Call
from shared.web.responses import answer

_ASKED = (
    "If there is an account with this address, we have sent it an email. Please check your inbox "
    "and your spam folder."
)


def require_mail(call: Call) -> None:
    """Raise MailNotConfigured where no mail can be sent."""
    if not call.settings.mail.enabled:
        raise MailNotConfigured


def ask(call: Call, kind: AskedKind, email: str) -> Response:
    """Have a mail sent to an address, if it is somebody's: 202 in every case."""
    require_mail(call)
    call.app.mailboxes.ask(kind, email=email, locale=call.locale, client=call.client)
    call.log["event"] = f"{kind}_requested"
    deliver(call)
    return answer({"message": _ASKED}, 202)


def deliver(call: Call) -> None:
    """Have the outbox delivered: after the answer, or by a request of its own before it."""
    if call.settings.mail.delivery == "self" or call.is_streaming:
        call.app.wake_deliverer()
    else:
        call.afterwards(call.app.wake_deliverer)
