"""Each fault of the database, each function, each policy: the table of docs/OUTAGES.md, asserted.

A row of the table is what a run shows, so that the document is what the functions do. With the
variable WRITE_OUTAGES a run writes its rows into the document instead of comparing them. What has
the consequences of another fault is left to the long run.
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import httpx
import pytest

from shared.database.settings import DatabaseSettings
from shared.database.url import DatabaseUrl
from shared.revocations.redis_list import PAUSE
from shared.settings import Settings
from shared.store.postgres.preparation import bring_up_to_date
from tests.support.emulator import ROOT, environment, running_emulator
from tests.support.google import SIGN_IN_SOURCE, Providers
from tests.support.mail_servers import Certificates, MailServer, url_of
from tests.support.outage import ADMIN, PASSWORD, RECOVERY_SECONDS, stale
from tests.support.outages import FAULTS, Fault, Instance
from tests.support.postgres import PgBouncer, Server, running_pgbouncer, running_postgres
from tests.support.redis_servers import RedisServer, running_redis
from tests.support.relay import Relay
from tests.support.waiting import until

DOCUMENT = ROOT / "docs" / "OUTAGES.md"
MODES = ("full", "readonly", "off")
CONNECT, STATEMENT, TOTAL = 1.0, 0.5, 3.0
"""Seconds of the deadlines for connecting, for one statement, and for a whole request."""
GRACE = 1.0
"""Seconds by which an answer may be later than its deadline."""
NEW_PASSWORD = "another horse battery staple"
Calls = dict[str, tuple[int, float]]
"""The status and the seconds of each call."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that nobody else needs."""
    with running_postgres() as running:
        yield running


@pytest.fixture(scope="module")
def pooler(server: Server, pgbouncer_program: str) -> Iterator[PgBouncer]:
    """A pooler before it."""
    with running_pgbouncer(server, server_connections=6) as running:
        yield running


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer | None]:
    """A list of revocations, without which only its own faults cannot be tried."""
    program = shutil.which("redis-server")
    with running_redis(program) if program else nullcontext() as running:
        yield running


@pytest.fixture(scope="module")
def instances(
    server: Server,
    redis: RedisServer | None,
    providers: Providers,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[list[Instance]]:
    """One instance of each policy, and a mail server and Redis for all."""
    folder = tmp_path_factory.mktemp("mail")
    certificates = Certificates(folder)
    roots = folder / "roots.pem"
    files = (providers.settings["SSL_CERT_FILE"], certificates.roots)
    roots.write_text("".join(Path(file).read_text() for file in files))
    with ExitStack() as stack:
        mail_server = stack.enter_context(MailServer(certificates.context()).running())
        running = []
        for mode in MODES:
            database = f"outages_{mode}"
            server.run(f"CREATE DATABASE {database} OWNER app")
            bring_up_to_date(DatabaseUrl.parse(server.url(database)), DatabaseSettings())
            relay = stack.enter_context(Relay(server.port))
            mail = stack.enter_context(Relay(mail_server.port))
            revocations = stack.enter_context(Relay(redis.port if redis else 0))
            variables = {
                "DATABASE_URL": server.url(database, port=relay.port),
                "USERS_FILE": str(tmp_path_factory.mktemp(mode) / "users.json"),
                "FALLBACK": mode,
                "ADMIN_TOKEN": ADMIN,
                "DATABASE_TIMEOUT": str(TOTAL),
                "DATABASE_CONNECT_TIMEOUT": str(CONNECT),
                "DATABASE_STATEMENT_TIMEOUT": str(STATEMENT),
                "SNAPSHOT_INTERVAL": "0",
                "ENVIRONMENT": "development",
                "MAIL_URL": url_of(mail.port),
                "MAIL_FROM": "no-reply@example.com",
            } | providers.settings
            if redis:
                variables["REDIS_URL"] = redis.url.replace(f":{redis.port}", f":{revocations.port}")
            variables["SSL_CERT_FILE"] = str(roots)
            emulator = stack.enter_context(running_emulator(source=SIGN_IN_SOURCE, **variables))
            settings = Settings.from_env(environment(**variables))
            running.append(
                Instance(
                    mode,
                    emulator,
                    relay,
                    mail,
                    revocations,
                    server,
                    database,
                    settings,
                    providers.google_token,
                )
            )
        yield running
        assert mail_server.received
        for instance in running:
            instance.client.close()


@pytest.mark.tcp("the document's times are those of TCP")
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, id=fault.name, marks=[pytest.mark.long] if fault.like else [])
        for fault in FAULTS
    ],
)
def test_a_fault_has_the_consequences_that_the_document_tells(
    fault: Fault, server: Server, instances: list[Instance], request: pytest.FixtureRequest
) -> None:
    if fault.is_of_redis:
        request.getfixturevalue("redis_program")  # Or skip it.
        for instance in instances:
            until(instance.asks_redis, PAUSE + 5)
    name = f"outage{FAULTS.index(fault)}"
    with ExitStack() as stack, ThreadPoolExecutor(len(instances)) as threads:
        if fault.is_of_pooler:
            pooler: PgBouncer = request.getfixturevalue("pooler")
            stack.enter_context(_behind(pooler, instances))
        users = list(threads.map(lambda instance: _prepare(instance, name), instances))
        with ExitStack() as happening:
            if fault.is_of_pooler:
                happening.enter_context(pooler.paused())
            if fault.happens_to_all:
                happening.enter_context(fault.happens_to_all(server))
            if fault.happens:
                for instance in instances:
                    happening.enter_context(fault.happens(instance))
            found = list(threads.map(_call_everything, instances, users, [name] * len(users)))
        recovered = list(threads.map(lambda instance: _recover(instance, name), instances))
    assert max(recovered) < RECOVERY_SECONDS
    for instance, calls in zip(instances, found, strict=True):
        _check_times(fault, calls)
        _check_promises(instance, calls)
    stored = [_stored(instance, f"{name}-new@example.com") for instance in instances]
    for instance, calls, place in zip(instances, found, stored, strict=True):
        assert (calls["sign-up"][0] == 201) == (place != "nowhere")
        _reconcile(instance, f"{name}-new@example.com", place)
    statuses = [{call: status for call, (status, _) in calls.items()} for calls in found]
    _compare(_row(fault, statuses, stored))


