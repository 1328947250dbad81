"""gunicorn as functions-framework starts it, with limits, and threads that no client can block.

gunicorn's own worker gives a connection a thread with its first byte, and has no deadline for the
rest. Here the main loop collects a request (`framing`), and a thread gets it when it is all there:
the head, and a body of up to 16 KiB. A longer one is read by its function, which first asks
who sends it. Requests that gunicorn refuses are answered and logged like every error.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import select
import selectors
import signal
import socket
import struct
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from email.utils import formatdate
from enum import Enum, auto
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import functions_framework._http.gunicorn as framework
from gunicorn import glogging
from gunicorn.http import errors as gunicorn_errors
from gunicorn.http import get_parser
from gunicorn.workers import base
from gunicorn.workers.gthread import TConn, ThreadWorker
from gunicorn.workers.workertmp import WorkerTmp

from shared.errors import HttpError
from shared.observe import log
from shared.web import cookies, flask_app, framing, listening

if TYPE_CHECKING:
    from shared.application import Application
from shared.web.framing import Arrival, Arriving

LINGER_SECONDS = 2.0
"""For a client to read its answer before its further data resets the connection."""
LINGER_BYTES = 16 * 1024 * 1024
"""Bytes of such data that are discarded."""

_RECEIVED = 32 * 1024
"""Bytes read from a connection at once."""
_UNREAD = 256 * 1024
"""Bytes of answers that the kernel buffers: more than the longest unstreamed answer."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_SEVERITIES: dict[str, log.Severity] = {
    "CRITICAL": "CRITICAL",
    "ERROR": "ERROR",
    "WARNING": "WARNING",
}


def install(app: Application) -> None:
    """Make functions-framework serve an application with this module's server.

    There is no setting for it: it looks the class up by name when it begins to serve, which is
    after it has loaded main.py.
    """
    Server.served = app
    framework.GunicornApplication = Server  # type: ignore[misc]  # a class is replaced
    base.WorkerTmp = Heartbeat


class Server(framework.GunicornApplication):
    """functions-framework's gunicorn application, with the limits that it removes or omits."""

    served: Application

    def __init__(self, app: object, host: str, port: int, debug: bool, **options: object) -> None:
        """Raise CannotListen if it could not serve."""
        self._where = (host, port)
        # Sockets that systemd or a predecessor hands over are in use already.
        if not os.environ.keys() & {"LISTEN_FDS", "GUNICORN_FD"}:
            options["bind"] = listening.addresses(host, port)
        super().__init__(app, host, port, debug, **options)  # type: ignore[no-untyped-call]  # it has no types

    def load_config(self) -> None:
        """Add to its options, and set them."""
        self.options |= {
            "worker_class": Worker,
            "logger_class": Logger,
            "limit_request_line": framing.MAX_LINE,
            "limit_request_fields": framing.MAX_FIELDS,
            "limit_request_field_size": framing.MAX_FIELD,
            "http_parser": "python",
            "http_protocols": "h1",
            "http2_cleartext": "off",
            "proxy_protocol": "off",
            # It would be a socket in the home directory, which two instances may share.
            "control_socket_disable": True,
            "post_worker_init": self._announce,
        }
        super().load_config()  # type: ignore[no-untyped-call]  # it has no types

    def run(self) -> None:
        """Serve until a signal says otherwise; none is lost in a fork.

        A new worker has the arbiter's handlers, which tell nobody there, until it has its own: a
        signal at that time would be waited for until gunicorn's grace of 30 seconds is over.
        """
        os.register_at_fork(
            before=partial(signal.pthread_sigmask, signal.SIG_BLOCK, _STOPS),
            after_in_parent=partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, _STOPS),
        )
        try:
            super().run()
        finally:
            log.end()

    def _announce(self, worker: Worker) -> None:
        if worker.age == 1:
            apps = self.served.applications or [self.served]
            listening.announce([app.settings for app in apps], *self._where)


