"""Mail: whether its server accepts our login, or its hook can be reached. Nothing is sent."""

from __future__ import annotations

import time

from shared.doctor.subject import Findings, Subject, note, ok, problem
from shared.mail.settings import MailSettings
from shared.mail.transport import NotDelivered, open_transport
from shared.mail.url import Hook

SECONDS = 10.0
_USELESS = ("MAIL_FROM", "MAIL_REPLY_TO", "MAIL_HOOK_SECRET")


def look_at_mail(subject: Subject) -> Findings:
    """Connect as a delivery does, and log in where there is a login."""
    if subject.settings is None:
        return
    mail = subject.settings.mail
    if mail.url is None:
        for name in _USELESS:
            if subject.given(name):
                yield note(
                    f"{name} is set, but no mail is sent.", "Set MAIL_URL: see docs/MAIL.md."
                )
    if not mail.enabled:
        return
    try:
        open_transport(mail).reach(time.monotonic() + SECONDS)
    except NotDelivered as error:
        yield problem(error.cause, "docs/MAIL.md, “When mail does not leave”, says what to do.")
    else:
        yield ok(_described(mail))


def _described(mail: MailSettings) -> str:
    if mail.url is None:
        return f"Mails are files in {mail.folder}."
    if isinstance(mail.url, Hook):
        return f"The mail hook {mail.url.host} can be reached; its secret was not tried."
    what = "accepts our login" if mail.url.user is not None else "can be reached"
    return f"The mail server {mail.url.host} {what}."
