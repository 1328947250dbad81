"""Mail by SMTP (RFC 5321, RFC 6409), only over verified TLS, and all of it before one deadline.

smtplib is not used: its timeout is that of one operation, so that a server which trickles holds it
for ever; it takes answers of any length, drops unseen what was slipped in before TLS, and asks the
DNS for its own name. What a server says is read, but its text is never told: servers repeat
addresses.
"""

from __future__ import annotations

import base64
import functools
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, NoReturn

from shared.deadlines import call_within, remaining
from shared.happy_eyeballs import Preferences
from shared.mail import mime
from shared.mail.message import Message
from shared.mail.settings import MailSettings
from shared.mail.transport import NotDelivered, Refused, describe, recipient_of
from shared.mail.url import SmtpServer

_MAX_REPLY = 64 * 1024
_MAX_COMMAND = 512
"""Bytes, with CRLF (RFC 5321, section 4.5.3.1.4)."""
_REPLY_LINE = re.compile(r"([2-5][0-9]{2})(?:([ -])(.*))?")
_STATUS = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}(?= |$)")
"""An enhanced status code (RFC 3463)."""
_OURS = re.compile(r"50[0-4]|521|53.|... 5\.1\.[78]|... 5\.[37]\..+")
"""Refusals of a recipient that speak of us: commands, logging in, the sender, system, policy."""
_THEIRS = re.compile(r"... 5\.(1\.(?![78]$)|2\.).+")
"""Refusals of a message that speak of its recipient."""


class Reply(NamedTuple):
    """All lines of an answer."""

    code: int
    lines: list[str]

    @property
    def status(self) -> str:
        """What may be told of it: `550`, or `550 5.1.1`."""
        found = _STATUS.match(self.lines[-1])
        return f"{self.code} {found[0]}" if found else str(self.code)


class SmtpTransport:
    """Hands mail to a server. Each message has a connection of its own."""

    def __init__(self, server: SmtpServer, settings: MailSettings) -> None:
        """Connect to nothing yet."""
        assert settings.sender is not None, "mail is off"
        self._server = server
        self._sender = settings.sender
        self._reply_to = settings.reply_to

    @functools.cached_property
    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    def send(self, message: Message, deadline: float) -> None:
        """See `Transport.send`."""
        recipient = recipient_of(message)
        with self._session(deadline) as session:
            if not recipient.isascii() and "SMTPUTF8" not in session.extensions:
                raise Refused(
                    f"The recipient's address has more than ASCII before its @, which the mail "
                    f"server {self._server.host} does not take (it has no SMTPUTF8)."
                )
            data = mime.encode(
                message,
                recipient,
                sender=self._sender,
                reply_to=self._reply_to,
                takes_8bit="8BITMIME" in session.extensions,
            )
            session.deliver(self._sender.address, recipient, data)

    def reach(self, deadline: float) -> None:
        """Connect and log in, as `send` does, and send nothing. Raises NotDelivered."""
        with self._session(deadline):
            pass

    @contextmanager
    def _session(self, deadline: float) -> Iterator[_Session]:
        session = _Session(self._server.host, deadline)
        try:
            session.open(self._server, self._context, self._sender.host)
            yield session
        except OSError as error:
            sentence = f"The mail server {self._server.host} {describe(error)} (at {session.step})."
            raise NotDelivered(
                sentence + self._hint(session.step, error), is_of_mail=session.step in _OF_MAIL
            ) from None
        finally:
            session.close()

    def _hint(self, step: str, error: OSError) -> str:
        """Name the other scheme where the port seems to want that."""
        if self._server.direct_tls and step == "TLS" and type(error) is ssl.SSLError:
            return " A port with STARTTLS, such as 587, needs smtp:// in MAIL_URL."
        if not self._server.direct_tls and step == "the greeting" and type(error) is TimeoutError:
            return " A port that begins with TLS, such as 465, needs smtps:// in MAIL_URL."
        return ""


_OF_MAIL = ("RCPT", "DATA", "the message")
"""Steps at which another mail may well be taken, where one is not."""


