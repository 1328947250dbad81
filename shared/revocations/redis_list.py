"""The list in Redis: sessions and users' epochs that were revoked in the last ten minutes.

Who is on it is looked up in the store, which decides. So whatever Redis says, or does not say,
nobody is let in whom the signature alone would not let in, and nobody is kept out. A key is a
keyed hash, and expires when no token from before the revocation is fresh any more.

Each exchange has a deadline of its own, far shorter than a request's. After one that failed Redis
is left alone for a while; then one caller asks again.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from redis import exceptions
from redis.connection import Connection

from shared.deadlines import call_within, remaining
from shared.model.sessions import FRESH_SECONDS, SKEW_SECONDS, Session
from shared.model.throttling import Pseudonyms
from shared.model.users import User
from shared.observe import log, metrics
from shared.observe.metrics import Gauge
from shared.revocations.url import RedisUrl

SECONDS = 0.05
"""For one exchange with Redis, including the connection where there is none."""
PAUSE = 5.0
"""Seconds for which nobody asks after an exchange that failed."""
KEPT_SECONDS = FRESH_SECONDS + SKEW_SECONDS
"""A token was issued before its revocation, by a clock that is ahead by no more than the skew."""
MAX_IDLE = 30.0
"""Seconds after which an idle connection may have been forgotten on the way."""
_MAX_ANSWER = 64 * 1024
"""Bytes that an exchange may receive, of a few dozen."""
_AT_ONCE, _PATIENCE = 500, 5.0
"""Users in one exchange, where there are many, and seconds for it."""
_MAX_CONNECTIONS = 64
"""That are kept idle: more than a process has threads."""

Command = tuple[str | int, ...]


class Revocations:
    """Reads and writes the list. Its methods raise nothing. Thread-safe."""

    def __init__(
        self,
        url: RedisUrl,
        secrets: Sequence[str],
        application: str = "",
        *,
        seconds: float = 0,
    ) -> None:
        """Connect to nothing yet. Of the secrets the first names sessions and users in keys.

        Several applications have keys of their own. A command gives more `seconds` than requests
        have.
        """
        self._prefix = ":".join(filter(None, ("ai-coder-auth", application, "revoked")))
        self._url = url
        self._seconds = seconds or SECONDS
        self._pseudonyms = Pseudonyms(secrets)
        self._context = (
            ssl.create_default_context(cafile=url.root_certificates) if url.tls else None
        )
        self._idle: deque[tuple[float, _Connection]] = deque(maxlen=_MAX_CONNECTIONS)
        self._changing = threading.Lock()
        self._paused_until = 0.0
        """A reading of `time.monotonic()`, while `since` is set."""
        self.since: float | None = None
        """When Redis was found to be away, in seconds since the Unix epoch; None if it is not."""

    def has(self, session: Session) -> bool:
        """Tell whether the session, or its user's epoch, is on the list; no if nobody can tell."""
        user = session.user
        keys = (self._session_key(session.sid), self._epoch_key(user))
        answers = self._ask("read", [("EXISTS", *keys)])
        return answers is not None and answers[0] > 0

    def add(self, *ended: Session | User) -> None:
        """Put sessions on the list, and users, for all sessions of the epochs that they have."""
        if ended:
            self._ask("write", self._writes(ended))

    def add_many(self, ended: Sequence[User]) -> str | None:
        """Do the same for many, for which only an operator waits; give what is wrong, or None."""
        try:
            for first in range(0, len(ended), _AT_ONCE):
                commands = self._writes(ended[first : first + _AT_ONCE])
                self._exchange(commands, time.monotonic() + _PATIENCE)
        except Exception as error:  # noqa: BLE001  # a false server can have its parser raise any
            return self._cause(error)
        return None

    def reach(self) -> bool:
        """Tell whether Redis answers, as far as it is asked now."""
        return self._ask("read", [("EXISTS", self._session_key(""))]) is not None

    def try_out(self) -> str | None:
        """Write and read a key that expires in a second; give what is wrong, or None."""
        key = self._session_key("")
        commands: list[Command] = [("SET", key, 1, "EX", 1), ("EXISTS", key)]
        try:
            answers = self._exchange(commands, time.monotonic() + self._seconds)
        except Exception as error:  # noqa: BLE001  # a false server can have its parser raise any
            return self._cause(error)
        return None if answers[1] == 1 else "it does not keep what it is given"

    def gauges(self) -> list[Gauge]:
        """Give the current value."""
        away = self.since is not None
        return [Gauge("revocation_list_away", "1 while Redis is left alone, else 0.", away)]

    def close(self) -> None:
        """Close the idle connections. The list can be used again."""
        while self._idle:
            self._idle.pop()[1].disconnect()

    def _writes(self, ended: Sequence[Session | User]) -> list[Command]:
        keys = {
            self._session_key(one.sid) if isinstance(one, Session) else self._epoch_key(one)
            for one in ended
        }
        return [("SET", key, 1, "EX", KEPT_SECONDS) for key in sorted(keys)]

    def _session_key(self, sid: str) -> str:
        return f"{self._prefix}:{self._pseudonyms.of(f'session {sid}')}"

    def _epoch_key(self, user: User) -> str:
        return f"{self._prefix}:{self._pseudonyms.of(f'epoch {user.epoch} of {user.id}')}"

    def _ask(self, operation: str, commands: list[Command]) -> list[Any] | None:
        """Give the answers; None where there is none, whatever the reason."""
        if not self._is_asked():
            metrics.REVOCATIONS.record(0, operation, "skipped")
            return None
        started = time.perf_counter()
        try:
            answers = self._exchange(commands, time.monotonic() + self._seconds)
        except Exception as error:  # noqa: BLE001  # a false server can have its parser raise any
            metrics.REVOCATIONS.record(time.perf_counter() - started, operation, "failed")
            self._fail(operation, error)
            return None
        metrics.REVOCATIONS.record(time.perf_counter() - started, operation, "ok")
        self._succeed()
        return answers

    def _exchange(self, commands: list[Command], deadline: float) -> list[Any]:
        """Send all, then read an answer each; a connection with any error is closed."""
        connection = self._idle_connection() or self._connected(deadline)
        try:
            connection.prolong(deadline)
            connection.send_packed_command(connection.pack_commands(commands))
            answers = [connection.read_response() for _ in commands]
            for (name, *_), answer in zip(commands, answers, strict=True):
                if type(answer) is not int if name == "EXISTS" else answer != b"OK":
                    raise exceptions.InvalidResponse
        except BaseException:
            connection.disconnect()
            raise
        self._idle.append((time.monotonic(), connection))
        return answers

    def _idle_connection(self) -> _Connection | None:
        while True:
            try:
                since, connection = self._idle.pop()
            except IndexError:
                return None
            if time.monotonic() - since < MAX_IDLE and not connection.has_news():
                return connection
            connection.disconnect()

    def _connected(self, deadline: float) -> _Connection:
        """Connect in a thread: the system's resolver knows no deadline."""
        connection = _Connection(self._url, self._context, deadline)
        call_within(remaining(deadline), connection.connect)
        return connection

    def _is_asked(self) -> bool:
        if self.since is None:
            return True
        with self._changing:
            now = time.monotonic()
            if now < self._paused_until:
                return False
            self._paused_until = now + PAUSE
            return True

    def _fail(self, operation: str, error: Exception) -> None:
        cause = self._cause(error)
        if operation == "write" and isinstance(error, exceptions.ResponseError):
            # It is there, and can be read.
            log.write("WARNING", "Redis refuses the list of revocations", cause=cause)
            return
        with self._changing:
            self._paused_until = time.monotonic() + PAUSE
            was_there = self.since is None
            self.since = self.since or time.time()
        if was_there:
            log.write("WARNING", "The list of revocations is away", cause=cause)

    def _succeed(self) -> None:
        if self.since is None:
            return
        with self._changing:
            since, self.since = self.since, None
        if since is not None:
            seconds = round(time.time() - since, 1)
            log.write("WARNING", "The list of revocations is there again", seconds=seconds)

    def _cause(self, error: Exception) -> str:
        """Say what is wrong without any text of the server's, which may repeat the password."""
        for kind, cause in _CAUSES:
            if isinstance(error, kind):
                return cause
        system = error.__context__
        if isinstance(system, ssl.SSLCertVerificationError):
            return f"its certificate cannot be trusted: {system.verify_message}"
        if isinstance(system, OSError):
            return f"the connection to {self._url.host} failed: {system.strerror or system}"
        if isinstance(error, exceptions.ConnectionError):
            return "it closed the connection"
        return f"its answer is not one of Redis's ({type(error).__name__})"


