"""An import against psql's COPY of the same rows into the same table, on the same server."""

from __future__ import annotations

import hashlib
import os
import re
import resource
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.load import CannotMeasure, in_turns
from bench.report import Measurement
from bench.servers import BIN, process_environment
from tests.support.emulator import ROOT
from tests.support.postgres import PASSWORD, USER, Server

MEGABYTE = 1_000_000
FEW, MANY = 100_000, 1_000_000

_COLUMNS = "id, email, email_key, password, name, provider, created_at, updated_at"
_NAMES = ("Ada Lovelace", "Zoë Müller", "山田 健二", "Siân O'Brien", "Łukasz Żak", None)
_POLL_SECONDS = 0.02
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Users:
    """The same users in two files: in the old server's format, and as rows for COPY."""

    count: int
    json: Path
    tsv: Path


@dataclass(frozen=True, slots=True)
class _Cost:
    """What a process took: time, its own CPU time and the server's, and its peak memory in MB."""

    seconds: float
    own_cpu: float
    server_cpu: float
    peak: float


@dataclass(slots=True)
class _Import:
    """Our side of a comparison: the command, and its peak memory per round."""

    users: Users
    peaks: list[float] = field(default_factory=list)

    def into_copy(self, server: Server, template: str) -> _Cost:
        """Import into a fresh copy of a database."""
        with _database(server, template) as database:
            return self.run(server, database)

    def run(self, server: Server, database: str) -> _Cost:
        """Import with a report; the time includes the start of the process."""
        command = (BIN / "python", "-m", "shared.transfer", "apply", "--yes")
        variables = process_environment(DATABASE_URL=server.url(database))
        cost = _run(server, [*command, "--source", self.users.json], variables)
        self.peaks.append(cost.peak)
        for report in self.users.json.parent.glob("*.report.*"):
            report.unlink()
        return cost


