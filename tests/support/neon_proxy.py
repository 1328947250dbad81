"""A server of SQL over HTTP before the tests' PostgreSQL, as Neon's proxy speaks it.

Written from what Neon publishes, and held to it by Neon's own driver (`neon_driver.mjs`); nothing
of it was compared with Neon itself. Without raw text only scalars and JSON are converted. A port in
the connection string, which Neon ignores, is that of the server to ask: a relay's, for one.
"""

from __future__ import annotations

import json
import select
import socket
import ssl
import struct
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from urllib.parse import unquote, urlsplit

import pg8000.core
import pg8000.exceptions

from tests.support.postgres import Server

MAX_BODY = 10 * 1024 * 1024
MAX_CONNECTIONS = 20
CONNECT_SECONDS = 15
IDLE_SECONDS = 300

_LEVELS = {
    "ReadUncommitted": "READ UNCOMMITTED",
    "ReadCommitted": "READ COMMITTED",
    "RepeatableRead": "REPEATABLE READ",
    "Serializable": "SERIALIZABLE",
}
_BOOL, _INTEGERS, _FLOATS, _JSON = 16, (21, 23), (700, 701), (114, 3802)
"""OIDs of types that are more than texts, unless raw text is asked for."""
_ERROR_FIELDS = {
    "message": "M",
    "code": "C",
    "detail": "D",
    "hint": "H",
    "position": "P",
    "internalPosition": "p",
    "internalQuery": "q",
    "severity": "S",
    "where": "W",
    "table": "t",
    "column": "c",
    "schema": "s",
    "dataType": "d",
    "constraint": "n",
    "file": "F",
    "line": "L",
    "routine": "R",
}
_LENGTH = struct.Struct("!i")
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_CANCEL = struct.pack("!ii", 16, 80877102)


class _Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        self.status, self.body = status, body
        super().__init__(str(body))


def _refusal(message: str, status: int = 400) -> _Refused:
    """Refuse in the proxy's own name: nothing but a message is known then."""
    return _Refused(status, dict.fromkeys(_ERROR_FIELDS) | {"message": message})


def _error(fields: dict[str, str]) -> _Refused:
    return _Refused(400, {name: fields.get(field) for name, field in _ERROR_FIELDS.items()})


class _Key(NamedTuple):
    """Whose connections are shared."""

    user: str
    password: str
    database: str
    port: int


class _Result(NamedTuple):
    fields: list[dict[str, Any]]
    rows: list[list[str | None]]
    tag: str

    def as_json(self, *, raw: bool, arrays: bool) -> dict[str, Any]:
        command, _, rest = self.tag.partition(" ")
        count = rest.split(" ")[-1]
        names = [field["name"] for field in self.fields]
        kinds = [0 if raw else field["dataTypeID"] for field in self.fields]
        rows = [list(map(_value, row, kinds)) for row in self.rows]
        return {
            "fields": self.fields,
            "rows": rows if arrays else [dict(zip(names, row, strict=True)) for row in rows],
            "command": command,
            "rowCount": int(count) if count.isdigit() else None,
            "rowAsArray": arrays,
        }


def _value(text: str | None, kind: int) -> Any:
    if text is None or text in ("NaN", "Infinity", "-Infinity"):
        return text
    if kind == _BOOL:
        return text == "t"
    if kind in _INTEGERS:
        return int(text)
    if kind in _FLOATS:
        return float(text)
    return json.loads(text) if kind in _JSON else text


