"""The servers and stores that the tests share."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from hypothesis import HealthCheck, settings

from shared.application import open_store
from shared.database.settings import DatabaseSettings
from shared.database.url import DatabaseUrl
from shared.settings import Settings
from shared.store.contract import Store
from shared.store.postgres.preparation import bring_up_to_date
from tests.support import express, neon_driver
from tests.support.emulator import UNLIMITED, Emulator, running_emulator
from tests.support.google import Providers, sign_in_providers
from tests.support.neon_proxy import NeonProxy
from tests.support.postgres import FETCHED_PGBOUNCER, TRANSPORT, Server, running_postgres
from tests.support.relay import Relay
from tests.support.replicas import Pair, running_pair
from tests.support.transfers import Target

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# How long an example takes says nothing on a busy machine.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

_MEMORY = Path("/dev/shm")  # noqa: S108  # the names in it are chosen by chance
if "TMPDIR" not in os.environ and _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > 2 << 30:
    # Databases are copied and files synced thousands of times, which a disk makes the longest part.
    tempfile.tempdir = str(_MEMORY)
# Whom the tests call is on this machine.
for _name in ("HTTPS_PROXY", "https_proxy"):
    os.environ.pop(_name, None)
# Who is started in the background ignores it, and so would every command that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

STORES = ("json", "postgres")
_SHORT_FILES = {"formats", "model", "observe"}
"""Rooms whose files take no more than a few seconds each."""
_TEMPLATE = "migrated"
_BY_HTTP = os.environ.get("TRANSPORT") == "http"
"""Whether requests reach the database of the test run by HTTP."""
_numbers = itertools.count(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what needs PostgreSQL, and leave out what takes long where nobody asks for it."""
    if "long" not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
    for item in items:
        if _BY_HTTP and (mark := item.get_closest_marker("tcp")):
            item.add_marker(pytest.mark.skip(reason=f"over TCP only: {mark.args[0]}"))
        parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
        named = [*getattr(item, "fixturenames", ()), *parameters]
        if {"postgres", "replicated", "fallback", "server", "servers"}.intersection(
            name for name in named if isinstance(name, str)
        ):
            item.add_marker("database")
    # A long file that comes last keeps one worker busy and the others idle.
    items.sort(key=lambda item: item.path.parent.name in _SHORT_FILES)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """One PostgreSQL server for the whole run, with a migrated template database."""
    with ExitStack() as stack:
        server = stack.enter_context(running_postgres())
        # It would look into each of hundreds of databases in turn.
        server.run("ALTER SYSTEM SET autovacuum = off")
        server.run("SELECT pg_reload_conf()")
        server.run(f"CREATE DATABASE {_TEMPLATE} OWNER app")
        bring_up_to_date(DatabaseUrl.parse(server.url(_TEMPLATE)), DatabaseSettings())
        if _BY_HTTP:
            proxy = stack.enter_context(NeonProxy(server))
            TRANSPORT.update(proxy.settings)
        yield server
        TRANSPORT.clear()


@pytest.fixture(scope="session")
def replicated() -> Iterator[Pair]:
    """A primary with a streaming replica, for the whole run."""
    with running_pair() as running:
        yield running


@pytest.fixture
def pair(replicated: Pair) -> Pair:
    """The two with a fresh, migrated database."""
    return replicated.fresh()


@pytest.fixture(scope="session")
def make_database(postgres: Server) -> Callable[..., str]:
    """Create a database, migrated or empty, and give its name."""

    def make(*, migrated: bool = True) -> str:
        name = f"test_{next(_numbers)}"
        template = _TEMPLATE if migrated else "template1"
        postgres.create_database(name, template)
        return name

    return make


@pytest.fixture(scope="module")
def old_database(postgres: Server, make_database: Callable[..., str]) -> str:
    """A database that the old server has its sessions in."""
    name = make_database()
    express.install(postgres, name)
    return name


@pytest.fixture
def database(postgres: Server, make_database: Callable[..., str]) -> Iterator[str]:
    """The name of a fresh, migrated database."""
    name = make_database()
    yield name
    postgres.drop_database(name)


@pytest.fixture
def target(postgres: Server, database: str) -> Iterator[Target]:
    """A fresh, migrated database as a target of transfers."""
    with closing(Target(postgres, database)) as opened:
        yield opened


@pytest.fixture(scope="session")
def providers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Providers]:
    """Google and Firebase, and what mints their tokens."""
    with sign_in_providers(tmp_path_factory.mktemp("providers")) as running:
        yield running