class Heartbeat(WorkerTmp):  # type: ignore[misc]  # gunicorn has no types
    """The file whose time tells that a worker lives; in memory, so that none is written."""

    def __init__(self, cfg: Any) -> None:
        """Make a file without a name, where the system has such."""
        self._next = 0.0
        try:
            self._tmp = os.fdopen(os.memfd_create("worker"), "w+b", 0)
        except (AttributeError, OSError):
            super().__init__(cfg)

    def notify(self) -> None:
        """Tell it once a second, rather than with each event."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + 1
            super().notify()


class Phase(Enum):
    """What a connection without a thread is waiting for."""

    IDLE = auto()
    """The first byte of a request."""
    ARRIVING = auto()
    """The rest of the request."""
    UNREAD = auto()
    """The client to read earlier answers before the next request is served."""
    LINGERING = auto()
    """The client to read the last answer and close."""


class Connection(TConn):  # type: ignore[misc]  # gunicorn has no types
    """A client's connection."""

    def __init__(
        self, cfg: Any, sock: socket.socket, client: tuple[Any, ...], server: tuple[Any, ...]
    ) -> None:
        """Start without a request."""
        super().__init__(cfg, sock, client, server)
        # The main loop says with each call that it does not wait, which costs no system call.
        sock.setblocking(True)
        self.parser = get_parser(cfg, sock, client)
        self.phase: Phase | None = None
        """None while it has a thread."""
        self.arriving = Arriving()
        self.is_continued = False
        """Whether `100 Continue` was sent for the request."""
        self.is_last = False
        """Whether the end of the request is unknown, so that no other may follow."""
        self.discarded = 0


