"""GET /mail: in development, what would have been mailed."""

from __future__ import annotations

import email
import re
from contextlib import suppress
from datetime import datetime
from email import policy
from email.message import EmailMessage
from pathlib import Path
from typing import NamedTuple

from flask import Response

from functions.pages import rendering
from shared.web.call import Call
from shared.web.endpoint import endpoint
from shared.web.responses import no_such_path

SHOWN = 50
_THIS_MACHINE = re.compile(
    r"(?:(?:[\w-]+\.)*localhost|127\.0\.0\.1|\[::1\])(?::\d+)?", re.IGNORECASE
)
"""A name of its own that somebody's page has given this machine is none of these."""
_LINK = re.compile(r"^(https?://\S+#\S+)\n", re.MULTILINE)
"""With the end of its line, which the page gives it."""


class _Shown(NamedTuple):
    to: str
    subject: str
    time: str
    parts: list[str]
    """Of the text; each second one is a link."""


@endpoint("GET", exists=lambda call: call.settings.mail.folder is not None)
def mail_page(call: Call) -> Response:
    """Give the newest mails of the folder: 200; 404 under a name that is not this machine's own."""
    folder = call.settings.mail.folder
    assert folder is not None, "the page does not exist"
    _, _, host = call.source
    if not _THIS_MACHINE.fullmatch(host or ""):
        raise no_such_path()
    mails = _newest(folder)
    return rendering.styled_page(
        "mails.html", "sign-in.css", folder=folder, mails=mails, shown=SHOWN
    )


def _newest(folder: Path) -> list[_Shown]:
    found = []
    for path in folder.glob("*.eml"):
        with suppress(OSError):  # Deleted meanwhile.
            found.append((path.stat().st_mtime_ns, path))
    mails = []
    for written, path in sorted(found, reverse=True)[:SHOWN]:
        with suppress(OSError):
            mails.append(_read(path.read_bytes(), written / 1e9))
    return mails


def _read(data: bytes, written: float) -> _Shown:
    mail = email.message_from_bytes(data, EmailMessage, policy=policy.default)
    body = mail.get_body(("plain",))
    return _Shown(
        to=str(mail["To"] or ""),
        subject=str(mail["Subject"] or ""),
        time=f"{datetime.fromtimestamp(written).astimezone():%Y-%m-%d %H:%M:%S}",
        parts=_LINK.split(str(body.get_content()).replace("\r\n", "\n")) if body else [],
    )