def _text(value: Any) -> str | None:
    """Write a parameter as PostgreSQL reads it."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        return "{" + ",".join(map(_element, value)) + "}"
    return json.dumps(value)


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    return _text(value) or "" if isinstance(value, list) else json.dumps(_text(value))


class _Backend:
    """A session of PostgreSQL: stock pg8000 logs in, and these are the messages after that."""

    def __init__(self, key: _Key, context: ssl.SSLContext) -> None:
        plain = socket.create_connection(("127.0.0.1", key.port), CONNECT_SECONDS)
        try:
            plain.sendall(_SSL_REQUEST)
            if plain.recv(1) != b"S":
                raise ConnectionResetError("no TLS")
            plain = self._socket = context.wrap_socket(plain, server_hostname="localhost")
            self._session = pg8000.core.CoreConnection(
                key.user, database=key.database, password=key.password,
                sock=self._socket, ssl_context=False,
            )  # fmt: skip
        except BaseException:
            plain.close()
            raise
        self._socket.settimeout(None)
        self._port = key.port
        self._buffer = b""
        self._is_idle = True
        self.used_at = time.monotonic()

    def close(self) -> None:
        with suppress(OSError, pg8000.exceptions.Error):
            self._session.close()
        self._socket.close()

    def run(self, query: str, params: list[str | None], client: ssl.SSLSocket) -> _Result:
        """Run a statement with untyped parameters as texts, in one flight.

        Cancels it where the client hangs up. Raises _Refused, and OSError where the session ended.
        """
        texts = [None if text is None else text.encode() for text in params]
        values = b"".join(
            _LENGTH.pack(-1) if text is None else _LENGTH.pack(len(text)) + text for text in texts
        )
        self._socket.sendall(
            _message(b"P", b"\0" + query.encode() + b"\0\0\0")
            + _message(b"B", b"\0\0" + struct.pack("!hh", 0, len(texts)) + values + b"\0\0")
            + _message(b"D", b"P\0")
            + _message(b"E", b"\0" + bytes(4))
            + _message(b"S", b"")
        )
        return self._answer(client)

    def forget(self) -> None:
        """Make a new session of it. Raises _Refused and OSError where it cannot be used again."""
        for command in (b"ROLLBACK", b"DISCARD ALL")[self._is_idle :]:
            self._socket.sendall(_message(b"Q", command + b"\0"))
            self._answer(None)
        self.used_at = time.monotonic()

    def _answer(self, client: ssl.SSLSocket | None) -> _Result:
        fields: list[dict[str, Any]] = []
        rows: list[list[str | None]] = []
        tag, error = "", None
        while True:
            code, data = self._receive(client)
            if code == b"T":
                fields = _fields(data)
            elif code == b"D":
                rows.append(_row(data))
            elif code == b"C":
                tag = data[:-1].decode()
            elif code == b"E":
                error = {part[:1].decode(): part[1:].decode() for part in data.split(b"\0") if part}
                if error["S"] != "ERROR":
                    raise _error(error)
            elif code == b"Z":
                self._is_idle = data == b"I"
                if error:
                    raise _error(error)
                return _Result(fields, rows, tag)

    def _receive(self, client: ssl.SSLSocket | None) -> tuple[bytes, bytes]:
        head = self._take(5, client)
        return head[:1], self._take(_LENGTH.unpack(head[1:])[0] - 4, client)

    def _take(self, count: int, client: ssl.SSLSocket | None) -> bytes:
        while len(self._buffer) < count:
            if client is not None and not self._socket.pending():
                readable = select.select([self._socket, client], [], [])[0]
                if client in readable and self._socket not in readable:
                    self._cancel()  # Nothing but its end is to be heard of a client that waits.
                    client = None
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionResetError("the session ended")
            self._buffer += data
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def _cancel(self) -> None:
        with socket.create_connection(("127.0.0.1", self._port)) as cancelling:
            cancelling.sendall(_CANCEL + self._session._backend_key_data)
            cancelling.recv(1)


def _message(code: bytes, data: bytes) -> bytes:
    return code + _LENGTH.pack(len(data) + 4) + data


def _fields(data: bytes) -> list[dict[str, Any]]:
    fields, position = [], 2
    while position < len(data):
        end = data.index(b"\0", position)
        table, column, kind, size, modifier, _ = struct.unpack_from("!ihihih", data, end + 1)
        fields.append(
            {
                "name": data[position:end].decode(),
                "dataTypeID": kind,
                "tableID": table,
                "columnID": column,
                "dataTypeSize": size,
                "dataTypeModifier": modifier,
                "format": "text",
            }
        )
        position = end + 19
    return fields


def _row(data: bytes) -> list[str | None]:
    row: list[str | None] = []
    position = 2
    while position < len(data):
        (length,) = _LENGTH.unpack_from(data, position)
        position += 4
        row.append(None if length < 0 else data[position : position + length].decode())
        position += max(0, length)
    return row


class _Pool:
    """Sessions that are used again and keep nothing."""

    def __init__(self, server: Server) -> None:
        self._port = server.port
        self._context = ssl.create_default_context(cafile=str(server.authority.certificate))
        self._idle: dict[_Key, list[_Backend]] = defaultdict(list)
        self._changing = threading.Lock()
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)

    def close(self) -> None:
        with self._changing:
            for backend in (backend for idle in self._idle.values() for backend in idle):
                backend.close()
            self._idle.clear()

    @contextmanager
    def lease(self, connection_string: str) -> Iterator[_Backend]:
        """Give a session for one request. Raises _Refused."""
        key = self._read(connection_string)
        if not self._places.acquire(timeout=CONNECT_SECONDS):
            raise _refusal("Failed to acquire permit to connect to the database.", 500)
        try:
            backend = self._take(key) or self._connect(key)
            try:
                yield backend
            finally:
                self._give_back(key, backend)
        finally:
            self._places.release()

    def _give_back(self, key: _Key, backend: _Backend) -> None:
        if key.port != self._port:  # Behind a relay nothing is kept that would outlive a fault.
            backend.close()
            return
        try:
            backend.forget()
        except (_Refused, OSError):
            backend.close()
            return
        with self._changing:
            self._idle[key].append(backend)

    def _take(self, key: _Key) -> _Backend | None:
        with self._changing:
            while self._idle[key]:
                backend = self._idle[key].pop()
                is_over = select.select([backend._socket], [], [], 0)[0]
                if not is_over and time.monotonic() - backend.used_at < IDLE_SECONDS:
                    return backend
                backend.close()
        return None

    def _connect(self, key: _Key) -> _Backend:
        try:
            return _Backend(key, self._context)
        except pg8000.exceptions.DatabaseError as error:
            fields = error.args[0]
            if fields["C"] == "28P01":  # The proxy finds out by itself.
                raise _refusal(f"password authentication failed for user '{key.user}'") from None
            raise _error(fields) from None
        except (OSError, pg8000.exceptions.InterfaceError):
            raise _refusal("Couldn't connect to compute node", 500) from None

    def _read(self, text: str) -> _Key:
        try:
            parts = urlsplit(text)
            port = parts.port or self._port
        except ValueError:
            raise _refusal("invalid connection string") from None
        if parts.scheme not in ("postgres", "postgresql") or not parts.username:
            raise _refusal("invalid connection string")
        if parts.password is None:
            raise _refusal("missing password")
        user, password, database = (
            unquote(part) for part in (parts.username, parts.password, parts.path[1:])
        )
        return _Key(user, password, database or user, port)


class Request(NamedTuple):
    """What somebody asked, as it came."""

    path: str
    headers: dict[str, str]
    """By their names in lower case."""
    body: bytes


class Answer(NamedTuple):
    """What is said to it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @classmethod
    def json(cls, status: int, body: object) -> Answer:
        return cls(status, {"Content-Type": "application/json"}, json.dumps(body).encode())

    def wire(self) -> bytes:
        """Write it as HTTP does."""
        lines = [f"HTTP/1.1 {self.status} -", f"Content-Length: {len(self.body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


Fault = Callable[[ssl.SSLSocket, Callable[[], Answer]], None]
"""Does what it likes with a connection and the true answer, if it asks for that; what it raises
closes the connection."""


class Closing(Exception):
    """The connection is to be closed."""


def answering(answer: Answer) -> Fault:
    """Say this instead, and run nothing."""

    def fault(client: ssl.SSLSocket, _: Callable[[], Answer]) -> None:
        client.sendall(answer.wire())

    return fault


def raw(data: bytes) -> Fault:
    """Say these bytes, and hang up."""

    def fault(client: ssl.SSLSocket, _: Callable[[], Answer]) -> None:
        client.sendall(data)
        raise Closing

    return fault


def trickling(seconds: float = 0.05) -> Fault:
    """Say the true answer, with so many seconds between two of its bytes."""

    def fault(client: ssl.SSLSocket, answer: Callable[[], Answer]) -> None:
        for byte in answer().wire():
            client.sendall(bytes([byte]))
            time.sleep(seconds)

    return fault


def cut(client: ssl.SSLSocket, answer: Callable[[], Answer]) -> None:
    """Say half of the true answer, and hang up."""
    data = answer().wire()
    client.sendall(data[: len(data) - 20])
    raise Closing


def lost(client: ssl.SSLSocket, answer: Callable[[], Answer]) -> None:
    """Do what is asked, and hang up without a word."""
    answer()
    raise Closing


def hanging_up(client: ssl.SSLSocket, answer: Callable[[], Answer]) -> None:
    """Hang up without a word, and run nothing."""
    raise Closing


def closing_after(client: ssl.SSLSocket, answer: Callable[[], Answer]) -> None:
    """Give the true answer, and close a connection that was to be kept."""
    client.sendall(answer().wire())
    raise Closing


def saying_so(client: ssl.SSLSocket, answer: Callable[[], Answer]) -> None:
    """Give the true answer, and close with an announcement."""
    status, headers, body = answer()
    client.sendall(Answer(status, headers | {"Connection": "close"}, body).wire())
    raise Closing


def silent(seconds: float) -> Fault:
    """Say nothing for so long, and run nothing."""

    def fault(client: ssl.SSLSocket, _: Callable[[], Answer]) -> None:
        select.select([client], [], [], seconds)
        raise Closing

    return fault


STARTING = answering(Answer.json(500, {"message": "Couldn't connect to compute node"}))
HTML = answering(Answer(502, {"Content-Type": "text/html"}, b"<h1>Bad gateway</h1>"))


class NeonProxy:
    """The running server. `fault` befalls each request, and `faults` one request each before it."""

    def __init__(
        self, server: Server, *, certificate: tuple[Path, Path] | None = None, tickets: int = 0
    ) -> None:
        self.fault: Fault | None = None
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.connections = 0
        self.max_body = self.max_answer = MAX_BODY
        self._pool = _Pool(server)
        self._open: set[ssl.SSLSocket] = set()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(
            *certificate or server.authority.issue("neon", ("localhost", "127.0.0.1"))
        )
        # Nobody waits for tickets, and a relay would count them as an answer.
        self._context.num_tickets = tickets
        self._context.set_alpn_protocols(["http/1.1"])
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._http = _Threads(("127.0.0.1", 0), handler)
        self.port = int(self._http.server_address[1])
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/sql"

    @property
    def settings(self) -> dict[str, str]:
        """The variables with which requests go this way."""
        return {"DATABASE_TRANSPORT": "http", "DATABASE_HTTP_URL": self.url}

    def __enter__(self) -> NeonProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self.hang_up()
        self._http.server_close()
        self._pool.close()

    def hang_up(self) -> None:
        """Close every connection that is open."""
        for client in list(self._open):
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def answer(self, request: Request, client: ssl.SSLSocket) -> Answer:
        """Do what is asked, and give the answer."""
        headers = {"Neon-Request-Id": str(uuid.uuid4())}
        try:
            status, body = 200, self._run(request, client, headers)
        except _Refused as refused:
            status, body = refused.status, refused.body
        except OSError:
            status, body = 500, _refusal("error communicating with the compute node", 500).body
        answer = Answer.json(status, body)
        if status == 200 and len(answer.body) > self.max_answer:
            message = f"response is too large (max is {self.max_answer} bytes)"
            answer = Answer.json(507, _refusal(message, 507).body)
        return answer._replace(headers=answer.headers | headers)

    def _run(
        self, request: Request, client: ssl.SSLSocket, answered: dict[str, str]
    ) -> dict[str, Any]:
        sent = request.headers
        if request.path != "/sql":
            raise _Refused(404, {"msg": "not found"})
        if len(request.body) > self.max_body:
            message = f"request is too large (max is {self.max_body} bytes)"
            raise _Refused(413, _refusal(message).body)
        if "neon-connection-string" not in sent:
            raise _refusal("missing `neon-connection-string` header")
        try:
            body = json.loads(request.body)
            queries = body.get("queries", [body])
            asked = [_asked(**query) for query in queries]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _refusal("could not parse the HTTP request body") from None
        raw_text = sent.get("neon-raw-text-output") == "true"
        by_default = sent.get("neon-array-mode") == "true"
        forms = [
            {"raw": raw_text, "arrays": bool(query.get("arrayMode", by_default))}
            for query in queries
        ]
        begin = _begin(sent, answered) if "queries" in body else None
        with self._pool.lease(sent["neon-connection-string"]) as backend:
            results = self._results(backend, begin, asked, client)
        found = [result.as_json(**form) for result, form in zip(results, forms, strict=True)]
        return found[0] if begin is None else {"results": found}

    def _results(
        self,
        backend: _Backend,
        begin: str | None,
        asked: list[tuple[str, list[str | None]]],
        client: ssl.SSLSocket,
    ) -> list[_Result]:
        """Run one query, or a batch in one transaction; what is refused ends the session."""
        if begin is None:
            return [backend.run(*query, client) for query in asked]
        backend.run(begin, [], client)
        results = [backend.run(*query, client) for query in asked]
        backend.run("COMMIT", [], client)
        return results


def _asked(
    query: str,
    params: list[Any],
    arrayMode: bool | None = None,  # noqa: N803  # as the protocol has it
) -> tuple[str, list[str | None]]:
    """Read a statement and its parameters. Raises ValueError and TypeError."""
    texts = list(map(_text, params))
    if not isinstance(params, list) or "\0" in query:
        raise ValueError
    for text in (query, *texts):  # Half of a surrogate pair has no UTF-8.
        if text is not None:
            text.encode()
    return query, texts


def _begin(sent: dict[str, str], answered: dict[str, str]) -> str:
    """Write a batch's BEGIN from its headers, which are answered as well."""
    words = ["BEGIN"]
    if level := sent.get("neon-batch-isolation-level"):
        if level not in _LEVELS:
            raise _refusal("invalid value for `neon-batch-isolation-level`")
        words.append(f"ISOLATION LEVEL {_LEVELS[level]}")
        answered["Neon-Batch-Isolation-Level"] = level
    for name, word in (("Read-Only", "READ ONLY"), ("Deferrable", "DEFERRABLE")):
        if sent.get(f"neon-batch-{name.lower()}") == "true":
            words.append(word)
            answered[f"Neon-Batch-{name}"] = "true"
    return " ".join(words)


class _Threads(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that hang up, or do not like the certificate."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: ClassVar[NeonProxy]

    def setup(self) -> None:
        self.request.settimeout(30)
        self.request = self.proxy._context.wrap_socket(self.request, server_side=True)
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request.settimeout(None)
        self.proxy._open.add(self.request)
        self.proxy.connections += 1
        super().setup()

    def finish(self) -> None:
        self.proxy._open.discard(self.request)
        with suppress(OSError):
            super().finish()
        # The socket that the server closes was detached when TLS began.
        self.request.close()

    def do_POST(self) -> None:
        proxy = self.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.path, headers, body)
        proxy.requests.append(request)
        fault = proxy.faults.pop(0) if proxy.faults else proxy.fault

        def answer() -> Answer:
            return proxy.answer(request, self.request)

        try:
            if fault is None:
                self.request.sendall(answer().wire())
            else:
                fault(self.request, answer)
        except (Closing, OSError):
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""
