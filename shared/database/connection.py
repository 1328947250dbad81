"""One connection to Postgres: SCRAM, and statements in one flight.

No pg8000 error leaves this module: `faults` says what each becomes. Only logging in lets errors of
the socket through, to `connecting`.
"""

from __future__ import annotations

import io
import select
import struct
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from shared.database import server_errors, sqlstate
from shared.database.deadline_socket import DeadlineSocket
from shared.database.driver import pg8000, scramp
from shared.database.faults import (
    hung_up,
    is_timeout,
    login_translated,
    no_proof,
    refused_name,
    translated,
)
from shared.database.session import MAX_ANSWER, Row, Session, as_texts, milliseconds
from shared.database.statement import Statement, Value
from shared.database.url import DatabaseUrl
from shared.database.values import OURS
from shared.errors import StoreRefused

MAX_LOGIN = 64 * 1024
MAX_TRANSFER_ANSWER = 64 * 1024 * 1024
"""Bytes of all that a server says: at a login, and in answer to one flight of a transfer, which
fetches its rows by the thousand."""
MAX_ITERATIONS = 600_000
"""Of PBKDF2, for which a server may ask: tenths of a second in which no deadline counts.
PostgreSQL's default is 4,096, and OWASP's advice this."""

_OK, _CLEARTEXT, _MD5, _SASL, _SASL_CONTINUE, _SASL_FINAL = 0, 3, 5, 10, 11, 12
"""Authentication requests."""
_MECHANISMS = frozenset({b"SCRAM-SHA-256", b"SCRAM-SHA-256-PLUS"})
_LENGTH = struct.Struct("!i")

_NAMING_OBJECTS = (
    sqlstate.CLASS_FEATURE_NOT_SUPPORTED,
    sqlstate.CLASS_DEPENDENT_OBJECTS,
    sqlstate.CLASS_SYNTAX_OR_ACCESS,
)
"""Classes of errors whose DETAIL names objects of the schema, and no row."""


class _CopyBegins(Exception):
    """The server waits for the rows of a COPY."""


class _Answers(io.BufferedRWPair):
    """What the server says, up to `left` bytes: pg8000 believes every length that it is told."""

    left = MAX_LOGIN
    taken = 0
    """Bytes that were read from here, of those that the socket has received."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read so many bytes. Raises StoreRefused where they are too many."""
        if size is None or size < 0:
            raise StoreRefused(cause="the server gave an invalid message length")
        if size > self.left:
            raise StoreRefused(cause="the server's answer is longer than any expected answer")
        self.left -= size
        data = super().read(size)
        self.taken += len(data)
        return data


class PostgresSocket(DeadlineSocket):
    """A socket on which pg8000 reads and writes."""

    received = 0
    """Bytes of what the server has said."""

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        """Receive in the time that is left, and count."""
        size = super().recv_into(*args, **kwargs)
        self.received += size
        return size

    def makefile(self, *_: Any, **__: Any) -> _Answers:  # type: ignore[override]  # only pg8000's call
        """Give what pg8000 reads and writes."""
        raw = super().makefile("rwb", buffering=0)
        return _Answers(raw, raw)


