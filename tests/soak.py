"""`python -m tests.soak`: two workers under a mixed load, and a fault every few seconds.

It counts what it sees, prints a summary, and tells by its exit status whether all that must hold
did: nothing acknowledged was lost, nobody saw another user's data, nobody waited for longer than
the deadline, and nothing grew.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from shared.database.settings import DatabaseSettings
from shared.database.url import DatabaseUrl
from shared.settings import Settings
from shared.store.postgres.preparation import bring_up_to_date
from shared.transfer.reconciling import quarantine_of
from tests.support import relay as relays
from tests.support.emulator import Emulator, running_emulator
from tests.support.outage import ADMIN, stale
from tests.support.postgres import Server, running_postgres
from tests.support.relay import Mode, Relay

DATABASE = "soak"
DEADLINE = 3.0
"""Seconds that a request may ask the database for."""
LATE = DEADLINE + 1.0
RECOVERY = 5.0
CLIENTS = 3
"""Threads for each worker."""
PASSWORDS = ("correct horse battery staple", "another horse battery staple")
WARM_UP = 0.2
"""Of the whole time, before what is flat is measured."""
FEW_DESCRIPTORS, SOME_MEMORY = 6, 1.25


@dataclass
class Results:
    """What was seen."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    recoveries: list[float] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")
    problems: list[str] = field(default_factory=list)
    acknowledged: int = 0
    reconciled: Counter[str] = field(default_factory=Counter)
    counting: threading.Lock = field(default_factory=threading.Lock)

    def problem(self, sentence: str) -> None:
        """Note what must not be."""
        with self.counting:
            self.problems.append(sentence)

    def answer(self, call: str, status: int, seconds: float) -> None:
        """Count an answer."""
        with self.counting:
            self.answers[call, status] += 1
            self.slowest = max(self.slowest, (seconds, call))
        if seconds > LATE:
            self.problem(f"{call} took {seconds:.1f} s, {status}")


