"""What tests read of the mails in an outbox, and of those that were delivered into a folder."""

from __future__ import annotations

import email
import re
import time
import uuid
from collections.abc import Iterable
from email import policy
from email.message import EmailMessage
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.credentials.mail_tokens import MailToken, MailTokens
from shared.credentials.signing import Signing
from shared.model.mails import Kind, Mail, digest_of
from tests.support.emulator import SECRET
from tests.support.waiting import until

if TYPE_CHECKING:
    from shared.store.contract import Store
    from tests.support.in_process import Served

TOKENS = MailTokens(Signing(["x" * 32]))
_LINK = re.compile(r"^http://(?:\w+\.)?localhost:8080/(\w+)#token=(\S+)$", re.MULTILINE)


def taken(store: Store) -> list[Mail]:
    """Take all mails out of the outbox."""
    found = store.mail.lease(100)
    for mail in found:
        store.mail.delivered(mail.id)
    return found


def token_of(mail: Mail) -> MailToken:
    """Give what the link of a mail says that is sent now."""
    now = time.time()
    return TOKENS.read(TOKENS.issue(mail, now), mail.kind, now=now)


def delivered(app: Served) -> list[EmailMessage]:
    """Have what waits delivered, and read all that was, the oldest first."""
    app.application.wake_deliverer()
    until(lambda: app.store.mail.status().waiting == 0)
    return in_folder(app.settings.store.users_file.with_name("mail"))


def in_folder(folder: Path) -> list[EmailMessage]:
    """Read the mails of a folder, the oldest first."""
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
    return links(delivered(app), to)[-1][1]


def links(mails: Iterable[EmailMessage], to: str) -> list[tuple[str, str]]:
    """Give page and token of each mail to an address that has a link."""
    return [link(mail) for mail in mails if mail["To"] == to and _LINK.search(text(mail))]


def token_for(user: dict[str, Any], kind: Kind, to: str = "", epoch: int = 0) -> str:
    """Make the token of a mail to a user, as an answer has them."""
    ids, address, now = (str(uuid.uuid4()), user["id"]), user["email"], time.time()
    to, email_digest = to or address, digest_of(address)
    mail = Mail(ids[0], kind, to, ids[1], epoch, email_digest, None, None, now, 0)
    return MailTokens(Signing([SECRET])).issue(mail, now)
