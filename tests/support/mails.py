"""What tests read of the mails that a served application has delivered into its folder."""

from __future__ import annotations

import email
import re
from email import policy
from email.message import EmailMessage

from tests.support.in_process import Served

_LINK = re.compile(r"^http://localhost:8080/(\w+)#token=(\S+)$", re.MULTILINE)


def delivered(app: Served) -> list[EmailMessage]:
    """Read what was delivered, the oldest first."""
    folder = app.settings.store.users_file.with_name("mail")
    paths = sorted(folder.glob("*.eml"), key=lambda path: path.stat().st_mtime_ns)
    return [email.message_from_bytes(path.read_bytes(), policy=policy.default) for path in paths]


def text(mail: EmailMessage) -> str:
    """Give the plain text."""
    body = mail.get_body(("plain",))
    assert body is not None
    return str(body.get_content()).replace("\r\n", "\n")


def link(mail: EmailMessage) -> tuple[str, str]:
    """Give the page and the token of the link, which stands on a line of its own."""
    found = _LINK.search(text(mail))
    assert found, text(mail)
    return found[1], found[2]


def token(app: Served, to: str) -> str:
    """Give the token of the latest mail to an address that has one."""
    mails = [mail for mail in delivered(app) if mail["To"] == to and _LINK.search(text(mail))]
    return link(mails[-1])[1]