@contextmanager
def _behind(pooler: PgBouncer, instances: list[Instance]) -> Iterator[None]:
    for instance in instances:
        instance.relay.target = pooler.port
        instance.relay.cut()
    try:
        yield
    finally:
        for instance in instances:
            instance.relay.target = instance.server.port
            instance.relay.cut()


def _prepare(instance: Instance, name: str) -> dict[str, str]:
    """Sign the users up whose sessions the calls need, and take a snapshot."""
    who = ("user", "leaver", "everywhere", "changer", "reader", "deleter")
    users = {one: instance.sign_up(f"{name}-{one}@example.com") for one in who}
    instance.take_snapshot()
    return users


def _call_everything(instance: Instance, users: dict[str, str], name: str) -> Calls:
    user, new = f"{name}-user@example.com", f"{name}-new@example.com"
    change = {"currentPassword": PASSWORD, "newPassword": NEW_PASSWORD}
    id_token = instance.token(sub=f"{name}-{instance.mode}", email=f"{name}-g@example.com")
    calls: dict[str, Callable[[], httpx.Response]] = {
        "login": lambda: instance.call("POST", "/api/login", email=user, password=PASSWORD),
        "wrong password": lambda: instance.call(
            "POST", "/api/login", email=user, password="a wrong password"
        ),
        "sign-up": lambda: instance.call("POST", "/api/signup", email=new, password=PASSWORD),
        "Google": lambda: instance.call("POST", "/api/auth/google", idToken=id_token),
        "fresh session": lambda: instance.call("GET", "/api/user", users["user"]),
        "stale session": lambda: instance.call("GET", "/api/user", stale(users["user"])),
        "logout": lambda: instance.call("POST", "/api/logout", users["leaver"]),
        "everywhere": lambda: instance.call(
            "POST", "/api/logout", users["everywhere"], everywhere=True
        ),
        "password": lambda: instance.call("POST", "/api/password", users["changer"], **change),
        "own data": lambda: instance.call("GET", "/api/account", users["reader"]),
        "deletion": lambda: instance.call(
            "DELETE", "/api/account", users["deleter"], password=PASSWORD
        ),
        "asking for a mail": lambda: instance.call("POST", "/api/password/forgot", email=user),
        "migrate": lambda: instance.call("POST", "/api/migrate", action="status"),
        "health": lambda: instance.call("GET", "/api/health"),
        "livez": lambda: instance.call("GET", "/api/livez"),
    }
    found: Calls = {}
    for call, send in calls.items():
        started = time.monotonic()
        answer = send()
        found[call] = (answer.status_code, time.monotonic() - started)
        instance.client.cookies.clear()
        if answer.status_code == 503:
            assert int(answer.headers["Retry-After"]) > 0
            assert answer.json()["error"].startswith("The service is temporarily unavailable")
        if call == "health":
            assert answer.json()["fallback"]["mode"] == instance.mode
    return found