_CAUSES = (
    ((TimeoutError, exceptions.TimeoutError), "no answer in time"),
    (exceptions.AuthenticationError, "it refuses the user or the password of REDIS_URL"),
    (exceptions.OutOfMemoryError, "it is full (maxmemory)"),
    (exceptions.ReadOnlyError, "it is a replica, which takes no writes"),
    (exceptions.NoPermissionError, "its user needs the rights to EXISTS and SET on our keys"),
    (exceptions.MovedError, "it is a node of a cluster, which is not supported"),
    (exceptions.BusyLoadingError, "it is still loading its data"),
    (exceptions.ResponseError, "it refuses the command"),
)


class _Connection(Connection):
    """redis-py's, with one deadline for all that an exchange sends and receives."""

    def __init__(self, url: RedisUrl, context: ssl.SSLContext | None, deadline: float) -> None:
        super().__init__(  # type: ignore[no-untyped-call]  # it has no types
            url.host,
            url.port,
            db=url.database,
            username=url.user,
            password=url.password,
            protocol=2,
            driver_info=None,
            socket_timeout=remaining(deadline),
        )
        self._context = context
        self._deadline = deadline
        self._socket: _Socket | None = None

    def _connect(self) -> _Socket:
        sock: socket.socket = super()._connect()  # type: ignore[no-untyped-call]  # nor has this
        try:
            sock.settimeout(remaining(self._deadline))
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_hostname=self.host)
        except OSError:
            sock.close()
            raise
        self._socket = _Socket(sock, self._deadline)
        return self._socket

    def prolong(self, deadline: float) -> None:
        """Begin another exchange."""
        assert self._socket is not None, "it is connected"
        self._socket.begin(deadline)

    def has_news(self) -> bool:
        """Tell whether something has come unasked, such as the end."""
        return self._socket is None or self._socket.has_news()


class _Socket:
    """What redis-py uses of a socket."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self.begin(deadline)
        self.shutdown, self.close = sock.shutdown, sock.close

    def begin(self, deadline: float) -> None:
        """Begin an exchange, which ends with its deadline."""
        self._deadline, self._left = deadline, _MAX_ANSWER

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(remaining(self._deadline))
        self._sock.sendall(data)

    def recv(self, size: int) -> bytes:
        self._sock.settimeout(remaining(self._deadline))
        data = self._sock.recv(size)
        self._left -= len(data)
        if self._left < 0:
            raise OSError("the answer does not end")
        return data

    def has_news(self) -> bool:
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(0))