class _Session:
    """A conversation with a server: commands, and what is made of their answers."""

    def __init__(self, host: str, deadline: float) -> None:
        self.extensions: dict[str, str] = {}
        """That the server offers, with their parameters."""
        self.step = "connecting"
        self._host = host
        self._deadline = deadline
        self._socket: socket.socket | None = None
        self._received = b""
        self._may_quit = False

    def open(self, server: SmtpServer, context: ssl.SSLContext, own_name: str) -> None:
        """Get as far as a message may be sent."""
        self._socket = self._connected(server.port)
        if server.direct_tls:
            self._begin_tls(context)
        self.step = "the greeting"
        self._expect(self._reply(), 220, "does not serve this machine")
        self._hello(own_name)
        if not server.direct_tls:
            if "STARTTLS" not in self.extensions:
                self._fail("offers no STARTTLS, without which nothing is sent to it")
            self._expect(self._command("STARTTLS"), 220, "offers STARTTLS and refuses it")
            if self._received:
                self._fail("said something ahead of TLS, which may be somebody else's")
            self._begin_tls(context)
            self._hello(own_name)
        if server.user is not None:
            self._log_in(server.user, server.password)

    def deliver(self, sender: str, recipient: str, data: bytes) -> None:
        """Send a message to one recipient. Raises Refused where it is the recipient's fault."""
        parameters = " BODY=8BITMIME" if "8BITMIME" in self.extensions else ""
        if not recipient.isascii():
            parameters += " SMTPUTF8"
        reply = self._command(f"MAIL FROM:<{sender}>{parameters}", "MAIL")
        self._expect(reply, 250, "does not accept the MAIL_FROM address as the sender")
        reply = self._command(f"RCPT TO:<{recipient}>", "RCPT")
        if reply.code // 100 == 5 and not _OURS.match(reply.status):
            raise Refused(f"The mail server {self._host} refuses the recipient ({reply.status}).")
        self._expect(reply, (250, 251, 252), "does not take a mail for the recipient now")
        self._expect_message(self._command("DATA"), 354)
        self.step = "the message"
        self._send(data.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        self._expect_message(self._reply(), 250)

    def close(self) -> None:
        """Take leave where the server listens, and close."""
        if self._socket is None:
            return
        with suppress(OSError):
            if self._may_quit:
                self._send(b"QUIT\r\n")
        self._socket.close()

    def _connected(self, port: int) -> socket.socket:
        look_up = functools.partial(socket.getaddrinfo, self._host, port, type=socket.SOCK_STREAM)
        found = call_within(remaining(self._deadline), look_up)
        connection, _ = Preferences().connect(self._host, found, self._deadline)
        return connection

    def _begin_tls(self, context: ssl.SSLContext) -> None:
        assert self._socket is not None
        self.step = "TLS"
        self._may_quit = False
        self._socket.settimeout(remaining(self._deadline))
        self._socket = context.wrap_socket(self._socket, server_hostname=self._host)

    def _hello(self, own_name: str) -> None:
        reply = self._command(f"EHLO {own_name}", "EHLO")
        self._expect(reply, 250, "does not speak ESMTP with us")
        words = (line.upper().partition(" ") for line in reply.lines[1:])
        self.extensions = {name: parameters for name, _, parameters in words}

    def _log_in(self, user: str, password: str) -> None:
        offered = self.extensions.get("AUTH", "").split()
        if "PLAIN" in offered:
            answers = [f"\0{user}\0{password}"]  # RFC 4616
        elif "LOGIN" in offered:
            answers = [user, password]
        else:
            self._fail("offers neither AUTH PLAIN nor AUTH LOGIN: no password was sent to it")
        encoded = [base64.b64encode(answer.encode()).decode() for answer in answers]
        command = f"AUTH {'PLAIN' if len(encoded) == 1 else 'LOGIN'}"
        if len(encoded) == 1 and len(f"{command} {encoded[0]}\r\n") <= _MAX_COMMAND:
            command += f" {encoded.pop()}"
        reply = self._command(command, "AUTH")
        for answer in encoded:
            if reply.code == 334:
                reply = self._command(answer, "AUTH")
        self._expect(reply, 235, "rejects the login: check user and password in MAIL_URL")

    def _command(self, line: str, step: str = "") -> Reply:
        """Send a line and give the answer; `step` is what may be told of the line."""
        self.step = step or line
        if self._received:
            self._fail("talks out of turn")
        self._send(f"{line}\r\n".encode())
        return self._reply()

    def _expect(self, reply: Reply, codes: int | tuple[int, ...], complaint: str) -> None:
        if reply.code not in (codes if isinstance(codes, tuple) else (codes,)):
            self._fail(complaint, reply)

    def _expect_message(self, reply: Reply, code: int) -> None:
        if reply.code // 100 == 5 and _THEIRS.match(reply.status):
            raise Refused(
                f"The mail server {self._host} refuses the message for its recipient "
                f"({reply.status})."
            )
        self._expect(reply, code, "does not take the message")

    def _fail(self, complaint: str, reply: Reply | None = None) -> NoReturn:
        status = f", answer {reply.status}" if reply else ""
        raise NotDelivered(
            f"The mail server {self._host} {complaint} (at {self.step}{status}).",
            # 421 says that it goes away, whatever it is the answer to.
            is_of_mail=self.step in _OF_MAIL and reply is not None and reply.code != 421,
        )

    def _send(self, data: bytes) -> None:
        assert self._socket is not None
        self._may_quit = False
        left = memoryview(data)
        while left:
            self._socket.settimeout(remaining(self._deadline))
            left = left[self._socket.send(left) :]

    def _reply(self) -> Reply:
        lines: list[str] = []
        size, code = 0, ""
        while True:
            line = self._line()
            size += len(line)
            found = _REPLY_LINE.fullmatch(line.decode("latin-1"))
            if found is None or (code and found[1] != code) or size > _MAX_REPLY:
                self._fail("answers something that is not SMTP")
            code = found[1]
            lines.append(found[3] or "")
            if found[2] != "-":
                self._may_quit = code[0] != "3"
                return Reply(int(code), lines)

    def _line(self) -> bytes:
        assert self._socket is not None
        while b"\n" not in self._received:
            if len(self._received) > _MAX_REPLY:
                self._fail("answers without an end")
            self._socket.settimeout(remaining(self._deadline))
            data = self._socket.recv(4096)
            if not data:
                self._fail("hung up")
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line.removesuffix(b"\r")
