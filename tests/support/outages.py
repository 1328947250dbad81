"""Faults of the database, and the instances that they happen to."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import httpx

from shared.database.pool import Database
from shared.database.url import DatabaseUrl
from shared.settings import Settings
from tests.support import relay as relays
from tests.support.emulator import Emulator
from tests.support.outage import ADMIN, PASSWORD
from tests.support.postgres import Server
from tests.support.relay import Mode, Relay
from tests.support.stores import snapshot_of


@dataclass
class Instance:
    """One emulator with one policy, its database, and its lines to that, to mail and to Redis."""

    mode: str
    emulator: Emulator
    relay: Relay
    mail: Relay
    redis: Relay
    server: Server
    database: str
    settings: Settings
    token: Callable[..., str]
    """Makes Google's ID token."""
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = self.emulator.client()

    def call(self, method: str, path: str, token: str = "", **members: object) -> httpx.Response:
        """Call a function with a session and members of a JSON body."""
        headers = {"Cookie": f"session={token}"} if token else {}
        if path == "/api/migrate":
            headers["Authorization"] = f"Bearer {ADMIN}"
        return self.client.request(method, path, headers=headers, json=members or None)

    def sign_up(self, email: str) -> str:
        answer = self.call("POST", "/api/signup", email=email, password=PASSWORD)
        assert answer.status_code == 201, answer.text
        self.client.cookies.clear()
        return answer.headers["Set-Cookie"].split(";")[0].partition("=")[2]

    def in_postgres(self, email: str) -> bool:
        return bool(self.server.run(f"SELECT FROM users WHERE email = '{email}'", self.database))

    def pending(self, email: str) -> bool:
        file = self.settings.store.users_file
        records = json.loads(file.read_bytes()) if file.exists() else []
        return any(record["email"] == email for record in records)

    def asks_redis(self) -> bool:
        return bool(self.call("GET", "/api/health").json()["revocations"]["status"] == "connected")

    def take_snapshot(self) -> None:
        assert self.settings.database.url
        url = DatabaseUrl.parse(self.server.url(self.database))
        snapshot_of(self.settings).take(Database(url, self.settings.database), time.time())


@dataclass(frozen=True)
class Fault:
    """What happens, to one instance's line and database or to the server of all."""

    name: str
    happens: Callable[[Instance], AbstractContextManager[None]] | None = None
    happens_to_all: Callable[[Server], AbstractContextManager[None]] | None = None
    waits: str = "nobody waits"
    """Who waits for how long."""
    is_slow: bool = False
    """Whether more than the first request wait."""
    is_of_pooler: bool = False
    """Whether it is a pooler's, before which the instances are then."""
    is_of_redis: bool = False
    like: str = ""
    """The fault of the same consequences that stands for it where there is less time."""


@contextmanager
def _on(line: Relay, mode: Mode, *, cut: bool = True) -> Iterator[None]:
    line.mode = mode
    if cut:
        line.cut()
    try:
        yield
    finally:
        line.mode = relays.FORWARD
        line.cut()


def _relay(mode: Mode, *, cut: bool = True) -> Callable[[Instance], AbstractContextManager[None]]:
    return lambda instance: _on(instance.relay, mode, cut=cut)


@contextmanager
def _terminated(instance: Instance) -> Iterator[None]:
    instance.server.terminate_backends(instance.database)
    yield


@contextmanager
def _read_only(instance: Instance) -> Iterator[None]:
    with instance.server.read_only(instance.database):
        yield


@contextmanager
def _full(instance: Instance) -> Iterator[None]:
    with instance.server.out_of_connections(instance.database):
        instance.server.terminate_backends(instance.database)
        yield


@contextmanager
def _locked(instance: Instance) -> Iterator[None]:
    with instance.server.connect(instance.database) as holder:
        holder.run("BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        yield


@contextmanager
def _password_changed(server: Server) -> Iterator[None]:
    from tests.support.postgres import PASSWORD as OLD

    server.run("ALTER ROLE app PASSWORD 'another'")
    server.run("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'app'")
    try:
        yield
    finally:
        server.run(f"ALTER ROLE app PASSWORD '{OLD}'")


FAULTS = (
    Fault("nobody listens on the port", _relay(relays.REFUSE), waits="nobody waits"),
    Fault(
        "connections are closed without a word",
        _relay(relays.HANG_UP),
        like="nobody listens on the port",
    ),
    Fault(
        "nothing comes through (black hole)",
        _relay(relays.BLACK_HOLE),
        waits="the first request, until the connect deadline",
    ),
    Fault(
        "1 byte a second comes through",
        _relay(relays.TRICKLE),
        waits="the first request, until the connect deadline",
        like="nothing comes through (black hole)",
    ),
    Fault(
        "every answer is cut off",
        _relay(Mode(answer_bytes=1)),
        like="nobody listens on the port",
    ),
    Fault("every packet takes 20 ms each way", _relay(Mode(delay=0.02), cut=False), is_slow=True),
    Fault(
        "every second connection fails",
        _relay(relays.FLAP),
        like="the server ends all sessions, once",
    ),
    Fault(
        "the server has no TLS any more",
        _relay(relays.NO_TLS),
        like="the server's password was changed",
    ),
    Fault("the server's password was changed", happens_to_all=_password_changed),
    Fault(
        "the server is stopped",
        happens_to_all=Server.stopped,
        like="nobody listens on the port",
    ),
    Fault(
        "the server is frozen",
        happens_to_all=Server.frozen,
        waits="the first request, until the statement's or the connect deadline",
    ),
    Fault("the server ends all sessions, once", _terminated),
    Fault("the server takes no more connections", _full),
    Fault("the server is read-only", _read_only),
    Fault(
        "the table of users is locked",
        _locked,
        is_slow=True,
        waits="every request that needs the table, until the statement's deadline",
    ),
    Fault(
        "the pooler is paused",
        waits="the first request, until the statement's deadline",
        is_of_pooler=True,
    ),
    Fault(
        "the mail server is away",
        lambda instance: _on(instance.mail, relays.REFUSE),
        like="the mail server hangs",
    ),
    Fault("the mail server hangs", lambda instance: _on(instance.mail, relays.BLACK_HOLE)),
    Fault(
        "Redis is away",
        lambda instance: _on(instance.redis, relays.REFUSE),
        waits="nobody waits; revocations are known after ten minutes",
        is_of_redis=True,
    ),
    Fault(
        "Redis hangs",
        lambda instance: _on(instance.redis, relays.BLACK_HOLE),
        waits="one request in 5 seconds, for 50 ms; revocations are known after ten minutes",
        is_of_redis=True,
    ),
)