class Worker:
    """One emulator with its own users file and its own line to the database."""

    def __init__(self, server: Server, folder: Path, mode: str) -> None:
        self._stack = ExitStack()
        self.relay = self._stack.enter_context(Relay(server.port))
        self.users_file = folder / "users.json"
        folder.mkdir()
        self._settings = {
            "DATABASE_URL": server.url(DATABASE, port=self.relay.port),
            "USERS_FILE": str(self.users_file),
            "FALLBACK": mode,
            "SNAPSHOT_INTERVAL": "5",
            "ADMIN_TOKEN": ADMIN,
            "DATABASE_TIMEOUT": str(DEADLINE),
            "DATABASE_CONNECT_TIMEOUT": "2",
            "DATABASE_STATEMENT_TIMEOUT": "1",
            "HASH_CONCURRENCY": "4",
            "THREADS": "16",
        }
        self._running = ExitStack()
        self.emulator = self._start()
        self.started = time.monotonic()

    def _start(self) -> Emulator:
        return self._running.enter_context(running_emulator(**self._settings))

    def kill(self) -> None:
        """Kill it, and start it again on its file."""
        os.killpg(self.emulator.process.pid, signal.SIGKILL)
        self.emulator.process.wait(10)
        self._stop()
        self.emulator = self._start()
        self.started = time.monotonic()

    def _stop(self) -> None:
        with suppress(ProcessLookupError):
            self._running.close()

    def close(self) -> None:
        """Stop it."""
        self._stop()
        self._stack.close()

    def memory(self) -> float:
        """Read what is resident, in MB."""
        status = Path(f"/proc/{self.emulator.worker}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    def reconcile(self) -> dict[str, int]:
        """Bring who is pending to Postgres; give what became of how many."""
        with self.emulator.client() as client:
            headers = {"Authorization": f"Bearer {ADMIN}"}
            answer = client.post("/api/migrate", json={"action": "reconcile"}, headers=headers)
        last = json.loads(answer.text.splitlines()[-1])
        counts: dict[str, int] = last.get("counts", {})
        return counts


@dataclass
class Person:
    """A user of one client, and what is certain about them."""

    email: str
    user_id: str
    passwords: set[str]
    """One of them is the password; there are two after a change without an answer."""
    token: str
    begun: float
    state: str = "live"
    """live, deleted, or uncertain."""


class Client:
    """A thread that uses one worker, with users of its own."""

    def __init__(self, name: str, worker: Worker, results: Results, seed: int) -> None:
        self._name, self._worker, self._results = name, worker, results
        self._random = random.Random(seed)
        self._numbers = iter(range(10**9))
        self.people: list[Person] = []
        self._actions: list[tuple[int, Callable[[], None]]] = [
            (3, self.sign_up),
            (4, self.log_in),
            (2, self.log_in_wrongly),
            (8, self.look),
            (4, self.look_stale),
            (2, self.log_out),
            (1, self.change_password),
            (1, self.delete),
        ]

    def run(self, stop: threading.Event) -> None:
        """Do one thing after the other."""
        weights = [weight for weight, _ in self._actions]
        while not stop.wait(self._random.uniform(0, 0.1)):
            (_, action) = self._random.choices(self._actions, weights)[0]
            try:
                action()
            except Exception as error:  # noqa: BLE001  # whatever it is, the soak has to tell
                self._results.problem(f"{self._name} {action.__name__}: {error!r}")

    def _call(
        self, name: str, method: str, path: str, token: str = "", **members: object
    ) -> httpx.Response | None:
        """Send a request; None where there is no answer, because the worker was killed."""
        headers = {"Cookie": f"session={token}"} if token else {}
        started = time.monotonic()
        try:
            with self._worker.emulator.client() as client:
                answer = client.request(method, path, headers=headers, json=members or None)
        except httpx.TransportError:
            return None
        self._results.answer(name, answer.status_code, time.monotonic() - started)
        if answer.status_code == 503 and int(answer.headers["Retry-After"]) < 1:
            self._results.problem(f"{name}: 503 without a time to come back")
        return answer

    def _expect(self, name: str, answer: httpx.Response | None, *statuses: int) -> bool:
        """Note a status that must not be; tell whether it is a success."""
        if answer is None:
            return False
        if answer.status_code not in (*statuses, 503):
            self._results.problem(f"{self._name} {name}: {answer.status_code} {answer.text[:200]}")
        return answer.status_code < 300

    def _person(self) -> Person | None:
        live = [person for person in self.people[-30:] if person.state == "live"]
        return self._random.choice(live) if live else None

    def _check_user(self, name: str, answer: httpx.Response, person: Person) -> None:
        found = answer.json()
        if (found["id"], found["email"]) != (person.user_id, person.email):
            self._results.problem(f"{name}: the answer is about another user")

    def sign_up(self) -> None:
        """Sign a new user up."""
        email = f"{self._name}-{next(self._numbers)}@example.com"
        password = self._random.choice(PASSWORDS)
        answer = self._call("sign-up", "POST", "/api/signup", email=email, password=password)
        if self._expect("sign-up", answer, 201) and answer is not None:
            person = Person(email, answer.json()["id"], {password}, _token(answer), time.time())
            self.people.append(person)
            self._check_user("sign-up", answer, person)
            with self._results.counting:
                self._results.acknowledged += 1

    def log_in(self) -> None:
        """Log a user in with the right password."""
        if person := self._person():
            self._log_in(person)

    def _log_in(self, person: Person) -> None:
        for password in sorted(person.passwords):
            answer = self._call(
                "login", "POST", "/api/login", email=person.email, password=password
            )
            if self._expect("login", answer, 200, 401) and answer is not None:
                self._check_user("login", answer, person)
                if not _is_degraded(answer):
                    person.token, person.begun = _token(answer), time.time()
                    person.passwords = {password}
                return
            if answer is None or answer.status_code == 503:
                return
        self._results.problem(f"{person.email}: a right password was refused")

    def log_in_wrongly(self) -> None:
        """Guess."""
        if person := self._person():
            members = {"email": person.email, "password": "a wrong password"}
            answer = self._call("wrong password", "POST", "/api/login", **members)
            self._expect("wrong password", answer, 401)

    def look(self) -> None:
        """Ask who is signed in, with a fresh session."""
        person = self._person()
        if person is None or time.time() - person.begun > 500:
            return
        answer = self._call("fresh session", "GET", "/api/user", person.token)
        if answer is not None:
            if answer.status_code != 200:
                self._results.problem(f"a fresh session got {answer.status_code}")
            else:
                self._check_user("fresh session", answer, person)

    def look_stale(self) -> None:
        """Ask with a stale session."""
        person = self._person()
        if person is None or len(person.passwords) > 1:
            return
        answer = self._call("stale session", "GET", "/api/user", stale(person.token))
        if self._expect("stale session", answer, 200) and answer is not None:
            self._check_user("stale session", answer, person)

    def log_out(self) -> None:
        """End a session of its own, and see that it has ended."""
        person = self._person()
        if person is None or len(person.passwords) > 1:
            return
        (password,) = person.passwords
        login = self._call("login", "POST", "/api/login", email=person.email, password=password)
        if not self._expect("login", login, 200) or login is None:
            return
        token = _token(login)
        answer = self._call("logout", "POST", "/api/logout", token)
        if self._expect("logout", answer, 200) and not _is_degraded(login):
            after = self._call("ended session", "GET", "/api/user", stale(token))
            self._expect("ended session", after, 401)

    def change_password(self) -> None:
        """Change the password; without an answer it may be either."""
        person = self._person()
        if person is None or len(person.passwords) > 1:
            return
        (old,) = person.passwords
        new = PASSWORDS[1 - PASSWORDS.index(old)]
        answer = self._call(
            "password",
            "POST",
            "/api/password",
            person.token,
            currentPassword=old,
            newPassword=new,
        )
        if self._expect("password", answer, 200) and answer is not None:
            person.passwords, person.token, person.begun = {new}, _token(answer), time.time()
        else:
            person.passwords = {old, new}

    def delete(self) -> None:
        """Delete the account; without an answer it may be there or not."""
        person = self._person()
        if person is None or len(person.passwords) > 1 or self._random.random() < 0.5:
            return
        (password,) = person.passwords
        answer = self._call("deletion", "DELETE", "/api/account", person.token, password=password)
        if self._expect("deletion", answer, 204):
            person.state = "deleted"
            login = self._call(
                "deleted user", "POST", "/api/login", email=person.email, password=password
            )
            if login is not None and login.status_code == 200 and not _is_degraded(login):
                self._results.problem("who was deleted has logged in")
        else:
            person.state = "uncertain"


def _is_degraded(login: httpx.Response) -> bool:
    return "Max-Age=600" in login.headers["Set-Cookie"]


def _token(answer: httpx.Response) -> str:
    return answer.headers["Set-Cookie"].split(";")[0].partition("=")[2]


class Faults:
    """Chooses a fault, has it last for a while, and waits for the recovery."""

    def __init__(self, server: Server, workers: list[Worker], results: Results, seed: int) -> None:
        self._server, self._workers, self._results = server, workers, results
        self._random = random.Random(seed)
        self._faults: dict[str, Callable[[], AbstractContextManager[None]]] = {
            "nobody listens": lambda: self._line(relays.REFUSE),
            "hung up on": lambda: self._line(relays.HANG_UP),
            "black hole": lambda: self._line(relays.BLACK_HOLE),
            "delay": lambda: self._line(Mode(delay=0.02)),
            "1 byte/s": lambda: self._line(relays.TRICKLE),
            "answers cut off": lambda: self._line(
                Mode(answer_bytes=self._random.randrange(1, 5000))
            ),
            "requests cut off": lambda: self._line(
                Mode(request_bytes=self._random.randrange(1, 5000))
            ),
            "flapping": lambda: self._line(relays.FLAP),
            "no TLS": lambda: self._line(relays.NO_TLS),
            "stopped": server.stopped,
            "frozen": server.frozen,
            "restarted": lambda: self._once(server.restart),
            "sessions ended": lambda: self._once(lambda: server.terminate_backends(DATABASE)),
            "read-only": lambda: server.read_only(DATABASE),
            "no connection left": self._full,
            "worker killed": lambda: self._once(self._random.choice(workers).kill),
        }

    def run(self, stop: threading.Event) -> None:
        """Have one fault after the other, each kind in turn."""
        names: list[str] = []
        while not stop.wait(self._random.uniform(1, 3)):
            names = names or self._random.sample(list(self._faults), len(self._faults))
            name = names.pop()
            self._results.faults[name] += 1
            with self._faults[name]():
                stop.wait(self._random.uniform(0.5, 4))
            for worker in self._workers:
                self._recover(worker, name)
            if self._random.random() < 0.3:
                for worker in self._workers:
                    self._results.reconciled.update(worker.reconcile())

    @contextmanager
    def _line(self, mode: Mode) -> Any:
        """Change what the lines do; half of the time open connections are cut as well."""
        cut = self._random.random() < 0.5
        for worker in self._workers:
            worker.relay.mode = mode
            if cut:
                worker.relay.cut()
        yield
        for worker in self._workers:
            worker.relay.mode = relays.FORWARD
            worker.relay.cut()

    @contextmanager
    def _once(self, happen: Callable[[], object]) -> Any:
        happen()
        yield

    @contextmanager
    def _full(self) -> Any:
        with self._server.out_of_connections(DATABASE):
            self._server.terminate_backends(DATABASE)
            yield

    def _recover(self, worker: Worker, fault: str) -> None:
        """Wait until the worker knows that its database is there."""
        started = time.monotonic()
        while True:
            with worker.emulator.client() as client, suppress(httpx.TransportError):
                health = client.get("/api/health").json()
                if health["database"]["status"] == "connected" and not health["fallback"]["since"]:
                    break
            if time.monotonic() - started > RECOVERY:
                self._results.problem(f"no recovery from “{fault}” within {RECOVERY:g} s")
                return
            time.sleep(0.02)
        self._results.recoveries.append(time.monotonic() - started)


def soak(seconds: float, seed: int, mode: str) -> tuple[Results, list[str]]:
    """Run, and give what was seen and the lines of the summary."""
    results = Results()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="auth-soak-")))
        server = stack.enter_context(running_postgres())
        server.run(f"CREATE DATABASE {DATABASE} OWNER app")
        bring_up_to_date(DatabaseUrl.parse(server.url(DATABASE)), DatabaseSettings())
        workers = [Worker(server, folder / name, mode) for name in ("one", "two")]
        for worker in workers:
            stack.callback(worker.close)
        clients = [
            Client(f"w{w}c{c}", worker, results, seed * 100 + w * 10 + c)
            for w, worker in enumerate(workers)
            for c in range(CLIENTS)
        ]
        stop = threading.Event()
        threads = [threading.Thread(target=client.run, args=(stop,)) for client in clients]
        faults = Faults(server, workers, results, seed)
        threads.append(threading.Thread(target=faults.run, args=(stop,)))
        for thread in threads:
            thread.start()
        time.sleep(seconds * WARM_UP)
        before = {worker.emulator.worker: _grown(worker) for worker in workers}
        time.sleep(seconds * (1 - WARM_UP))
        stop.set()
        for thread in threads:
            thread.join()
        flat = _check_flat(server, workers, before, results)
        for worker in workers:
            results.reconciled.update(worker.reconcile())
        _check_kept(server, workers, [p for client in clients for p in client.people], results)
    return results, [*_summary(results, seconds, seed, mode), *flat]


