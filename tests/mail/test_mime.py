"""A message on the wire: nothing breaks out of its header, and every server takes its lines."""

from __future__ import annotations

import email
import email.policy
import re
from email.header import decode_header, make_header
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.mail import mime
from shared.mail.addresses import Mailbox
from tests.support.mail_servers import MESSAGE

SENDER = Mailbox("AI-Coder", "no-reply@example.com")


def _encoded(
    *,
    subject: str = MESSAGE.subject,
    text: str = MESSAGE.text,
    html: str = MESSAGE.html,
    recipient: str = MESSAGE.recipient,
    sender: Mailbox = SENDER,
    reply_to: Mailbox | None = None,
    takes_8bit: bool = True,
) -> bytes:
    message = MESSAGE._replace(subject=subject, text=text, html=html)
    data = mime.encode(message, recipient, sender=sender, reply_to=reply_to, takes_8bit=takes_8bit)
    assert data.endswith(b"\r\n")
    assert not re.search(rb"[^\r]\n|\r[^\n]|\0", data), "no other line ends"
    lines = data.split(b"\r\n")
    assert max(map(len, lines)) <= 998
    return data


def _parsed(data: bytes) -> EmailMessage:
    found = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    assert not found.defects
    return found


def _fields(data: bytes) -> list[str]:
    head = data.partition(b"\r\n\r\n")[0].decode()
    return [line.partition(":")[0] for line in head.split("\r\n") if line[0] != " "]


USUAL = [
    "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "X-Auto-Response-Suppress",
    "Content-Language", "MIME-Version", "Content-Type",
]  # fmt: skip


def test_a_message_has_these_fields_and_no_others() -> None:
    assert _fields(_encoded()) == USUAL


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r", "\0", "\x0b", "\x85", "\u2028", "\r\n\r\n"])
def test_no_name_and_no_subject_ends_its_line(end: str) -> None:
    evil = f"Hello{end}Bcc: eve@example.com"
    data = _encoded(subject=evil, sender=Mailbox(evil, SENDER.address))
    assert _fields(data) == USUAL
    found = _parsed(data)
    assert found["Bcc"] is None
    assert found["Subject"] == "Hello Bcc: eve@example.com"
    (sender,) = found["From"].addresses
    assert (sender.display_name, sender.addr_spec) == (found["Subject"], SENDER.address)


@pytest.mark.parametrize(
    "text",
    [
        "Set a new password",
        "Neues Passwort für Ihr Konto festlegen",
        "=?utf-8?q?=0D=0ABcc:_eve?=",
        "Ein sehr langer Betreff über alles, was in einem Betreff stehen kann, und noch mehr, " * 3,
        "A very long subject of nothing but ASCII, which is folded where it has a blank, see? " * 3,
        "x" * 300,
        "é" * 300,
        "👩‍🚀🎉" * 40,
        "日本語の件名がとても長い場合" * 10,
        "",
    ],
)
def test_a_subject_is_read_as_it_was_written(text: str) -> None:
    data = _encoded(subject=text)
    assert _parsed(data)["Subject"] == text.strip()
    head = data.partition(b"\r\n\r\n")[0]
    assert head.isascii()
    assert max(map(len, head.split(b"\r\n"))) <= 78


@pytest.mark.parametrize(
    "name",
    [
        "AI-Coder", "Böses Büro", "Coder, AI", 'A "B" \\ C', "a@b.example", "Mr. <x> (y); z:",
        "=?utf-8?q?x?=", "ä" * 100, "long name " * 10, "日本" * 50, "x" * 100,
        "x" * 58 + ".", "x" * 59 + "\\",
    ],
)  # fmt: skip
@pytest.mark.parametrize("address", ["a@b.example", f"{'a' * 64}@{'b' * 63}.{'c' * 63}.example"])
def test_a_sender_is_read_as_it_was_written(name: str, address: str) -> None:
    data = _encoded(sender=Mailbox(name, address), reply_to=Mailbox("", address))
    found = _parsed(data)
    (sender,) = found["From"].addresses
    assert sender.addr_spec == address
    # Not its display name: some versions of Python leave the blanks between encoded words.
    raw = str(email.message_from_bytes(data)["From"]).replace("\r\n", "")
    shown = str(make_header(decode_header(raw))).removesuffix(f" <{address}>")
    if shown.startswith('"'):
        shown = re.sub(r"\\(.)", r"\1", shown[1:-1])
    assert shown == name.strip()
    assert found["Reply-To"] == address
    assert found["Message-ID"] == f"<{MESSAGE.id}@{address.partition('@')[2]}>"


def test_an_address_in_another_script_stands_in_the_header_as_utf_8() -> None:
    assert _parsed(_encoded(recipient="аня@xn--80a1acny.example"))["To"] == (
        "аня@xn--80a1acny.example"
    )


@given(subject=st.text(), name=st.text(max_size=100))
def test_whatever_stands_in_a_header_stays_in_its_field(subject: str, name: str) -> None:
    data = _encoded(subject=subject, sender=Mailbox(name, SENDER.address))
    assert _fields(data) == USUAL
    head = data.partition(b"\r\n\r\n")[0]
    assert re.fullmatch(rb"[ -~\r\n]*", head)
    raw = str(email.message_from_bytes(data)["From"])
    assert raw.rpartition(" ")[2].strip("<>") == SENDER.address


TEXTS = [
    "Hello\n",
    "Grüße, 日本, 👩‍🚀\n",
    "From here\n.\n..\n\n\n",
    "=3D = trailing blank \nand tab\t\n",
    "https://app.example.com/reset#" + "t" * 400 + "\n",
    "ü" * 600 + "\n",
    "x" * 2000 + "\n",
]


@pytest.mark.parametrize("takes_8bit", [True, False])
@pytest.mark.parametrize("text", TEXTS)
def test_a_text_arrives_as_it_is_whatever_the_server_takes(text: str, *, takes_8bit: bool) -> None:
    data = _encoded(text=text, html=f"<p>{text}</p>\n", takes_8bit=takes_8bit)
    parts = list(_parsed(data).iter_parts())
    found = []
    for part in parts:
        assert isinstance(part, EmailMessage)
        found.append(part.get_content().replace("\r\n", "\n"))
    assert found == [text, f"<p>{text}</p>\n"]
    fits = all(len(line.encode()) + len("<p>") <= 998 for line in text.split("\n"))
    expected = "8bit" if takes_8bit and fits else "quoted-printable"
    assert {part["Content-Transfer-Encoding"] for part in parts} == {expected}
    if not takes_8bit:
        assert data.isascii()
        assert max(map(len, data.split(b"\r\n"))) <= 78


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n"])
def test_line_ends_in_a_text_are_line_ends(end: str) -> None:
    for takes_8bit in (True, False):
        data = _encoded(text=f"a{end}.{end}b{end}", takes_8bit=takes_8bit)
        text = next(_parsed(data).iter_parts())
        assert isinstance(text, EmailMessage)
        assert text.get_content().replace("\r\n", "\n") == "a\n.\nb\n"
