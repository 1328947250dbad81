"""A message as it goes over the wire (RFC 5322, RFC 2045 to 2047, RFC 6532)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.header import Header
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from shared.mail.addresses import Mailbox
from shared.mail.message import Message

_LINE = 76
"""Characters that a line should have at most; RFC 5322 demands 998."""
_MAX_BYTES = 998
_MAX_WORD = 60
_FOLD = "\r\n"
_CONTROLS = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+")
_LINE_END = re.compile(rb"\r\n|\r|\n")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~ ]*")
_ID = re.compile(r"[A-Za-z0-9-]+")


def encode(
    message: Message,
    recipient: str,
    *,
    sender: Mailbox,
    reply_to: Mailbox | None,
    takes_8bit: bool,
) -> bytes:
    """Give it with CRLF at the end of each line, and no other CR or LF.

    `recipient` has its domain in ASCII. The body is 8bit if the server takes that, else
    quoted-printable. The header is ASCII, unless the recipient's address is not.
    """
    assert _ID.fullmatch(message.id), "a UUID"
    fields = {
        "From": _mailbox("From", sender),
        "To": recipient,
        "Subject": _text("Subject", message.subject),
        "Date": format_datetime(datetime.now(UTC)),
        "Message-ID": f"<{message.id}@{sender.host}>",
        "Auto-Submitted": "auto-generated",  # RFC 3834
        "X-Auto-Response-Suppress": "All",  # Exchange's
        "Content-Language": _text("Content-Language", message.locale),
    }
    if reply_to is not None:
        fields["Reply-To"] = _mailbox("Reply-To", reply_to)
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return head.encode() + _body(message, takes_8bit=takes_8bit)


def _body(message: Message, *, takes_8bit: bool) -> bytes:
    parts = [part.encode() for part in (message.text, message.html)]
    is_8bit = takes_8bit and all(
        len(line) <= _MAX_BYTES for part in parts for line in _LINE_END.split(part)
    )
    encoding = "8bit" if is_8bit else "quoted-printable"
    body = EmailMessage(SMTP.clone(max_line_length=_LINE))
    body.set_content(message.text, cte=encoding)
    body.add_alternative(message.html, subtype="html", cte=encoding)
    return _LINE_END.sub(b"\r\n", body.as_bytes())


def _text(name: str, value: str) -> str:
    value = _cleaned(value)
    return _folded(name, value, _charset(value))


def _mailbox(name: str, mailbox: Mailbox) -> str:
    shown = _cleaned(mailbox.name)
    if not shown:
        return mailbox.address
    charset = _charset(shown)
    if charset == "us-ascii" and not _ATOMS.fullmatch(shown):
        escaped = re.sub(r'(["\\])', r"\\\1", shown)
        shown = f'"{escaped}"'
    written = _folded(name, shown, charset)
    last = f"{name}: {written} <{mailbox.address}>".rpartition("\n")[2]
    return f"{written}{'' if len(last) <= _LINE else _FOLD} <{mailbox.address}>"


def _cleaned(value: str) -> str:
    return _CONTROLS.sub(" ", value).strip()


def _charset(value: str) -> str:
    """Tell whether readers see what stands there, and it can be folded between its words."""
    is_plain = value.isascii() and "=?" not in value
    return "us-ascii" if is_plain and max(map(len, value.split(" "))) <= _MAX_WORD else "utf-8"


def _folded(name: str, value: str, charset: str) -> str:
    """Write a field's value in lines; in UTF-8, as encoded words (RFC 2047)."""
    return Header(value, charset, _LINE, name).encode(linesep=_FOLD)
