"""What may go wrong on a connection, and what it means: each fault as an error of ours.

A `StoreUnavailable` has a cause for the log, a `StoreFault` a SQLSTATE; `ConnectionLost` and
`ConnectRetryable` are what `pool` answers with another attempt.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

from shared.database import refusals, server_errors, sqlstate
from shared.database.driver import pg8000, scramp
from shared.database.refusals import Refusal
from shared.errors import StoreFault, StoreRefused, StoreTimeout, StoreUnavailable, StoreUnreachable

_LOST = frozenset(
    {
        sqlstate.ADMIN_SHUTDOWN,
        sqlstate.CRASH_SHUTDOWN,
        sqlstate.CANNOT_CONNECT_NOW,
        sqlstate.IDLE_SESSION_TIMEOUT,
        sqlstate.CONNECTION_DOES_NOT_EXIST,
        sqlstate.CONNECTION_FAILURE,
    }
)
"""The server ended the connection: a statement that may be repeated is repeated on a new one."""
_REPEATABLE = frozenset(
    {
        sqlstate.SERIALIZATION_FAILURE,
        sqlstate.DEADLOCK_DETECTED,
        sqlstate.INVALID_SQL_STATEMENT_NAME,
        sqlstate.INVALID_CURSOR_NAME,
    }
)
"""Nothing was done. The last two come of a pooler that sent one flight to several servers."""
_NAME_REFUSALS = frozenset(
    {sqlstate.INVALID_SQL_STATEMENT_NAME, sqlstate.DUPLICATE_PREPARED_STATEMENT}
)
"""What a pooler makes of a name that it does not keep: another server has not heard of it, or has
heard of it already."""
_OF_TYPES = frozenset(
    {
        sqlstate.NUMERIC_VALUE_OUT_OF_RANGE,
        sqlstate.INVALID_DATETIME_FORMAT,
        sqlstate.INVALID_TEXT_REPRESENTATION,
        sqlstate.DATATYPE_MISMATCH,
        sqlstate.CANNOT_COERCE,
        sqlstate.UNDEFINED_FUNCTION,
        sqlstate.INTERNAL_ERROR,
    }
)
"""What is said, too, where a column has another type than when a statement was parsed, because its
parameters keep the types that they had then."""
_SCHEMA = frozenset(
    {sqlstate.INVALID_SCHEMA_NAME, sqlstate.INSUFFICIENT_PRIVILEGE, sqlstate.UNDEFINED_COLUMN}
)
"""For the operator to mend."""
_TOO_LONG = frozenset({sqlstate.QUERY_CANCELED, sqlstate.TRANSACTION_TIMEOUT})
"""The server ended what took too long, and says nothing of the others' statements."""
_UNAVAILABLE = (
    sqlstate.CLASS_CONNECTION_EXCEPTION,
    sqlstate.CLASS_INSUFFICIENT_RESOURCES,
    sqlstate.CLASS_OPERATOR_INTERVENTION,
    sqlstate.READ_ONLY_SQL_TRANSACTION,
    sqlstate.LOCK_NOT_AVAILABLE,
)
"""Classes and codes that say "not now" rather than "never"."""

GARBLED = (struct.error, ValueError, KeyError, IndexError, AttributeError, TypeError)
"""What pg8000 makes of bytes that are not the protocol's."""


class ConnectionLost(Exception):
    """The statement has no answer; `repeat` tells whether another connection may give one.

    `error` is what to raise where it may not, or did not.
    """

    def __init__(self, error: StoreUnavailable, *, repeat: bool = True) -> None:
        """`repeat` is false where time has run out."""
        self.error = error
        self.repeat = repeat
        super().__init__(error.cause)


class ConnectRetryable(Exception):
    """Dialing failed in a way that another attempt may mend; `starting` says that it will."""

    def __init__(self, cause: str, *, starting: bool = False) -> None:
        """`cause` is for the log."""
        self.starting = starting
        super().__init__(cause)


class NameRefused(Exception):
    """The server, or a pooler, would not run a statement by its name; nothing has run."""

    def __init__(self, cause: str, *, is_plan: bool) -> None:
        """`is_plan` tells that it may be this statement's plan alone, which is out of date."""
        self.is_plan = is_plan
        super().__init__(cause)


