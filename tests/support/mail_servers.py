"""Mail servers: aiosmtpd's, a real one, one that can be as rude as a test likes, and a hook."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword

from shared.environment import Environment
from shared.mail.message import Message
from shared.mail.settings import MailSettings
from shared.mail.transport import NotDelivered, Refused, Transport, open_transport
from tests.support.certificates import Authority
from tests.support.serving import serving

if TYPE_CHECKING:
    from shared.mail.folder import FolderTransport
    from shared.mail.hook import HookTransport
    from shared.mail.smtp import SmtpTransport

HOOK_PATH = "/mail?key=canary"
USER, PASSWORD = "ada@example.com", "p@ss/wörd:canary"
MESSAGE = Message(
    id="0d0f48c9-28f2-4e6c-b6a7-4ec1ed2b0a0f",
    kind="password_reset",
    recipient="bob.canary@example.com",
    locale="en",
    subject="Set a new password",
    text="Hello,\n\nhttps://app.example.com/reset#token-canary\n\n.\n..two\nGrüße\n",
    html="<p>Hello, <a href='https://app.example.com/reset#token-canary'>click</a></p>\n",
)
SECONDS = 20.0
"""No deadline that any mail would reach."""
LINK = "https://app.example.com/reset#token-canary"
SETTINGS: dict[str, Any] = {
    "ENVIRONMENT": "test",
    "MAIL_FROM": "AI-Coder <no-reply@bücher.example>",
    "PUBLIC_URL": "https://app.example.com",
}


def url_of(port: int, scheme: str = "smtp", host: str = "localhost", user: str = USER) -> str:
    """Write a URL with the right password."""
    login = f"{quote(user)}:{quote(PASSWORD, safe='')}@" if user else ""
    return f"{scheme}://{login}{host}:{port}"


def transport(url: str, **more: str) -> SmtpTransport | HookTransport | FolderTransport:
    """Open the one that a URL names, with further settings."""
    env = Environment(SETTINGS | {"MAIL_URL": url} | more)
    opened = open_transport(MailSettings.read(env))
    assert env.problems == []
    return opened


def failure(
    opened: Transport,
    message: Message = MESSAGE,
    *,
    kind: type[NotDelivered | Refused] = NotDelivered,
    seconds: float = SECONDS,
) -> str:
    """Send what does not leave, and give the cause: a sentence that quotes nothing."""
    with pytest.raises(kind) as caught:
        opened.send(message, time.monotonic() + seconds)
    found = caught.value
    assert isinstance(found, NotDelivered | Refused)
    for secret in ("canary", USER, PASSWORD, "bob"):
        assert secret not in repr(found)
    assert str(found) == found.cause
    assert re.fullmatch(r"[A-Z].*[^.]\.", found.cause)
    assert found.__cause__ is None
    return found.cause


class Certificates:
    """Those of the mail servers of a test, and the context that serves them."""

    def __init__(self, folder: Path) -> None:
        self._authority = Authority(folder)
        self.roots = str(self._authority.certificate)
        self._usual = self._authority.issue("mail", ("localhost",))

    def context(self, host: str = "", **how: Any) -> ssl.SSLContext:
        """Give a new one; without arguments, its certificate is that of localhost."""
        is_usual = not (host or how)
        files = (
            self._usual if is_usual else self._authority.issue("odd", (host or "localhost",), **how)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
        return context


class MailServer:
    """Keeps what it took; `answers` are said to the commands that they are for, in place of yes."""

    def __init__(self, context: ssl.SSLContext, **options: Any) -> None:
        """`options` are those of aiosmtpd's SMTP; `direct_tls` means ahead of any word.

        `address` and `port` are where it listens.
        """
        self.received: list[Envelope] = []
        self.answers: dict[str, str] = {}
        self.logins: list[str] = []
        self.greeted: list[str] = []
        direct = options.pop("direct_tls", False)
        self._host = options.pop("address", "127.0.0.1")
        self.port = options.pop("port", 0)
        self._ssl = context if direct else None
        self._options = {
            "hostname": "mail.test",
            "tls_context": None if direct else context,
            "require_starttls": not direct,
            "auth_require_tls": not direct,
            "auth_required": not direct,
            "authenticator": self._authenticate,
            "timeout": 30,
        } | options

    def _authenticate(self, *call: Any) -> AuthResult:
        _, _, _, mechanism, data = call
        assert isinstance(data, LoginPassword)
        self.logins.append(mechanism)
        right = (data.login, data.password) == (USER.encode(), PASSWORD.encode())
        return AuthResult(success=right, handled=False)

    async def handle_MAIL(self, *call: Any) -> str:  # noqa: N802  # aiosmtpd's name
        _, session, envelope, address, options = call
        self.greeted.append(session.host_name)
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return self.answers.get("MAIL", "250 2.1.0 OK")

    async def handle_RCPT(self, *call: Any) -> str:  # noqa: N802
        _, _, envelope, address, _ = call
        envelope.rcpt_tos.append(address)
        return self.answers.get("RCPT", "250 2.1.5 OK")

    async def handle_DATA(self, *call: Any) -> str:  # noqa: N802
        answer = self.answers.get("message", "250 2.0.0 taken")
        if answer.startswith("250"):
            self.received.append(call[2])
        return answer

    @contextmanager
    def running(self) -> Iterator[MailServer]:
        """Listen."""
        started: queue.SimpleQueue[tuple[int, Callable[[], object]]] = queue.SimpleQueue()

        async def serve() -> None:
            loop, is_over = asyncio.get_running_loop(), asyncio.Event()
            make = functools.partial(SMTP, self, loop=loop, **self._options)
            server = await loop.create_server(make, self._host, self.port, ssl=self._ssl)
            port = server.sockets[0].getsockname()[1]
            started.put((port, functools.partial(loop.call_soon_threadsafe, is_over.set)))
            await is_over.wait()
            server.close()

        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        self.port, stop = started.get()
        try:
            yield self
        finally:
            stop()
            thread.join()


Behave = Callable[["Conversation"], None]
Answer = bytes | Behave
EHLO = b"250-mail.test\r\n250-8BITMIME\r\n250-AUTH LOGIN PLAIN\r\n250 SMTPUTF8\r\n"
POLITE: dict[str, Answer] = {
    "greeting": b"220 mail.test\r\n",
    "EHLO": EHLO,
    "AUTH": b"235 2.7.0 welcome\r\n",
    "MAIL": b"250 2.1.0 OK\r\n",
    "RCPT": b"250 2.1.5 OK\r\n",
    "DATA": b"354 go on\r\n",
    "message": b"250 2.0.0 taken\r\n",
    "QUIT": b"221 2.0.0 bye\r\n",
}


class Conversation:
    """One with a client: what it has said, and what is said to it."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.heard: list[bytes] = []
        self._received = b""

    def say(self, answer: Answer) -> None:
        if callable(answer):
            answer(self)
        else:
            self.connection.sendall(answer)

    def hear(self, end: bytes = b"\r\n") -> bytes:
        """Wait for the end of what the client says. Raises EOFError where it has gone."""
        while end not in self._received:
            data = self.connection.recv(65536)
            if not data:
                raise EOFError
            self._received += data
        said, _, self._received = self._received.partition(end)
        self.heard.append(said)
        return said