class Connection(pg8000.core.CoreConnection, Session):  # type: ignore[misc]  # pg8000 has no types
    """A pg8000 connection that sends a parameterised statement in one flight with one Sync.

    pg8000's own way sends three flights with a Sync each. Behind a pooler in transaction mode the
    server may change at each Sync, and a client then reads another client's rows. This uses
    pg8000's internals, which is why its version is pinned.
    """

    completed = 0
    position: int | None = None
    detail: str | None = None
    """Of the last error, where it names objects and cannot quote a value."""
    max_answer = MAX_ANSWER
    """Bytes of the answer to what is sent in one flight."""

    def __init__(self, url: DatabaseUrl, tls: PostgresSocket) -> None:
        """Log in over an established TLS connection.

        Raises ConnectRetryable and StoreRefused for what the server or pg8000 says, TimeoutError
        past the deadline, and, as they are, GARBLED and what else befalls the socket.
        """
        self._tls = tls
        self._channel_binding_required = url.require_channel_binding
        self._is_logged_in = False
        Session.__init__(self, url.search_path)
        self._prepared: set[bytes] = set()
        self._parsing: deque[bytes] = deque()
        self._descriptions: dict[bytes, Any] = {}
        startup = {"client_encoding": "UTF8"}  # A role or a database may have another default.
        if url.options:
            startup["options"] = url.options
        with login_translated():
            pg8000.core.CoreConnection.__init__(
                self,
                user=url.user,
                password=url.password,
                database=url.database,
                application_name=url.application_name,
                startup_params=startup,
                sock=tls,
                ssl_context=False,
            )
        try:
            self._check_authentication()
        except StoreRefused:
            self.close()
            raise
        self._is_logged_in = True
        for oid, read in OURS.items():
            self.register_in_adapter(oid, read)

    def set_deadline(self, deadline: float) -> None:
        """Bound everything that follows by this reading of `time.monotonic()`.

        On the server, too: each statement brings along how long it may take, and inherits nothing
        from those before it. A script that begins a transaction is sent before there is one that
        could be bounded, and has the session's own limits.
        """
        self._tls.deadline = deadline

    def execute(
        self, statement: Statement | str, by_name: bool = False, /, **parameters: Value
    ) -> list[Row]:
        """Run one statement, or its SQL alone, and give its rows.

        Its settings go ahead of it in the same flight: a connection pooler drops `SET`, and both
        halves share the implicit transaction that ends with the Sync.

        With `by_name` both are parsed and planned once, and found by their names from then on.
        Raises NameRefused where that has failed; nothing has run then.
        """
        if isinstance(statement, str):
            statement = Statement("other", statement)
        texts, is_first = as_texts(statement, parameters), self.is_first
        # Rows are collected from the start, because the first one comes without a description.
        context = pg8000.core.Context(None, columns=[], input_funcs=[])
        with translated():
            self._parsing.clear()
            settings, values = self.before(self._tls.deadline, by_name=by_name)
            before = self._messages(
                settings, values, by_name=by_name and not is_first, describe=is_first
            )
            messages = self._messages(statement, texts, by_name=by_name, describe=True)
            self._sock.write(before + messages + pg8000.core.SYNC_MSG)
            self._sock.flush()
            try:
                self.handle_messages(context)
            except pg8000.exceptions.DatabaseError as error:
                if by_name and (refused := refused_name(error)):
                    raise refused from error
                if is_first:  # Its table may be missing in this schema only.
                    self.learn(context.rows)
                raise
        rows: list[Row] = context.rows
        if is_first:
            self.learn(rows)
        return rows[1:]

    @property
    def is_spoilt(self) -> bool:
        """Tell whether a name was given to a statement that could not be parsed.

        Poolers that share names by their statements were seen to hold it to be prepared.
        """
        return any(self._parsing)

    def _messages(
        self,
        statement: Statement,
        texts: Collection[bytes | None],
        *,
        by_name: bool = False,
        describe: bool = False,
    ) -> bytes:
        """Build Parse where it is needed, Bind, perhaps Describe(portal), and Execute."""
        name = statement.key if by_name else b""
        messages = b""
        if name not in self._prepared:
            self._parsing.append(name)
            messages = _create_message(b"P", name + b"\0" + statement.text.encode() + b"\0\0\0")
        return messages + _bind(name, texts, describe=describe)

    def handle_PARSE_COMPLETE(self, data: bytes, context: Any) -> None:  # noqa: ARG002, N802  # pg8000's name
        """Count the name as prepared only now."""
        if name := self._parsing.popleft():
            self._prepared.add(name)

    def handle_ROW_DESCRIPTION(self, data: bytes, context: Any) -> None:  # noqa: N802  # likewise
        """Read each description once: most are of statements that were described before."""
        known = self._descriptions.get(data)
        if known is None:
            super().handle_ROW_DESCRIPTION(data, context)
            self._descriptions[data] = context.input_funcs
            return
        context.input_funcs = known
        if context.rows is None:
            context.rows = []

    def run_script(self, sql: str) -> list[Row]:
        """Run statements without parameters, as one simple query.

        After an error of the server's, `completed` counts the statements that it had completed,
        and `position` is the character, from 1, at which it saw the error, where it tells.
        """
        with translated():
            limit = self._limit()
            self.completed, self.position, self.detail = -bool(limit), None, None
            try:
                rows: list[Row] = self.execute_simple(limit + sql).rows or []
            finally:
                if self.position is not None:
                    self.position -= len(limit)
            return rows

    @contextmanager
    def copy_in(self, statement: str) -> Iterator[Callable[[bytes], None]]:
        """Run a `COPY … FROM STDIN`, and give the function that sends a chunk of its rows.

        After an error inside the block the connection is good for nothing but closing.
        """
        context = pg8000.core.Context(statement, stream=_CopyBegins)
        with translated(), suppress(_CopyBegins):
            self.send_QUERY(self._limit() + statement)
            self._sock.flush()
            self.handle_messages(context)

        def send(chunk: bytes) -> None:
            with translated():
                self._sock.write(pg8000.core._create_message(pg8000.core.COPY_DATA, chunk))

        yield send
        with translated():
            self._sock.write(pg8000.core.COPY_DONE_MSG)
            self._sock.flush()
            self.handle_messages(context)

    def _limit(self) -> str:
        """Give what bounds the rest of a script; outside a transaction nothing could."""
        if self._transaction_status != pg8000.core.IN_TRANSACTION:
            return ""
        return f"SET LOCAL statement_timeout = {milliseconds(self._tls.deadline)}; "

    def handle_COPY_IN_RESPONSE(self, data: bytes, context: Any) -> None:  # noqa: N802  # pg8000's name
        """Give control back to `copy_in`; pg8000 would pull the rows out of a stream."""
        if context.stream is _CopyBegins:
            raise _CopyBegins
        super().handle_COPY_IN_RESPONSE(data, context)

    def is_stale(self) -> bool:
        """Tell whether the server has said something unasked, such as good-bye."""
        if self._tls.received > self._sock.taken or self._tls.pending():
            return True
        poll = select.poll()
        poll.register(self._tls, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Say good-bye if that takes no waiting, and close. Never raises."""
        self._tls.deadline = time.monotonic() + 0.05
        buffers = self._sock
        with suppress(OSError, ValueError, pg8000.exceptions.Error):  # Nothing is left to lose.
            pg8000.core.CoreConnection.close(self)
        if buffers is not None:
            with suppress(OSError, ValueError):
                # By hand: where a traceback still holds them, they would keep the socket open.
                buffers.close()
        self._tls.close()

    def handle_messages(self, context: Any) -> None:
        """Read the answer to one flight, as far as it is no longer than it may be."""
        self._sock.left = self.max_answer
        try:
            super().handle_messages(context)
        except (OSError, pg8000.exceptions.InterfaceError) as error:
            if context.error is None:
                raise
            raise hung_up(context.error, repeat=not is_timeout(error)) from error

    def handle_AUTHENTICATION_REQUEST(self, data: bytes, context: Any) -> None:  # noqa: N802  # pg8000's name
        """Answer SCRAM-SHA-256 and nothing else, whoever asks; see `_check_authentication`."""
        (request,) = struct.unpack_from("!i", data)
        if self._is_logged_in:
            raise ValueError("asked for the password again")
        if request == _SASL:
            offered = _MECHANISMS.intersection(data[4:].split(b"\0"))
            if self._channel_binding_required and b"SCRAM-SHA-256-PLUS" not in offered:
                raise _no_channel_binding()
            if not offered:
                raise _not_answered("offers no SCRAM-SHA-256")
            # pg8000 would take the strongest of all that are offered.
            data = data[:4] + b"\0".join(sorted(offered)) + b"\0\0"
            super().handle_AUTHENTICATION_REQUEST(data, context)
        elif request == _SASL_CONTINUE:
            try:
                self.auth.set_server_first(data[4:].decode())
                is_bearable = int(self.auth.iterations) <= MAX_ITERATIONS
            except scramp.ScramException as error:
                raise _no_challenge() from error
            if not is_bearable:
                raise _no_challenge()
            self._send_message(pg8000.core.PASSWORD, self.auth.get_client_final().encode())
            self._sock.flush()
        elif request in (_OK, _SASL_FINAL):
            super().handle_AUTHENTICATION_REQUEST(data, context)
        else:
            kinds = {_CLEARTEXT: "in clear text", _MD5: "as an MD5 hash"}
            raise _not_answered(f"asks for it {kinds.get(request, f'by method {request}')}")

    def handle_PARAMETER_STATUS(self, data: bytes, context: Any) -> None:  # noqa: ARG002, N802  # pg8000's
        """Refuse another encoding than was asked for; keep nothing, because nothing is needed."""
        name, _, value = data.partition(b"\0")
        encoding = value.rstrip(b"\0").upper().replace(b"-", b"")
        if name == b"client_encoding" and encoding != b"UTF8":
            raise StoreRefused(
                cause="the server speaks another client_encoding than UTF8, which it was asked for"
            )

    def handle_NOTICE_RESPONSE(self, data: bytes, context: Any) -> None:  # noqa: N802  # likewise
        """Keep none: nobody reads them."""

    def handle_NOTIFICATION_RESPONSE(self, data: bytes, context: Any) -> None:  # noqa: N802  # likewise
        """Keep none: nothing listens."""

    def handle_DATA_ROW(self, data: bytes, context: Any) -> None:  # noqa: N802  # likewise
        """Read a row, and refuse lengths that don't fit it; pg8000 would give what there is."""
        row: Row = []
        position = 2
        for convert in context.input_funcs:
            (length,) = _LENGTH.unpack_from(data, position)
            position += 4
            if length == -1:
                row.append(None)
                continue
            if length < 0:
                raise ValueError("a negative length")
            end = position + length
            row.append(convert(str(data[position:end], "utf-8")))
            position = end
        if context.input_funcs and position != len(data):
            raise ValueError("a row of another length")
        context.rows.append(row)

    def handle_COMMAND_COMPLETE(self, data: bytes, context: Any) -> None:  # noqa: N802  # likewise
        """Count it, because the server gives no position for an error while a statement runs."""
        self.completed += 1
        super().handle_COMMAND_COMPLETE(data, context)

    def handle_ERROR_RESPONSE(self, data: bytes, context: Any) -> None:  # noqa: N802  # likewise
        """Keep position and detail, whatever kind of error this becomes."""
        super().handle_ERROR_RESPONSE(data, context)
        fields = context.error.args[0]
        if "C" not in fields:
            raise ValueError("an error without a code")
        position = fields.get("P")
        self.position = int(position) if position else None
        # What a function raises may have any code.
        names_objects = fields["C"].startswith(_NAMING_OBJECTS) and not server_errors.is_raised(
            fields
        )
        self.detail = fields.get("D") if names_objects else None

    def _check_authentication(self) -> None:
        """Refuse a server that didn't prove itself; pg8000 would believe one that says yes."""
        auth = getattr(self, "auth", None)
        if auth is None:
            raise _not_answered(
                "let us in without it (trust, cert, or PgBouncer's auth_type = any)"
            )
        if auth.stage is not scramp.core.ClientStage.set_server_final:
            raise no_proof()
        if self._channel_binding_required and auth.mechanism_name != "SCRAM-SHA-256-PLUS":
            raise _no_channel_binding()


def _not_answered(deed: str) -> StoreRefused:
    return StoreRefused(
        cause=f"no password was sent: the server {deed}, and only SCRAM-SHA-256 is answered. "
        "PgBouncer needs auth_type = scram-sha-256; PostgreSQL needs scram-sha-256 in pg_hba.conf, "
        "and a password that was set with password_encryption = scram-sha-256"
    )


def _no_challenge() -> StoreRefused:
    least = scramp.core.IterationCount.MIN_ITERATION_COUNT
    return StoreRefused(
        cause="the server's challenge is not answered: SCRAM needs "
        f"{least} to {MAX_ITERATIONS} iterations and a nonce and a salt of the usual form"
    )


def _no_channel_binding() -> StoreRefused:
    return StoreRefused(
        cause="channel_binding=require, but the server did not offer it; no password was sent"
    )


_create_message = pg8000.core._create_message


def _bind(name: bytes, texts: Collection[bytes | None], *, describe: bool) -> bytes:
    """Build Bind, perhaps Describe, and Execute of the unnamed portal, in text format."""
    fields = b"".join(
        _LENGTH.pack(-1) if text is None else _LENGTH.pack(len(text)) + text for text in texts
    )
    parameters = struct.pack("!hh", 0, len(texts)) + fields
    flight: bytes = _create_message(b"B", b"\0" + name + b"\0" + parameters + b"\0\0")
    if describe:
        flight += _create_message(b"D", b"P\0")
    flight += pg8000.core.EXECUTE_MSG
    return flight