def measure(server: Server, few_rounds: int, many_rounds: int) -> list[Measurement]:
    """Compare imports of few and, if `many_rounds` is not 0, of many users."""
    server.run(f"CREATE DATABASE migrated OWNER {USER}")
    migrate = (BIN / "python", "-m", "shared.transfer", "schema", "apply")
    _run(server, migrate, process_environment(DATABASE_URL=server.url("migrated")))
    with tempfile.TemporaryDirectory(prefix="auth-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        few = _Import(_write_users(folder, FEW))
        measurements = _compare(server, few, "migrated", few_rounds, "an empty table")
        with _database(server, "migrated", "filled") as filled:
            _copy(server, filled, _write_users(folder, FEW, "others"))
            server.run("VACUUM ANALYZE users", filled)
            late = _Import(few.users)
            measurements += _compare(server, late, filled, few_rounds, f"{FEW:,} others")
        measurements.append(_again(server, few, few_rounds))
        peaks = few.peaks
        if many_rounds:
            many = _Import(_write_users(folder, MANY))
            measurements += _compare(server, many, "migrated", many_rounds, "an empty table")
            measurements.append(
                Measurement(
                    name=f"import's peak memory, {MANY:,} / {FEW:,}",
                    unit="MB",
                    floor=[max(few.peaks)],
                    ours=[max(many.peaks)],
                    comparison="ratio",
                    at_most=1.1,
                )
            )
            peaks = peaks + many.peaks
        measurements.append(
            Measurement(name="import's peak memory", unit="MB", ours=[max(peaks)], at_most=60)
        )
    return measurements


def _compare(
    server: Server, ours: _Import, template: str, rounds: int, where: str
) -> list[Measurement]:
    """Compare rows a second, and CPU time, which says more where the machine is busy."""
    users, is_empty = ours.users, template == "migrated"
    floor, our = in_turns(
        rounds,
        partial(_copy_into_copy, server, users, template),
        partial(ours.into_copy, server, template),
        warm_up=users.count == FEW,
    )
    return [
        Measurement(
            name=f"import / psql's COPY, {users.count:,} into {where}",
            unit="rows/s",
            floor=[_rate(users, cost) for cost in floor],
            ours=[_rate(users, cost) for cost in our],
            comparison="ratio",
            at_least=0.45 if is_empty else None,
        ),
        Measurement(
            name=f"rows a second, {users.count:,} into {where}",
            unit="rows/s",
            ours=[_rate(users, cost) for cost in our],
            at_least=40_000 if is_empty else None,
        ),
        Measurement(
            name="its CPU time / psql's COPY, client and server",
            unit="s",
            floor=[cost.own_cpu + cost.server_cpu for cost in floor],
            ours=[cost.own_cpu + cost.server_cpu for cost in our],
            comparison="ratio",
            at_most=2.75 if is_empty else None,
        ),
        Measurement(
            name="its own CPU time / psql's COPY",
            unit="s",
            floor=[cost.own_cpu + cost.server_cpu for cost in floor],
            ours=[cost.own_cpu for cost in our],
            comparison="ratio",
            at_most=1.5 if is_empty else None,
        ),
    ]


def _rate(users: Users, cost: _Cost) -> float:
    return round(users.count / cost.seconds)


def _again(server: Server, ours: _Import, rounds: int) -> Measurement:
    """Import the same users again, which writes nothing."""
    with _database(server, "migrated") as database:
        ours.run(server, database)
        rates = [_rate(ours.users, ours.run(server, database)) for _ in range(rounds)]
    return Measurement(
        name=f"import of {ours.users.count:,} again, to no effect", unit="rows/s", ours=rates
    )


def _copy_into_copy(server: Server, users: Users, template: str) -> _Cost:
    with _database(server, template) as database:
        return _copy(server, database, users)


def _copy(server: Server, database: str, users: Users) -> _Cost:
    return _psql(server, database, rf"\copy users ({_COLUMNS}) FROM '{users.tsv}'")


def psql(server: Server, database: str, command: str) -> float:
    """Run a command with psql over TLS; give the seconds, including the start of psql."""
    return _psql(server, database, command).seconds


def _psql(server: Server, database: str, command: str) -> _Cost:
    variables = {
        "PATH": os.environ["PATH"], "PGPASSWORD": PASSWORD, "PGUSER": USER,
        "PGHOST": server.host, "PGPORT": str(server.port), "PGDATABASE": database,
        "PGSSLMODE": "verify-full", "PGSSLROOTCERT": str(server.authority.certificate),
    }  # fmt: skip
    return _run(server, [server.programs / "psql", "-Xqc", command], variables)


@contextmanager
def _database(server: Server, template: str, name: str = "target") -> Iterator[str]:
    """Copy a database, after a checkpoint, and drop the copy at the end."""
    server.run(f"CREATE DATABASE {name} OWNER {USER} TEMPLATE {template}")
    server.run("CHECKPOINT")
    try:
        yield name
    finally:
        server.run(f"DROP DATABASE {name} WITH (FORCE)")


def _run(server: Server, command: Sequence[str | Path], variables: dict[str, str]) -> _Cost:
    """Run a process to its end, and give what it took.

    The kernel's own count of a child's peak begins with what its parent had when it forked.
    """
    peak = 0
    own_before, server_before = _children_cpu(), server_cpu(server)
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        with subprocess.Popen(
            command, cwd=ROOT, env=variables, stdout=output, stderr=output
        ) as process:
            while True:
                try:
                    status = process.wait(_POLL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    text = Path(f"/proc/{process.pid}/status").read_text()
                    found = re.search(r"^VmHWM:\s+([0-9]+) kB$", text, re.MULTILINE)
                    peak = int(found[1]) * 1024 if found else peak
        seconds = time.perf_counter() - started
        if status != 0:
            output.seek(0)
            text = output.read()[-3000:].decode(errors="replace")
            raise CannotMeasure(f"{Path(command[0]).name} ended with {status}:\n{text}")
    return _Cost(
        seconds=seconds,
        own_cpu=_children_cpu() - own_before,
        server_cpu=server_cpu(server) - server_before,
        peak=peak / MEGABYTE,
    )


def _children_cpu() -> float:
    """Give the CPU seconds of all processes that were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def server_cpu(server: Server) -> float:
    """Give the CPU seconds of the server's processes, those that have ended included."""
    main = server.process.pid
    backends = Path(f"/proc/{main}/task/{main}/children").read_text().split()
    ticks = sum(_ticks(main))
    for pid in backends:
        with suppress(OSError):  # It has just ended, and counts as the main process's.
            ticks += sum(_ticks(int(pid))[:2])
    return ticks / _TICKS


def _ticks(pid: int) -> list[int]:
    """Read utime, stime, cutime and cstime."""
    _, _, after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    return [int(number) for number in after_name.split()[11:15]]


def _write_users(folder: Path, count: int, prefix: str = "users") -> Users:
    """Write users of every kind, the same ones in every run."""
    users = Users(count, folder / f"{prefix}{count}.json", folder / f"{prefix}{count}.tsv")
    with (
        users.json.open("w", encoding="utf-8") as json,
        users.tsv.open("w", encoding="utf-8") as tsv,
    ):
        for number in range(count):
            row, line = _user(f"{prefix}{number}", number)
            json.write(f"{',' if number else '['}\n{row}")
            tsv.write(line)
        json.write("\n]\n")
    return users


def _user(seed: str, number: int) -> tuple[str, str]:
    chance = hashlib.sha256(seed.encode()).hexdigest()
    user_id = f"{chance[:8]}-{chance[8:12]}-4{chance[13:16]}-8{chance[17:20]}-{chance[20:32]}"
    email = f"{'Ada' if number % 4 == 0 else 'ada'}.{seed}@Example.com"
    name = _NAMES[number % len(_NAMES)]
    password = None if number % 10 == 0 else f"$2b$10${chance[:53]}"
    provider = "local" if password else "google"
    day, second = number % 365, number % 86_400
    created, updated = (
        time.strftime(f"%Y-%m-%dT%H:%M:%S.{number % 1000:03}Z", time.gmtime(seconds))
        for seconds in (1_700_000_000 + day * 86_400 + second, 1_740_000_000 + second)
    )
    members = {
        "id": user_id, "email": email, "password": password, "provider": provider, "name": name,
        "createdAt": created, "updatedAt": updated,
    }  # fmt: skip
    lines = ",\n".join(f'    "{key}": "{value}"' for key, value in members.items() if value)
    columns = (user_id, email, email.lower(), password, name, provider, created, updated)
    line = "\t".join(r"\N" if column is None else column for column in columns)
    return f"  {{\n{lines}\n  }}", f"{line}\n"