class Worker(ThreadWorker):  # type: ignore[misc]  # likewise
    """A main loop that owns connections until their requests arrive, and threads to answer."""

    worker_connections: int

    def __init__(self, *arguments: Any) -> None:
        """Take the settings' deadlines."""
        super().__init__(*arguments)
        settings = self.app.served.settings.web
        self._seconds = {
            Phase.IDLE: settings.keep_alive_timeout,
            Phase.ARRIVING: settings.request_timeout,
            Phase.UNREAD: settings.request_timeout,
            Phase.LINGERING: LINGER_SECONDS,
        }
        seconds, rest = divmod(settings.stream_timeout, 1)
        self._timeout = struct.pack("ll", int(seconds), int(rest * 1_000_000))
        """Of each call that reads from a connection or writes to it, in a thread."""
        self._waiting: dict[Phase, dict[Connection, float]] = {phase: {} for phase in Phase}
        """The connections of each phase with their deadlines, earliest first."""
        self._latest = float("inf")
        """The common deadline after the process was told to stop."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if files != resource.RLIM_INFINITY:
            # The database's connections and the users file need descriptors as well.
            self.worker_connections = min(self.worker_connections, files // 2)

    def init_signals(self) -> None:
        """Take the signals that came since the fork."""
        super().init_signals()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)

    def accept(self, listener: socket.socket) -> None:
        """Accept a connection; if there are too many, close the one that has waited longest."""
        try:
            sock, client = listener.accept()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNREAD)
            # The kernel's, because Python's own cost a system call before each.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, self._timeout)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, self._timeout)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED):
                self._make_room()
            return
        self.nr_conns += 1
        if self.nr_conns >= self.worker_connections:
            self._make_room()
        self._await_request(Connection(self.cfg, sock, client, listener.getsockname()))

    def handle(self, conn: Connection) -> bool:
        """Serve a request in a thread; tell whether another may follow."""
        request = None
        try:
            request = next(conn.parser)
            request.headers = cookies.in_one_field(request.headers)
            if conn.is_last:
                request.force_close()
            if conn.is_continued:
                request._expected_100_continue = False
            is_open = bool(self.handle_request(request, conn))
        except (OSError, StopIteration):
            return False  # The client is gone, or has been too slow.
        except Exception as error:  # noqa: BLE001  # what gunicorn itself refuses or fails at
            self.handle_error(request, conn.sock, conn.client, error)
            return False
        if not conn.arriving.is_without_body:
            try:
                is_open = bool(self._keepalive_after(conn, is_open))
            except Exception:  # noqa: BLE001  # what nobody has read of a body may be malformed
                return False  # Its request has had its answer.
        conn.parser.mesg = None  # Or its body would be looked at once more before the next request.
        return is_open

    def finish_request(self, conn: Connection, future: Future[bool]) -> None:
        """Wait for the next request, or for the client to read the last answer."""
        if not future.cancelled() and future.exception() is None and future.result():
            self._await_request(conn)
        else:
            self._linger(conn)

    def handle_error(self, req: Any, client: socket.socket, _: object, exc: Exception) -> None:
        """Answer and log a request that reaches no function."""
        method = getattr(req, "method", None) or ""
        response = flask_app.refusal(self.app.served, _described(exc), method)
        fields = {
            "Date": formatdate(usegmt=True),
            "Connection": "close",
            **response.headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        # A client that has not read what came before is not waited for.
        with suppress(OSError):
            client.send(
                f"HTTP/1.1 {response.status}\r\n{head}\r\n".encode("latin-1") + response.get_data(),
                socket.MSG_DONTWAIT,
            )

    def murder_keepalived(self, force: bool = False) -> None:
        """Close connections after their deadlines, or all waiting ones."""
        now = time.monotonic()
        for phase, waiting in self._waiting.items():
            while waiting:
                conn, deadline = next(iter(waiting.items()))
                if deadline > now and not force:
                    break
                if phase is Phase.ARRIVING and not force:
                    late = HttpError(408, "request_timeout", "The request did not arrive in time")
                    self._refuse(conn, late)
                else:
                    self._drop(conn)

    def _cap_keepalive(self, deadline: float) -> None:
        self._latest = deadline
        for waiting in self._waiting.values():
            waiting.update({conn: min(until, deadline) for conn, until in waiting.items()})

    def _await_request(self, conn: Connection) -> None:
        conn.arriving, conn.is_continued, conn.is_last = Arriving(), False, False
        self._wait(conn, Phase.IDLE, selectors.EVENT_READ, self._receive)
        if data := conn.parser.unreader.take_buffered():
            self._take(conn, data)

    def _receive(self, conn: Connection, sock: socket.socket) -> None:
        data = _received(sock)
        if data:
            self._take(conn, data)
        elif data is not None and conn.arriving.has_head:
            conn.is_last = True
            self._submit(conn)  # Its function tells the client that the body has broken off.
        elif data is not None:
            self._drop(conn)

    def _take(self, conn: Connection, data: bytes) -> None:
        try:
            arrival = conn.arriving.add(data)
        except HttpError as error:
            self._refuse(conn, error)
            return
        if arrival is not Arrival.PARTIAL:
            conn.is_last = arrival is Arrival.LARGE
            self._submit(conn)
            return
        if conn.phase is Phase.IDLE:
            self._enter(conn, Phase.ARRIVING)
        if conn.arriving.expects_continue and not conn.is_continued:
            conn.is_continued = True
            with suppress(OSError):
                conn.sock.send(_CONTINUE, socket.MSG_DONTWAIT)

    def _submit(self, conn: Connection, _: object = None) -> None:
        if conn.parser.req_count and not _is_writable(conn.sock):
            self._wait(conn, Phase.UNREAD, selectors.EVENT_WRITE, self._submit)
            return
        self._release(conn)
        conn.parser.unreader.unread(bytes(conn.arriving.data))
        self.enqueue_req(conn)

    def _refuse(self, conn: Connection, error: HttpError) -> None:
        self.handle_error(None, conn.sock, conn.client, error)
        self._linger(conn)

    def _linger(self, conn: Connection) -> None:
        # Closed at once, a connection with unread bytes is reset, and the client's kernel may
        # throw the answer away with it (RFC 9112, section 9.6).
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._drop(conn)
        else:
            self._wait(conn, Phase.LINGERING, selectors.EVENT_READ, self._discard)

    def _discard(self, conn: Connection, sock: socket.socket) -> None:
        data = _received(sock)
        conn.discarded += len(data or b"")
        if data == b"" or conn.discarded > LINGER_BYTES:
            self._drop(conn)

    def _make_room(self) -> None:
        longest = [
            (deadline - self._seconds[phase], conn)
            for phase, waiting in self._waiting.items()
            for conn, deadline in islice(waiting.items(), 1)
        ]
        if longest:
            self._drop(min(longest, key=itemgetter(0))[1])

    def _wait(
        self,
        conn: Connection,
        phase: Phase,
        event: int,
        callback: Callable[[Connection, socket.socket], None],
    ) -> None:
        self._release(conn)
        self.poller.register(conn.sock, event, partial(self._ready, conn, callback))
        self._enter(conn, phase)

    def _ready(
        self,
        conn: Connection,
        callback: Callable[[Connection, socket.socket], None],
        sock: socket.socket,
    ) -> None:
        # One that was dropped meanwhile may be among the events that were fetched before.
        if conn.phase is not None:
            callback(conn, sock)

    def _enter(self, conn: Connection, phase: Phase) -> None:
        if conn.phase is not None:
            del self._waiting[conn.phase][conn]
        conn.phase = phase
        deadline = time.monotonic() + self._seconds[phase]
        self._waiting[phase][conn] = min(deadline, self._latest)

    def _release(self, conn: Connection) -> None:
        if conn.phase is not None:
            self.poller.unregister(conn.sock)
            del self._waiting[conn.phase][conn]
            conn.phase = None

    def _drop(self, conn: Connection) -> None:
        self._release(conn)
        self.nr_conns -= 1
        conn.close()


class Logger(glogging.Logger):  # type: ignore[misc]  # likewise
    """gunicorn's own log lines as JSON."""

    def setup(self, cfg: Any) -> None:
        """Write them with `shared.observe.log`."""
        super().setup(cfg)
        self.error_log.handlers = [_Handler()]


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, object] = {}
        if record.exc_info and record.exc_info[0]:
            # Not its text, which might quote what must not be logged.
            fields["exception"] = record.exc_info[0].__qualname__
            fields["stack"] = traceback.format_tb(record.exc_info[2])
        log.write(_SEVERITIES.get(record.levelname, "INFO"), record.getMessage(), **fields)


def _received(sock: socket.socket) -> bytes | None:
    """Give received data, b"" at the end, None if there is none yet."""
    try:
        return sock.recv(_RECEIVED, socket.MSG_DONTWAIT)
    except (BlockingIOError, InterruptedError):
        return None
    except OSError:
        return b""


def _is_writable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    return bool(poll.poll(0))


def _described(error: Exception) -> Exception:
    """Translate gunicorn's errors about requests; return others unchanged."""
    match error:
        case gunicorn_errors.LimitRequestLine():
            return framing.line_too_long()
        case gunicorn_errors.LimitRequestHeaders():
            return framing.head_too_large()
        case gunicorn_errors.UnsupportedTransferCoding():
            return HttpError(501, "not_implemented", "The transfer coding must be chunked")
        case gunicorn_errors.ExpectationFailed():
            return HttpError(417, "expectation_failed", "Only 100-continue can be expected")
        case (
            gunicorn_errors.InvalidResponseHeader()
            | gunicorn_errors.InvalidResponseHeaderName()
            | gunicorn_errors.ConfigurationProblem()
        ):
            pass  # Not about the request.
        case gunicorn_errors.ParseException():
            return HttpError(400, "bad_request", "The request is not valid HTTP")
    return error