@pytest.fixture
def relay(postgres: Server) -> Iterator[Relay]:
    """A relay before the server."""
    with Relay(postgres.port) as running:
        yield running


@pytest.fixture(params=(*STORES, "fallback"))
def store_settings(
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> dict[str, str]:
    """The variables that name an empty store, of each kind in turn, and with a fallback."""
    file = {"USERS_FILE": str(tmp_path / "users.json")}
    if request.param == "json":
        return {"USE_DATABASE": "false"} | file
    server: Server = request.getfixturevalue("postgres")
    url = {"DATABASE_URL": server.url(request.getfixturevalue("database"))} | TRANSPORT
    return url | file | {"FALLBACK": "full" if request.param == "fallback" else "off"}


@pytest.fixture
def store(store_settings: dict[str, str]) -> Iterator[Store]:
    """An empty store, of each kind in turn."""
    yield from _opened(store_settings)


@pytest.fixture(scope="module", params=(*STORES, "fallback"))
def shared_store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    """A store of each kind that the tests of a module share."""
    variables = {"USERS_FILE": str(tmp_path_factory.mktemp("store") / "users.json")}
    if request.param == "json":
        yield from _opened({"USE_DATABASE": "false"} | variables)
        return
    server: Server = request.getfixturevalue("postgres")
    name = request.getfixturevalue("make_database")()
    variables |= {"FALLBACK": "full" if request.param == "fallback" else "off"}
    yield from _opened({"DATABASE_URL": server.url(name)} | variables)
    server.drop_database(name)


def _opened(variables: dict[str, str]) -> Iterator[Store]:
    settings = {"SESSION_SECRET": "x" * 32} | UNLIMITED | variables
    opened = open_store(Settings.from_env(settings))
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def emulators(
    postgres: Server,
    make_database: Callable[..., str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Emulator]]:
    """One emulator on each kind of store, for the whole run."""
    users_file = tmp_path_factory.mktemp("emulator") / "users.json"
    with (
        running_emulator(USERS_FILE=str(users_file)) as on_json,
        running_emulator(DATABASE_URL=postgres.url(make_database())) as on_postgres,
    ):
        yield {"json": on_json, "postgres": on_postgres}


@pytest.fixture(params=STORES)
def emulator(request: pytest.FixtureRequest, emulators: dict[str, Emulator]) -> Emulator:
    """An emulator on each kind of store in turn. Its users outlive the test."""
    return emulators[request.param]


@pytest.fixture
def address() -> str:
    """An address that no other test uses."""
    return f"user{next(_numbers)}@example.com"


@pytest.fixture(scope="session")
def pgbouncer_program() -> str:
    """The path of PgBouncer."""
    return _installed("pgbouncer")


@pytest.fixture(scope="session")
def newer_pgbouncer() -> None:
    """A PgBouncer that keeps prepared statements."""
    if not FETCHED_PGBOUNCER.exists():
        _missing("PgBouncer 1.21 or newer is not there: on Debian, `make newer-pgbouncer`")


@pytest.fixture(scope="session")
def driver_of_neon() -> None:
    """Neon's own driver, and what runs it."""
    if message := neon_driver.missing():
        _missing(message)


@pytest.fixture
def neon(postgres: Server) -> Iterator[NeonProxy]:
    """SQL over HTTP before the server, with no fault."""
    with NeonProxy(postgres) as running:
        yield running


@pytest.fixture(scope="session")
def curl_program() -> str:
    """The path of curl."""
    return _installed("curl")


@pytest.fixture(scope="session")
def openssl_program() -> str:
    """The path of openssl."""
    return _installed("openssl")


@pytest.fixture(scope="session")
def redis_program() -> str:
    """The path of redis-server."""
    return _installed("redis-server")


@pytest.fixture(scope="session")
def strace_program() -> str:
    """The path of strace."""
    return _installed("strace")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for the whole run."""
    program = _installed("chromium")
    # Only who asks for a browser waits for its driver.
    from tests.support.browser import running_chromium

    with running_chromium(program) as running:
        yield running


def _installed(program: str) -> str:
    """Give a program's path; without it the test is skipped, but in CI it fails."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")
    if not found:
        _missing(f"{program} is not installed: on Debian, `apt-get install {program}`")
    return found


def _missing(message: str) -> NoReturn:
    """Skip the test with what is missing, or fail it in CI, where nothing is skipped."""
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