def _grown(worker: Worker) -> tuple[int, float]:
    return worker.emulator.descriptors(), worker.memory()


def _check_flat(
    server: Server,
    workers: list[Worker],
    before: dict[int, tuple[int, float]],
    results: Results,
) -> list[str]:
    """Compare each worker that was not killed meanwhile with itself."""
    lines = []
    for worker in workers:
        descriptors, memory = _grown(worker)
        old = before.get(worker.emulator.worker)
        if old is None:
            lines.append(
                f"a worker that was killed last: {descriptors} descriptors, {memory:.0f} MB"
            )
            continue
        lines.append(
            f"a worker: descriptors {old[0]} → {descriptors}, memory {old[1]:.0f} → {memory:.0f} MB"
        )
        if descriptors > old[0] + FEW_DESCRIPTORS:
            results.problem(f"open descriptors grew from {old[0]} to {descriptors}")
        if memory > old[1] * SOME_MEMORY:
            results.problem(f"memory grew from {old[1]:.0f} to {memory:.0f} MB")
    sessions = server.run(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{DATABASE}'")[0][
        0
    ]
    lines.append(f"sessions on the server: {sessions}")
    if sessions > len(workers) * Settings().database.max_connections:
        results.problem(f"{sessions} sessions are left on the server")
    return lines