def _check_times(fault: Fault, calls: Calls) -> None:
    """Bounded by the deadline; the median stands for those whom the breaker refuses."""
    seconds = [taken for _, taken in calls.values()]
    assert max(seconds) < TOTAL + GRACE, calls
    if not fault.is_slow:
        assert statistics.median(seconds) < GRACE / 2, calls


def _check_promises(instance: Instance, calls: Calls) -> None:
    """Hold whatever the fault and the policy."""
    statuses = {call: status for call, (status, _) in calls.items()}
    assert set(statuses.values()) <= {200, 201, 202, 204, 401, 409, 503}
    assert statuses["fresh session"] == 200
    assert statuses["stale session"] in (200, 503), "never 401"
    assert statuses["login"] in (200, 503), "never 401"
    assert statuses["wrong password"] in (401, 503)
    assert (statuses["health"], statuses["livez"]) == (200, 200)
    if instance.mode == "off" and statuses["stale session"] == 503:
        assert statuses["login"] == statuses["sign-up"] == 503


def _recover(instance: Instance, name: str) -> float:
    """Log in until it works, and give the seconds that this took."""
    started = time.monotonic()
    while True:
        answer = instance.call(
            "POST", "/api/login", email=f"{name}-user@example.com", password=PASSWORD
        )
        instance.client.cookies.clear()
        health = instance.call("GET", "/api/health").json()
        if answer.status_code == 200 and health["database"]["status"] == "connected":
            assert health["fallback"]["since"] is None
            return time.monotonic() - started
        assert answer.status_code in (200, 503)
        assert time.monotonic() - started < RECOVERY_SECONDS, answer.text
        time.sleep(0.1)  # To ask costs the processor more than to wait.


def _stored(instance: Instance, email: str) -> str:
    places = {"Postgres": instance.in_postgres(email), "pending": instance.pending(email)}
    found = [place for place, is_there in places.items() if is_there]
    assert len(found) <= 1
    return found[0] if found else "nowhere"


def _reconcile(instance: Instance, email: str, place: str) -> None:
    answer = instance.call("POST", "/api/migrate", action="reconcile")
    assert answer.status_code == 200
    assert instance.in_postgres(email) == (place != "nowhere")
    assert not instance.pending(email)


def _row(fault: Fault, statuses: list[dict[str, int]], stored: list[str]) -> str:
    cells = [_cell([str(each[call]) for each in statuses]) for call in statuses[0]]
    return f"| {' | '.join([fault.name, *cells, _cell(stored), fault.waits])} |"


def _cell(values: list[str]) -> str:
    """Write one value where the policies agree, and else one each."""
    return values[0] if len(set(values)) == 1 else " / ".join(values)


def _compare(row: str) -> None:
    text = DOCUMENT.read_text()
    start = row[: row.index("|", 1) + 1]
    (documented,) = (line for line in text.splitlines() if line.startswith(start))
    if os.environ.get("WRITE_OUTAGES"):
        DOCUMENT.write_text(text.replace(documented, row))
    else:
        assert row == documented


def test_the_document_has_a_row_for_each_fault_and_no_other() -> None:
    rows = [line.removeprefix("| ").split(" | ") for line in DOCUMENT.read_text().splitlines()]
    faults = [fault.name for fault in FAULTS]
    assert [name for name, *_ in rows if name in faults] == faults
    consequences = {name: cells[:-1] for name, *cells in rows}  # But for who waits.
    for fault in FAULTS:
        assert not fault.like or consequences[fault.name] == consequences[fault.like]
