"""Nobody ever gets another's row, whatever happens to the connections."""

from __future__ import annotations

import http.client
import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest

from shared.credentials.session_tokens import SessionTokens
from shared.credentials.signing import Signing
from shared.database.pool import Database
from shared.database.settings import DatabaseSettings
from shared.database.url import DatabaseUrl
from shared.model.sessions import FRESH_SECONDS
from tests.support.emulator import SECRET, Emulator, running_emulator
from tests.support.postgres import Server, running_pgbouncer
from tests.support.stores import user_of

CLIENTS = 16
SECONDS = 900
"""Far more than it takes, so that a server that only says 503 fails the test instead of hanging."""
TOKENS = SessionTokens(Signing([SECRET]))
HOSTILE = [
    b'{"email": "\\ud800", "password": "x"}',
    b'{"email": "a\\u0000b", "password": "x"}',
    b'{"email": "x@example.com", "password": "\\udfff"}',
]


class Client:
    """One user who knows who they are, on a connection of their own."""

    def __init__(self, emulator: Emulator, number: int) -> None:
        host, port = emulator.url.removeprefix("http://").split(":")
        self._connection = http.client.HTTPConnection(host, int(port), timeout=60)
        self._login = json.dumps(
            {"email": f"user{number}@example.com", "password": f"password {number:04}"}
        ).encode()
        self._random = random.Random(number)
        self.outcomes: Counter[str] = Counter()
        status, self._user = self._request("POST", "/api/signup", self._login)
        assert status == 201, self._user

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def act(self) -> None:
        """Log in, look who is logged in, or send what must be refused."""
        choice = self._random.random()
        if choice < 0.05:
            status, _ = self._request("POST", "/api/login", self._random.choice(HOSTILE))
            self.outcomes["refused" if status == 400 else f"hostile {status}"] += 1
            return
        if choice < 0.3:
            status, body = self._request("POST", "/api/login", self._login)
        else:
            known = user_of(self._user)
            age = FRESH_SECONDS + 1 if choice < 0.9 else 0  # Most of them must be looked up.
            token = TOKENS.issue(known, time.time() - age).text
            status, body = self._request("GET", "/api/user", cookie=token)
        if status == 200:
            self.outcomes["right" if body == self._user else "WRONG"] += 1
        else:
            self.outcomes[str(status)] += 1

    def _request(
        self, method: str, path: str, body: bytes | None = None, cookie: str = ""
    ) -> tuple[int, dict[str, Any]]:
        headers = {"Content-Type": "application/json"} if body else {}
        if cookie:
            headers["Cookie"] = f"session={cookie}"
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        return response.status, json.loads(response.read())


@contextmanager
def _disturbed(server: Server, database: str) -> Iterator[None]:
    """Kill backends, hold the table for longer than a statement may take, change its columns."""
    calm = threading.Event()

    def disturb() -> None:
        victims = (
            "SELECT pid FROM pg_stat_activity WHERE usename = 'app' "
            f"AND datname = '{database}' ORDER BY random() LIMIT 1"
        )
        with server.connect(database) as connection:
            for turn in itertools.count():
                if calm.wait(0.15):
                    return
                connection.run(f"SELECT pg_terminate_backend(pid) FROM ({victims}) AS victims")
                if turn % 5 == 0:
                    connection.run("BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
                    calm.wait(0.3)
                    connection.run("ROLLBACK")
                if turn % 20 == 10:  # As a migration does, while statements have their plans.
                    connection.run(
                        f"ALTER TABLE users ALTER COLUMN name TYPE varchar({300 + turn})"
                    )

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        yield
    finally:
        calm.set()
        thread.join()


def _hammer(emulator: Emulator, server: Server, database: str, answers: int) -> Counter[str]:
    with ThreadPoolExecutor(CLIENTS) as threads:
        # One after the other: a statement has little time here.
        clients = [Client(emulator, number) for number in range(CLIENTS)]

        deadline = time.monotonic() + SECONDS

        def run(client: Client) -> None:
            while client.outcomes["right"] < answers // CLIENTS and not client.outcomes["WRONG"]:
                assert time.monotonic() < deadline, client.outcomes
                client.act()

        with _disturbed(server, database):
            list(threads.map(run, clients))
    for client in clients:
        client.close()
    outcomes = sum((client.outcomes for client in clients), Counter[str]())
    outcomes["planned each time"] = emulator.output().count("are planned each time")
    return outcomes


@pytest.mark.parametrize("answers", [960, pytest.param(20_000, marks=pytest.mark.long)])
@pytest.mark.parametrize("way", ["pooled", "preparing", "direct"])
def test_nobody_gets_anothers_row(
    postgres: Server, database: str, way: str, answers: int, request: pytest.FixtureRequest
) -> None:
    settings = {
        "THREADS": str(CLIENTS),
        "HASH_CONCURRENCY": str(CLIENTS),
        "DATABASE_STATEMENT_TIMEOUT": "0.2",
        "DATABASE_MAX_CONNECTIONS": "3" if way == "direct" else "12",
    }
    if way != "direct":
        prepares = way == "preparing"
        request.getfixturevalue("newer_pgbouncer" if prepares else "pgbouncer_program")
        with (
            running_pgbouncer(
                postgres, server_connections=3, fetched=prepares, max_prepared_statements=3
            ) as pooler,
            running_emulator(
                DATABASE_URL=postgres.url(database, port=pooler.port), **settings
            ) as emulator,
        ):
            outcomes = _hammer(emulator, postgres, database, answers)
    else:
        with running_emulator(DATABASE_URL=postgres.url(database), **settings) as emulator:
            outcomes = _hammer(emulator, postgres, database, answers)
    print(way, dict(outcomes))
    assert outcomes.pop("planned each time") == (way == "pooled")
    assert outcomes["WRONG"] == 0
    assert outcomes["right"] >= answers
    assert outcomes["refused"] > 0
    # A disturbed request may fail, but only by saying that it should be tried again.
    assert set(outcomes) <= {"right", "WRONG", "refused", "503"}
    assert outcomes["503"] > 0, "the disturbance must have disturbed somebody"


def test_behind_a_pooler_each_client_gets_the_answer_to_its_own_statement(
    postgres: Server, database: str, pgbouncer_program: str
) -> None:
    # No two clients send the same statement: whoever is given another's notices.
    def ask(pool: Database, client: int) -> None:
        for number in range(100):
            rows = pool.execute(f"SELECT :number, {client}, pg_sleep(0.001)", number=number)
            assert rows[0][:2] == [str(number), client]

    with running_pgbouncer(postgres, server_connections=3) as pooler, ExitStack() as stack:
        url = DatabaseUrl.parse(postgres.url(database, port=pooler.port))
        pools = [
            stack.enter_context(closing(Database(url, DatabaseSettings()))) for _ in range(CLIENTS)
        ]
        with ThreadPoolExecutor(CLIENTS) as threads:
            list(threads.map(ask, pools, range(CLIENTS)))
