"""Whether the time of a login that fails tells what kind of account it failed at.

Every kind is asked in turn, in an order that changes, so that other work on the machine slows all
of them alike; then each two are compared by their ranks, which no outlier moves.
"""

from __future__ import annotations

import itertools
import math
import random
import time
import uuid
from collections.abc import Sequence

from bench.load import Connection, post
from bench.report import Measurement
from bench.servers import PASSWORD, Program, running
from shared.application import open_store
from shared.credentials.passwords import PasswordHasher
from shared.model.users import ExternalIdentity, User
from shared.settings import Settings
from tests.support.emulator import ROOT, SECRET

P_VALUE = 0.001
"""Of two kinds between which there is no difference, the smallest of ten is below once in 100."""


def measure(name: str, settings: dict[str, str], samples: int) -> list[Measurement]:
    """Ask one store `samples` times for each kind, at cost 4."""
    rounds = 4
    limits = {
        "BCRYPT_ROUNDS": str(rounds),
        "MAX_ACCOUNT_ATTEMPTS": str(samples + 1),  # Used up for one account before it begins.
    }
    logins = _logins(settings, rounds)
    program = Program(ROOT / "main.py", "api", settings | limits)
    times: dict[str, list[float]] = {kind: [] for kind in logins}
    with running(program) as (server,), Connection(server.port) as connection:
        for _ in range(samples + 2):
            connection.exchange(logins["throttled"]).check(401)
        order = list(logins.items())
        for _ in range(samples):
            random.shuffle(order)
            for kind, request in order:
                started = time.perf_counter()
                answer = connection.exchange(request)
                times[kind].append((time.perf_counter() - started) * 1000)
                answer.check(401)
    p_values = {pair: _p_value(*(times[kind] for kind in pair)) for pair in _pairs(times)}
    smallest = min(p_values, key=p_values.__getitem__)
    return [
        Measurement(
            name=f"failed logins told apart by time, {name}: smallest p-value",
            unit="",
            ours=[p_values[smallest]],
            at_least=P_VALUE,
            note=f"On {name}, {samples} samples a kind, medians: {_medians(times)}; "
            f"most unlike: {' and '.join(smallest)}, p = {p_values[smallest]:.3g}.",
        )
    ]


def _logins(settings: dict[str, str], rounds: int) -> dict[str, bytes]:
    strong = PasswordHasher(rounds).hash(PASSWORD)
    hashes = {"wrong": strong, "google": None, "throttled": strong, "corrupt": "$2b$04$corrupt"}
    store = open_store(Settings.from_env({"SESSION_SECRET": SECRET} | settings))
    for kind, password in hashes.items():
        google = [ExternalIdentity("https://accounts.google.com", "1")] if kind == "google" else []
        user = User(str(uuid.uuid4()), f"{kind}@example.com", None, "local")
        store.create_user(user, password, google)
    store.close()
    return {
        kind: post("/api/login", email=f"{kind}@example.com", password="a wrong guess")
        for kind in (*hashes, "unknown")
    }


def _pairs(times: dict[str, list[float]]) -> list[tuple[str, str]]:
    return list(itertools.combinations(times, 2))


def _medians(times: dict[str, list[float]]) -> str:
    middle = {kind: sorted(found)[len(found) // 2] for kind, found in times.items()}
    return ", ".join(f"{kind} {milliseconds:.3f} ms" for kind, milliseconds in middle.items())


def _p_value(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Give the two-sided p-value of the rank test of Mann and Whitney, by its normal limit."""
    ranked = sorted([(value, 0) for value in ours] + [(value, 1) for value in theirs])
    ranks = sum(rank for rank, (_, side) in enumerate(ranked, 1) if side == 0)
    n, m = len(ours), len(theirs)
    deviation = math.sqrt(n * m * (n + m + 1) / 12)
    z = (ranks - n * (n + m + 1) / 2) / deviation
    return math.erfc(abs(z) / math.sqrt(2))