def hang(conversation: Conversation) -> None:
    """Say nothing until the client goes."""
    while conversation.connection.recv(65536):
        pass
    raise EOFError


def hang_up(conversation: Conversation) -> None:
    raise EOFError


def trickle(text: bytes) -> Behave:
    """Say a byte after the other, again and again, each well within any timeout."""

    def behave(conversation: Conversation) -> None:
        while True:
            for byte in text:
                conversation.connection.sendall(bytes([byte]))
                time.sleep(0.05)

    return behave


def flood(text: bytes) -> Behave:
    """Say it for as long as anybody listens."""

    def behave(conversation: Conversation) -> None:
        while True:
            conversation.connection.sendall(text * 1000)

    return behave


class RudeServer:
    """Answers as POLITE does, but for `answers`; `context` is that of TLS, which comes first.

    Without one it speaks in clear, and TLS begins where STARTTLS is answered by `begin_tls`.
    """

    def __init__(
        self, context: ssl.SSLContext | None, answers: Mapping[str, Answer], port: int = 0
    ) -> None:
        self._context = context
        self.answers = POLITE | dict(answers)
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])
        self.conversations: list[Conversation] = []
        self.is_left = threading.Event()
        """Whether a client has gone."""

    @contextmanager
    def running(self) -> Iterator[RudeServer]:
        """Listen."""
        thread = threading.Thread(target=self._accept)
        thread.start()
        try:
            yield self
        finally:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.settimeout(30)
                self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        conversation = Conversation(connection)
        self.conversations.append(conversation)
        try:
            if self._context is not None:
                conversation.say(begin_tls(self._context))
            conversation.say(self.answers["greeting"])
            while True:
                verb = conversation.hear().split(b" ")[0].decode()
                conversation.say(self.answers.get(verb, b"502 5.5.1 no such thing\r\n"))
                if verb == "DATA" and self.answers["DATA"] == POLITE["DATA"]:
                    conversation.hear(b"\r\n.\r\n")
                    conversation.say(self.answers["message"])
        except (OSError, EOFError):
            pass
        finally:
            conversation.connection.close()
            self.is_left.set()


def begin_tls(context: ssl.SSLContext, first: bytes = b"") -> Behave:
    """Begin TLS, after some words in clear."""

    def behave(conversation: Conversation) -> None:
        conversation.connection.sendall(first)
        conversation.connection = context.wrap_socket(conversation.connection, server_side=True)

    return behave


class MailHook:
    """A hook; it keeps what it was posted, and answers with `status` and `body`."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.status = 204
        self.statuses: dict[str, int] = {}
        """Of mails to some, in place of `status`."""
        self.body = b""
        self.repeats = False
        """Whether the body is what was posted."""
        self.may_answer = threading.Event()
        self.may_answer.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == HOOK_PATH
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.received.append(({k.lower(): v for k, v in self.headers.items()}, body))
                outer.may_answer.wait(30)
                to = json.loads(body)["data"]["to"]
                self.send_response(outer.statuses.get(to, outer.status))
                self.send_header("Location", outer.url)
                self.end_headers()
                self.wfile.write(body if outer.repeats else outer.body)

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"https://localhost:{self.port}{HOOK_PATH}"

    @contextmanager
    def running(self) -> Iterator[MailHook]:
        """Listen."""
        with serving(self._server):
            yield self
