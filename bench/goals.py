"""The goals and their measurements: ours and the baseline in turns, in the same run."""

from __future__ import annotations

import itertools
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import (
    growth,
    hashes,
    imports,
    mails,
    outages,
    starvation,
    statistics,
    timing,
    users_file,
)
from bench.load import (
    CannotMeasure,
    Connection,
    Side,
    answers_per_second,
    cpu_milliseconds,
    get,
    in_turns,
    median_milliseconds,
    post,
)
from bench.report import Measurement
from bench.servers import (
    PASSWORD,
    children,
    floor,
    make_environment,
    ours,
    running,
    start_milliseconds,
)
from shared.rules.bulkhead import CALLERS_PER_HASH
from shared.settings import Settings
from tests.support.postgres import USER, Server

CLIENTS = 8
LOGIN_CLIENTS = CALLERS_PER_HASH * Settings().credentials.hash_concurrency
"""The number admitted at once: one more could be refused, and a 503 aborts the measurement."""
MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Samples:
    """Sample sizes: numbers of rounds, and of requests per round."""

    latency_rounds: int
    throughput_rounds: int
    throughput_requests: int
    cpu_rounds: int
    session_rounds: int
    session_requests: int
    start_rounds: int
    memory_logins: int
    import_rounds: int
    large_import_rounds: int
    failed_logins: int
    hash_rounds: int
    mails: int
    outage_rounds: int
    outages: int
    statistics_rounds: int
    statistics_events: int
    users_file_rounds: int
    hostile_seconds: int
    growth_users: tuple[int, ...]


FULL = Samples(
    latency_rounds=40,
    throughput_rounds=12,
    throughput_requests=64,
    cpu_rounds=20,
    session_rounds=20,
    session_requests=1000,
    start_rounds=21,
    memory_logins=400,
    import_rounds=5,
    large_import_rounds=3,
    failed_logins=2000,
    hash_rounds=5,
    mails=2000,
    outage_rounds=20,
    outages=8,
    statistics_rounds=10,
    statistics_events=10_000_000,
    users_file_rounds=20,
    hostile_seconds=60,
    growth_users=(10_000, 300_000, 3_000_000),
)
QUICK = Samples(
    latency_rounds=6,
    throughput_rounds=2,
    throughput_requests=32,
    cpu_rounds=4,
    session_rounds=4,
    session_requests=500,
    start_rounds=3,
    memory_logins=400,
    import_rounds=2,
    large_import_rounds=0,
    failed_logins=200,
    hash_rounds=2,
    mails=200,
    outage_rounds=3,
    outages=2,
    statistics_rounds=3,
    statistics_events=1_000_000,
    users_file_rounds=5,
    hostile_seconds=10,
    growth_users=(10_000, 300_000),
)


@dataclass(frozen=True, slots=True)
class Bench:
    """A server, a database on it, and the sample sizes."""

    server: Server
    database_url: str
    samples: Samples


def latency(bench: Bench) -> list[Measurement]:
    """Compare a login and a sign-up with the hash alone: one client, warm, at cost 4."""
    with running(ours(bench.database_url, 4), floor("bare_hash")) as (api, bare):
        (login,) = _users(api.port, cost=4, count=1)
        new_addresses = (f"new{number}@example.com" for number in itertools.count())
        # One floor is enough: it does the same for a sign-up's body as for a login's.
        hashing, logging_in, signing_up = in_turns(
            bench.samples.latency_rounds,
            partial(median_milliseconds, Side(bare.port, lambda: login)),
            partial(median_milliseconds, Side(api.port, lambda: login)),
            partial(
                median_milliseconds, Side(api.port, lambda: _sign_up(next(new_addresses)), 201)
            ),
        )
    return [
        Measurement(
            name="login - bare hash, cost 4, 1 client",
            unit="ms",
            floor=hashing,
            ours=logging_in,
            comparison="difference",
            at_most=2.0,
        ),
        Measurement(
            name="sign-up - bare hash, cost 4, 1 client",
            unit="ms",
            floor=hashing,
            ours=signing_up,
            comparison="difference",
            at_most=1.5,
        ),
    ]


def throughput(bench: Bench) -> list[Measurement]:
    """Compare logins with the hash alone, with as many clients as are admitted, at cost 10."""
    with running(ours(bench.database_url, 10), floor("bare_hash", rounds=10)) as (api, bare):
        logins = _users(api.port, cost=10, count=LOGIN_CLIENTS)
        count, rounds = bench.samples.throughput_requests, bench.samples.throughput_rounds
        return [
            _throughput(
                f"login / bare hash, cost 10, {LOGIN_CLIENTS} clients",
                [Side(server.port, itertools.cycle(logins).__next__) for server in (bare, api)],
                partial(answers_per_second, clients=LOGIN_CLIENTS, count=count),
                rounds,
                at_least=0.95,
            )
        ]