@contextmanager
def login_translated() -> Iterator[None]:
    """Turn what pg8000 says of a login into errors of ours, or into the timeout that it was."""
    try:
        yield
    except pg8000.exceptions.DatabaseError as error:
        code, message = _code(error), _message(error)
        refusal = refusals.of_login(code, message)
        if refusal is not Refusal.FINAL:
            starting = refusal is Refusal.STARTING
            raise ConnectRetryable(f"{code} {message}", starting=starting) from error
        cause = refusals.with_remedy(f"the server refused the connection: {code} {message}")
        raise StoreRefused(cause=cause) from error
    except scramp.ScramException as error:
        raise no_proof() from error
    except pg8000.exceptions.Error as error:
        if is_timeout(error):
            raise TimeoutError("the deadline has passed") from error
        raise ConnectRetryable(describe(error)) from error


@contextmanager
def translated() -> Iterator[None]:
    """Turn what goes wrong between a statement and its answer into errors of ours."""
    try:
        yield
    except pg8000.exceptions.DatabaseError as error:
        code, fields = _code(error), _fields(error)
        fault = StoreFault(code, _message(error), **server_errors.objects(fields))
        if server_errors.is_raised(fields):
            raise fault from error
        cause, facts = f"{code} {fault.text}", fault.facts
        if code in _LOST and server_errors.is_fatal(fields):
            raise ConnectionLost(StoreUnreachable(cause=cause, **facts)) from error
        if code in _REPEATABLE:
            raise ConnectionLost(StoreUnavailable(cause=cause, **facts)) from error
        if code in _SCHEMA:
            raise StoreRefused(cause=cause, **facts) from error
        if code in _TOO_LONG:
            raise StoreTimeout(cause=cause, **facts) from error
        if code.startswith(_UNAVAILABLE):
            raise StoreUnavailable(cause=cause, **facts) from error
        raise fault from error
    except (OSError, pg8000.exceptions.Error) as error:
        away = StoreUnreachable(cause=describe(error))
        raise ConnectionLost(away, repeat=not is_timeout(error)) from error
    except GARBLED as error:
        cause = f"the answer could not be read ({type(error).__name__})"
        raise ConnectionLost(StoreUnavailable(cause=cause)) from error


def hung_up(
    last: pg8000.exceptions.DatabaseError, *, repeat: bool
) -> ConnectionLost | StoreUnavailable:
    """Tell what an error means after which the server, or a pooler, hung up."""
    code, message = _code(last), _message(last)
    cause = f"{code} {message}"
    if code == sqlstate.TRANSACTION_TIMEOUT:
        return StoreTimeout(cause=cause)
    if refusals.of_pooler(code, message) is Refusal.FINAL:
        return StoreRefused(cause=refusals.with_remedy(cause))
    return ConnectionLost(StoreUnreachable(cause=cause), repeat=repeat)


def _fields(error: pg8000.exceptions.DatabaseError) -> dict[str, str]:
    fields = error.args[0]
    return fields if isinstance(fields, dict) else {}


def _code(error: pg8000.exceptions.DatabaseError) -> str:
    return _fields(error).get("C", sqlstate.INTERNAL_ERROR)


def _message(error: pg8000.exceptions.DatabaseError) -> str:
    return server_errors.message(_fields(error)) or "message withheld"


def describe(error: BaseException) -> str:
    """Name what went wrong for the log: what pg8000 wrapped rather than its wrapping."""
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {getattr(cause, 'strerror', None) or cause}"


def is_timeout(error: BaseException) -> bool:
    """Tell whether time ran out, which pg8000 wraps."""
    return isinstance(error, TimeoutError) or isinstance(error.__cause__, TimeoutError)


def no_proof() -> StoreRefused:
    """Make the error for a server that failed SCRAM."""
    return StoreRefused(cause="the server did not prove that it knows the password")


def refused_name(error: pg8000.exceptions.DatabaseError) -> NameRefused | None:
    """Tell whether an error is about a statement's name, or may be about what is kept under it."""
    code, fields = _code(error), _fields(error)
    may_be_outdated = fields.get("R") == "RevalidateCachedQuery" or (
        code in _OF_TYPES and not server_errors.is_raised(fields)
    )
    if (
        code in _NAME_REFUSALS
        or may_be_outdated
        or (code == sqlstate.PROTOCOL_VIOLATION and "prepared statement" in _message(error))
    ):
        return NameRefused(f"{code} {_message(error)}", is_plan=may_be_outdated)
    return None
