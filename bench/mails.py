"""Whether the time of an answer tells who has an account, where a mail is asked for.

Addresses of each kind are asked for in turn, in an order that changes, so that other work on the
machine slows all of them alike.
"""

from __future__ import annotations

import itertools
import random
import tempfile
import time
import uuid
from statistics import median

from bench.load import Connection, post
from bench.report import Measurement
from bench.servers import Program, running
from shared.application import open_store
from shared.model.users import User
from shared.settings import Settings
from tests.support.emulator import ROOT, SECRET

MAX_DIFFERENCE = 0.05
"""Of two medians, as a part of the smaller."""
ASKED_BEFORE = 3
"""Mails after which an address gets no more for an hour."""


def measure(name: str, store: dict[str, str], samples: int) -> list[Measurement]:
    """Ask one store `samples` times for each kind of address; each known one is asked for once.

    Nothing is delivered meanwhile: that happens after other answers, or in a request of its own.
    """
    with tempfile.TemporaryDirectory(prefix="auth-bench-") as folder:
        settings = {
            "ENVIRONMENT": "development",
            "USERS_FILE": f"{folder}/users.json",
            "MAIL_DELIVERY": "self",
            "PUBLIC_URL": "http://127.0.0.1:9",
        } | store
        _create_users(settings, samples)
        times = _ask(settings, samples)
    medians = {kind: median(found) for kind, found in times.items()}
    difference = max(
        abs(one - two) / min(one, two) for one, two in itertools.combinations(medians.values(), 2)
    )
    told = ", ".join(f"{kind} {milliseconds:.3f} ms" for kind, milliseconds in medians.items())
    return [
        Measurement(
            name=f"mails asked for, told apart by time, {name}: largest difference of medians",
            unit="",
            ours=[difference],
            at_most=MAX_DIFFERENCE,
            note=f"On {name}, {samples} interleaved samples a kind, medians: {told}.",
        )
    ]


def _create_users(settings: dict[str, str], samples: int) -> None:
    store = open_store(Settings.from_env({"SESSION_SECRET": SECRET} | settings))
    for address in ("throttled@example.com", *(f"known{n}@example.com" for n in range(samples))):
        store.create_user(User(str(uuid.uuid4()), address, None, "local"), None)
    store.close()


def _ask(settings: dict[str, str], samples: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {"known": [], "unknown": [], "throttled": []}
    program = Program(ROOT / "main.py", "api", settings)
    with running(program) as (server,), Connection(server.port) as connection:
        for _ in range(ASKED_BEFORE):
            connection.exchange(_forgot("throttled@example.com")).check(202)
        for number in range(samples):
            requests = {
                "known": _forgot(f"known{number}@example.com"),
                "unknown": _forgot(f"nobody{number}@example.com"),
                "throttled": _forgot("throttled@example.com"),
            }
            for kind in random.sample([*requests], len(requests)):
                started = time.perf_counter()
                answer = connection.exchange(requests[kind])
                times[kind].append((time.perf_counter() - started) * 1000)
                answer.check(202)
    return times


def _forgot(address: str) -> bytes:
    return post("/api/password/forgot", email=address)