def cpu(bench: Bench) -> list[Measurement]:
    """Compare the CPU of a login, PostgreSQL's included, with the hash's: one client, cost 10."""
    with running(ours(bench.database_url, 10), floor("bare_hash", rounds=10)) as (api, bare):
        (login,) = _users(api.port, cost=10, count=1)
        postgres = bench.server.process.pid
        hashing, logging_in = in_turns(
            bench.samples.cpu_rounds,
            partial(cpu_milliseconds, Side(bare.port, lambda: login), lambda: [bare.worker()]),
            partial(
                cpu_milliseconds,
                Side(api.port, lambda: login),
                lambda: [api.worker(), postgres, *children(postgres)],
            ),
        )
    return [
        Measurement(
            name="CPU of a login with PostgreSQL / bare hash, cost 10, 1 client",
            unit="ms",
            floor=hashing,
            ours=logging_in,
            comparison="ratio",
            at_most=1.04,
        )
    ]


def session(bench: Bench) -> list[Measurement]:
    """Compare /api/user with a fresh cookie to a function that says hello."""
    with running(ours(bench.database_url, 4), floor("hello")) as (api, hello):
        (login,) = _users(api.port, cost=4, count=1)
        request = get("/api/user", cookie=_session_cookie(api.port, login))
        sides = [Side(server.port, lambda: request) for server in (hello, api)]
        times = in_turns(
            bench.samples.latency_rounds, *(partial(median_milliseconds, side) for side in sides)
        )
        alone = Measurement(
            name="/api/user / hello, 1 client",
            unit="ms",
            floor=times[0],
            ours=times[1],
            comparison="ratio",
            at_most=1.5,
        )
        count, rounds = bench.samples.session_requests, bench.samples.session_rounds
        together = _throughput(
            f"/api/user / hello, {CLIENTS} clients",
            sides,
            partial(answers_per_second, clients=CLIENTS, count=count),
            rounds,
            at_least=0.7,
        )
    return [alone, together]


def start(bench: Bench) -> list[Measurement]:
    """Compare process start to first answer, with .pyc files present."""
    api = ours(bench.database_url, 4)
    with running(api) as (server,):
        (login,) = _users(server.port, cost=4, count=1)
    livez = get("/api/livez")
    bare, first_login, hello, first_livez = in_turns(
        bench.samples.start_rounds,
        partial(start_milliseconds, floor("bare_postgres", bench.database_url), login),
        partial(start_milliseconds, api, login),
        partial(start_milliseconds, floor("hello"), livez),
        partial(start_milliseconds, api, livez),
    )
    return [
        Measurement(
            name="start to first login / bare Postgres",
            unit="ms",
            floor=bare,
            ours=first_login,
            comparison="ratio",
            at_most=1.1,
        ),
        Measurement(
            name="start to /api/livez / hello",
            unit="ms",
            floor=hello,
            ours=first_livez,
            comparison="ratio",
            at_most=1.15,
        ),
    ]


def memory(bench: Bench) -> list[Measurement]:
    """Read a warm worker's proportional memory (PSS), without a baseline running."""
    count = bench.samples.memory_logins
    with running(ours(bench.database_url, 4)) as (api,):
        logins = _users(api.port, cost=4, count=LOGIN_CLIENTS)
        side = Side(api.port, itertools.cycle(logins).__next__)
        answers_per_second(side, clients=len(logins), count=count)
        worker, master = _memory(api.worker(), "Pss"), _memory(api.process.pid, "Pss")
        resident = _memory(api.worker(), "Rss")
    return [
        Measurement(
            name=f"worker's PSS after {count} logins",
            unit="MB",
            ours=[worker],
            at_most=60,
            note=f"Master and worker together have {master + worker:.1f} MB PSS; the worker's RSS "
            f"is {resident:.1f} MB.",
        )
    ]


def size(bench: Bench) -> list[Measurement]:  # noqa: ARG001  # a measurement like the others
    """Count what requirements.txt alone installs, .pyc files included."""
    site_packages = make_environment()
    packages = len(list(site_packages.glob("*.dist-info")))
    total = sum(path.stat().st_size for path in site_packages.rglob("*") if path.is_file())
    return [
        Measurement(name="packages installed", unit="", ours=[packages], at_most=35),
        Measurement(name="size installed", unit="MB", ours=[total / MEGABYTE], at_most=30),
    ]