def _check_kept(
    server: Server, workers: list[Worker], people: list[Person], results: Results
) -> None:
    """See that each acknowledged user is exactly once in Postgres or in a quarantine."""
    stored = Counter(row[0] for row in server.run("SELECT id::text FROM users", DATABASE))
    for worker in workers:
        path = quarantine_of(worker.users_file)
        for line in path.read_text().splitlines() if path.exists() else []:
            stored[json.loads(line)["user"]["id"]] += 1
    for person in people:
        places = stored[person.user_id]
        expected = {"live": (1,), "deleted": (0,), "uncertain": (0, 1)}[person.state]
        if places not in expected:
            results.problem(f"{person.email} ({person.state}) is in {places} places")


def _summary(results: Results, seconds: float, seed: int, mode: str) -> list[str]:
    calls = sorted({call for call, _ in results.answers})
    answers, faults = sum(results.answers.values()), sum(results.faults.values())
    lines = [
        f"{seconds:g} s, FALLBACK={mode}, seed {seed}:",
        f"{answers:,} answers, {faults} faults, {results.acknowledged:,} sign-ups acknowledged",
    ]
    for call in calls:
        counts = {s: n for (name, s), n in sorted(results.answers.items()) if name == call}
        lines.append(f"  {call:<16}" + "  ".join(f"{s}: {n:,}" for s, n in counts.items()))
    lines.append("faults: " + ", ".join(f"{n} {f}" for f, n in sorted(results.faults.items())))
    slowest, call = results.slowest
    lines.append(f"slowest answer: {slowest:.2f} s ({call}); the limit is {LATE:g} s")
    if results.recoveries:
        median, worst = statistics.median(results.recoveries), max(results.recoveries)
        lines.append(
            f"recovery: median {median:.2f} s, worst {worst:.2f} s of {len(results.recoveries)}"
        )
    reconciled = ", ".join(f"{n} {o}" for o, n in sorted(results.reconciled.items()) if n)
    lines.append(f"reconciled: {reconciled or 'nobody'}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak as the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Soak the workers.")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--mode", choices=("full", "readonly", "off"), default="full")
    options = parser.parse_args(arguments)
    results, lines = soak(options.seconds, options.seed, options.mode)
    print("\n".join(lines))
    for problem, count in Counter(results.problems).most_common(50):
        print(f"NOT SO: {problem}" + (f" ({count} times)" if count > 1 else ""))
    print(
        "All that must hold did." if not results.problems else f"{len(results.problems)} problems"
    )
    return bool(results.problems)


if __name__ == "__main__":
    sys.exit(main())
