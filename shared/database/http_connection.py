"""SQL over HTTP, as Neon's proxy speaks it: a statement is one POST on a connection kept alive.

Its settings and the statement are a batch, which is one transaction. No session lasts beyond it.
Nothing but texts and null are sent and asked for, so that both ends mean the same by them.
"""

from __future__ import annotations

import http.client
import json
import select
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn
from urllib.parse import quote

from shared.database import refusals, server_errors, sqlstate
from shared.database.deadline_socket import DeadlineSocket
from shared.database.driver import pg8000
from shared.database.endpoint import Endpoint
from shared.database.faults import ConnectionLost, ConnectRetryable, login_translated, translated
from shared.database.refusals import Refusal
from shared.database.session import MAX_ANSWER, STATEMENT_GRACE, Row, Session, as_texts
from shared.database.statement import Statement, Value
from shared.database.url import DEFAULT_PORT, DatabaseUrl
from shared.database.values import OURS
from shared.errors import StoreRefused, StoreUnreachable
from shared.formats.strict_json import InvalidJson, check_text, loads

_FIELDS = {
    "severity": "S",
    "code": "C",
    "message": "M",
    "where": "W",
    "schema": "s",
    "table": "t",
    "column": "c",
    "dataType": "d",
    "constraint": "n",
    "routine": "R",
}
"""The fields of PostgreSQL's protocol under which an error's members are known here."""
_READERS: dict[int, Callable[[str], Any]] = {**pg8000.converters.PG_TYPES, **OURS}
"""By the OID of a type; what has none here stays a text."""
_OF_LOGIN = (
    "28",  # invalid authorization
    "3D",  # no such database
    sqlstate.CLASS_SYNTAX_OR_ACCESS,
    sqlstate.CLASS_INSUFFICIENT_RESOURCES,
    sqlstate.CANNOT_CONNECT_NOW,
)
"""What is said of the proxy's own login, where it is fatal."""
_BUSY = (429, 503)
"""What the proxy, or what is ahead of it, says instead of doing anything."""
_BROKEN = (500, 502, 504)
"""What may have come in the midst of a statement."""
_TOO_LARGE = {413: "statement", 507: "answer"}
_CUT_OFF = "the answer was cut off"
_SHOWN = 200
"""Characters of a text that the proxy says itself."""
_STAYS_AWAKE = 60.0
"""Seconds after an answer in which no database is suspended; Neon's shortest is a minute."""


class HttpConnection(Session):
    """A connection to the proxy, as `shared.database.pool` leases it."""

    def __init__(
        self, url: DatabaseUrl, endpoint: Endpoint, statement_timeout: float, tls: DeadlineSocket
    ) -> None:
        """Use an established TLS connection; nothing is sent yet.

        A statement itself has `statement_timeout` seconds: its deadline may leave time for the
        database to start.
        """
        super().__init__(url.search_path)
        self._tls = tls
        self._path = endpoint.path
        self._statement_timeout = statement_timeout
        self._http = http.client.HTTPConnection(endpoint.host, endpoint.port)
        self._http.default_port = http.client.HTTPS_PORT  # Of what goes into Host.
        self._http.auto_open = 0  # Nobody else dials.
        self._http.sock = tls
        self._is_closing = self._was_answered = False
        self._headers = {
            "Content-Type": "application/json",
            "Neon-Connection-String": _connection_string(url),
            "Neon-Raw-Text-Output": "true",
            "Neon-Array-Mode": "true",
            "Neon-Batch-Isolation-Level": "ReadCommitted",
        }

    def set_deadline(self, deadline: float) -> None:
        """Bound what follows; the statement brings its own limit along."""
        self._tls.deadline = deadline

    def execute(
        self,
        statement: Statement | str,
        by_name: bool = False,  # noqa: ARG002  # the proxy keeps no names
        /,
        **parameters: Value,
    ) -> list[Row]:
        """Run one statement in a transaction of its own, and give its rows.

        Raises ConnectRetryable where the database is starting, or busy: nothing has run then.
        """
        if isinstance(statement, str):
            statement = Statement("other", statement)
        texts, is_first = as_texts(statement, parameters), self.is_first
        with translated():
            limit = time.monotonic() + self._statement_timeout + STATEMENT_GRACE
            settings, values = self.before(min(self._tls.deadline, limit), by_name=False)
            queries = [_query(settings, values), _query(statement, texts)]
            told, rows = _results(*self._exchange(json.dumps({"queries": queries}).encode()))
        self._was_answered = True
        if is_first:
            self.learn(told)
            self.told_isolation = ""  # A header has set it.
        return rows

    @property
    def is_spoilt(self) -> bool:
        """Whether the other end closes after its last answer."""
        return self._is_closing

    @property
    def may_start(self) -> bool:
        """Whether the database may have been suspended since the last answer."""
        return not self._was_answered or time.monotonic() - self.used_at > _STAYS_AWAKE

    def is_stale(self) -> bool:
        """Tell whether the other end has closed, or said something unasked."""
        poll = select.poll()
        poll.register(self._tls, select.POLLIN)
        return bool(self._tls.pending() or poll.poll(0))

    def close(self) -> None:
        """Close without a good-bye, which HTTP has not. Never raises."""
        with suppress(OSError):
            self._tls.close()

    def _exchange(self, body: bytes) -> tuple[int, bytes]:
        """Send a request, and read its answer to the end. Raises OSError and ValueError."""
        try:
            self._http.request("POST", self._path, body, self._headers)
            with self._http.getresponse() as response:
                data = response.read(MAX_ANSWER + 1)
                self._is_closing = response.will_close
                left = response.length
        except http.client.IncompleteRead as error:
            raise ConnectionAbortedError(_CUT_OFF) from error
        except OSError:  # Also RemoteDisconnected, which is an HTTPException.
            raise
        except http.client.HTTPException as error:
            raise ValueError(str(error)) from error
        if len(data) > MAX_ANSWER:
            raise StoreRefused(cause="the server's answer is longer than any expected answer")
        if left or (not data and response.status == 200):  # Headers may be cut off unnoticed.
            raise ConnectionAbortedError(_CUT_OFF)
        return response.status, data