def import_(bench: Bench) -> list[Measurement]:
    """Compare the import of a users file with psql's own COPY."""
    samples = bench.samples
    return imports.measure(bench.server, samples.import_rounds, samples.large_import_rounds)


def failures(bench: Bench) -> list[Measurement]:
    """Check that failed logins take the same time for all kinds of accounts, on both stores."""
    bench.server.run(f"CREATE DATABASE failures OWNER {USER}")
    samples = bench.samples.failed_logins
    with tempfile.TemporaryDirectory(prefix="auth-bench-") as folder:
        on_json = {"USE_DATABASE": "false", "USERS_FILE": f"{folder}/users.json"}
        return [
            *timing.measure("Postgres", {"DATABASE_URL": bench.server.url("failures")}, samples),
            *timing.measure("the JSON file", on_json, samples),
        ]


def hashes_(bench: Bench) -> list[Measurement]:
    """Measure what hashes of other systems cost at their bounds."""
    return hashes.measure(bench.samples.hash_rounds)


def mails_(bench: Bench) -> list[Measurement]:
    """Check that whoever asks for a mail waits as long for every address, on both stores."""
    bench.server.run(f"CREATE DATABASE mails OWNER {USER}")
    samples = bench.samples.mails
    return [
        *mails.measure("Postgres", {"DATABASE_URL": bench.server.url("mails")}, samples),
        *mails.measure("the JSON file", {"USE_DATABASE": "false"}, samples),
    ]


def without_database(bench: Bench) -> list[Measurement]:
    """Compare a worker without its database with one that has it, and time the recovery."""
    samples = bench.samples
    return outages.measure(bench.server, samples.outage_rounds, samples.outages)


def statistics_(bench: Bench) -> list[Measurement]:
    """Compare the statistics of many users and events with the same counts by psql."""
    samples = bench.samples
    return statistics.measure(bench.server, samples.statistics_events, samples.statistics_rounds)


def starvation_(bench: Bench) -> list[Measurement]:
    """Count the logins that succeed despite hostile connections."""
    bench.server.run(f"CREATE DATABASE starvation OWNER {USER}")
    return starvation.measure(bench.server.url("starvation"), bench.samples.hostile_seconds)


def users_file_(bench: Bench) -> list[Measurement]:
    """Compare the JSON store on a large file with parsing and copying it."""
    return users_file.measure(bench.samples.users_file_rounds)


def growth_(bench: Bench) -> list[Measurement]:
    """Compare the blocks that a statement looks at with few and with many users."""
    return growth.measure(bench.samples.growth_users)


PARTS: dict[str, Callable[[Bench], list[Measurement]]] = {
    "latency": latency,
    "throughput": throughput,
    "cpu": cpu,
    "session": session,
    "start": start,
    "memory": memory,
    "size": size,
    "import": import_,
    "failures": failures,
    "hashes": hashes_,
    "mails": mails_,
    "outages": without_database,
    "statistics": statistics_,
    "users-file": users_file_,
    "starvation": starvation_,
    "growth": growth_,
}


def _sign_up(address: str) -> bytes:
    return post("/api/signup", email=address, password=PASSWORD)


def _users(port: int, *, cost: int, count: int) -> list[bytes]:
    """Create missing users with hashes of the server's cost, and make their logins."""
    addresses = [f"cost{cost}-{number}@example.com" for number in range(count)]
    for address in addresses:
        with Connection(port) as connection:
            answer = connection.exchange(_sign_up(address))
        if answer.status != 409:
            answer.check(201)
    return [post("/api/login", email=address, password=PASSWORD) for address in addresses]


def _session_cookie(port: int, login: bytes) -> str:
    with Connection(port) as connection:
        answer = connection.exchange(login)
    answer.check(200)
    cookie = re.search(rb"\r\nset-cookie: *([^;\r]+)", answer.head, re.IGNORECASE)
    if cookie is None:
        raise CannotMeasure("a login set no cookie")
    return cookie[1].decode()


def _memory(pid: int, name: str) -> float:
    """Read a line of the process's memory, in MB; the kernel counts in units of 1,024 bytes."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(rf"^{name}: +([0-9]+) kB$", text, re.MULTILINE)
    if found is None:
        raise CannotMeasure("the kernel does not tell the memory of a process")
    return int(found[1]) * 1024 / MEGABYTE


def _throughput(
    name: str,
    sides: list[Side],
    measure: Callable[[Side], float],
    rounds: int,
    *,
    at_least: float,
) -> Measurement:
    base, our = in_turns(rounds, *(partial(measure, side) for side in sides))
    return Measurement(
        name=name, unit="/s", floor=base, ours=our, comparison="ratio", at_least=at_least
    )
