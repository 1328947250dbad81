"""The baselines ("floors"): the minimum of work under functions-framework, without our code.

Each imports what it needs itself and only when first called, so that none of them pays for another.
"""

from __future__ import annotations

import functools
import json
from typing import Any

import flask

_USER = json.dumps(
    {
        "id": "00000000-0000-4000-8000-000000000000",
        "email": "cost4-0@example.com",
        "name": None,
        "provider": "local",
    }
)


def hello(request: flask.Request) -> flask.Response:  # noqa: ARG001  # functions-framework's form
    """Answer with a constant as long as a user."""
    return flask.Response(_USER, content_type="application/json")


def bare_hash(request: flask.Request) -> flask.Response:
    """Check the password in the body against a constant hash of the cost in BCRYPT_ROUNDS."""
    import bcrypt

    password = request.get_json()["password"].encode()
    if not bcrypt.checkpw(password, _constant_hash()):
        flask.abort(401)
    return flask.Response(_USER, content_type="application/json")


def bare_postgres(request: flask.Request) -> flask.Response:
    """Check the password in the body against the hash of the user with the address in it.

    One statement in one flight, over one connection that is kept. For one request at a time.
    """
    import bcrypt

    body = request.get_json()
    user_id, email, name, provider, password_hash = _select_user(body["email"])
    if not bcrypt.checkpw(body["password"].encode(), password_hash.encode()):
        flask.abort(401)
    user = {"id": str(user_id), "email": email, "name": name, "provider": provider}
    return flask.Response(json.dumps(user), content_type="application/json")


@functools.cache
def _constant_hash() -> bytes:
    import os

    import bcrypt

    password = os.environ["BENCH_PASSWORD"].encode()
    return bcrypt.hashpw(password, bcrypt.gensalt(int(os.environ["BCRYPT_ROUNDS"])))


@functools.cache
def _connection() -> Any:
    import os
    import socket
    import ssl
    from urllib.parse import parse_qs, unquote, urlsplit

    import pg8000.core

    url = urlsplit(os.environ["DATABASE_URL"])
    assert url.hostname is not None  # The bench wrote the URL.
    assert url.password is not None
    plain = socket.create_connection((url.hostname, url.port or 5432))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    plain.sendall(b"\0\0\0\x08\x04\xd2\x16\x2f")  # SSLRequest
    assert plain.recv(1) == b"S", "the server does not speak TLS"
    context = ssl.create_default_context(cafile=parse_qs(url.query)["sslrootcert"][0])
    context.set_ecdh_curve("prime256v1")  # Without it PostgreSQL asks for a second hello.
    return pg8000.core.CoreConnection(
        url.username,
        password=unquote(url.password),
        database=url.path[1:],
        sock=context.wrap_socket(plain, server_hostname=url.hostname),
        ssl_context=False,
    )


def _select_user(email: str) -> list[Any]:
    import struct

    from pg8000.core import EXECUTE_MSG, SYNC_MSG, Context, _create_message

    sql = b"SELECT id, email, name, provider, password FROM users WHERE email = $1"
    value = email.encode()
    parameters = struct.pack("!hhi", 0, 1, len(value)) + value
    connection = _connection()
    context = Context(None, columns=[], input_funcs=[])
    connection._sock.write(
        _create_message(b"P", b"\0" + sql + b"\0\0\0")
        + _create_message(b"B", b"\0\0" + parameters + b"\0\0")
        + _create_message(b"D", b"P\0")
        + EXECUTE_MSG
        + SYNC_MSG
    )
    connection._sock.flush()
    connection.handle_messages(context)
    row: list[Any] = context.rows[0]
    return row