def _connection_string(url: DatabaseUrl) -> str:
    """Write what the proxy connects with."""
    user, password, database = (
        quote(text, safe="") for text in (url.user, url.password, url.database)
    )
    host = f"[{url.host}]" if ":" in url.host else url.host
    port = "" if url.port == DEFAULT_PORT else f":{url.port}"
    options = f"?options={quote(url.options, safe='')}" if url.options else ""
    return f"postgresql://{user}:{password}@{host}{port}/{database}{options}"


def _query(statement: Statement, texts: Sequence[bytes | None]) -> dict[str, Any]:
    return {
        "query": statement.text,
        "params": [None if text is None else text.decode() for text in texts],
    }


def _results(status: int, data: bytes) -> tuple[list[Row], list[Row]]:
    """Read the rows of a batch of two. Raises what `translated` translates, and what it says."""
    if status != 200:
        _raise_from(status, data)
    try:
        answer = loads(data)
        check_text(answer)
    except InvalidJson as error:
        raise _not_spoken("HTTP 200") from error
    settings, statement = answer["results"]
    return _rows(settings), _rows(statement)


def _rows(result: dict[str, Any]) -> list[Row]:
    readers = [_READERS.get(field["dataTypeID"], str) for field in result["fields"]]
    return [_row(readers, texts) for texts in result["rows"]]


def _row(readers: Sequence[Callable[[str], Any]], texts: object) -> Row:
    if not isinstance(texts, list):
        raise TypeError("a row that is no array")
    row = []
    for read, text in zip(readers, texts, strict=True):
        if not isinstance(text, str | None):
            raise TypeError("a value that is no text")
        try:
            row.append(None if text is None else read(text))
        except ArithmeticError as error:  # What decimal makes of other texts.
            raise ValueError("a value that is no number") from error
    return row


def _raise_from(status: int, data: bytes) -> NoReturn:
    """Say what an answer other than 200 means."""
    if what := _TOO_LARGE.get(status):
        raise StoreRefused(cause=f"SQL over HTTP takes no {what} as long as this (HTTP {status})")
    said = _said(data)
    if status == 400 and said.get("code"):
        _raise_postgres({_FIELDS[name]: text for name, text in said.items() if name in _FIELDS})
    text = said.get("message", said.get("msg", ""))[:_SHOWN]
    cause = f"HTTP {status} {text}".rstrip()
    refusal = refusals.of_pooler(sqlstate.INTERNAL_ERROR, text)
    if refusal is Refusal.STARTING:
        raise ConnectRetryable(cause, starting=True)
    if refusal is not Refusal.FINAL and status in _BROKEN:
        raise ConnectionLost(StoreUnreachable(cause=cause))
    if refusal is Refusal.BUSY or status in _BUSY:
        raise ConnectRetryable(cause)
    if text:
        raise StoreRefused(cause=refusals.with_remedy(f"the server refused the request: {cause}"))
    raise _not_spoken(cause)


def _raise_postgres(fields: dict[str, str]) -> NoReturn:
    error = pg8000.exceptions.DatabaseError(fields)
    if server_errors.is_fatal(fields) and fields["C"].startswith(_OF_LOGIN):
        with login_translated():
            raise error
    raise error


def _not_spoken(cause: str) -> StoreRefused:
    return StoreRefused(
        cause=f"{cause}: what answers there does not speak SQL over HTTP. Is DATABASE_HTTP_URL "
        "its URL?"
    )


def _said(data: bytes) -> dict[str, str]:
    """Read the members of an error that are texts; nothing, where it is somebody else's."""
    try:
        found = loads(data)
        check_text(found)
    except InvalidJson:
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: text for name, text in found.items() if isinstance(text, str)}
