"""Whether the time of an answer tells who has an account, where a mail is asked for.

Addresses of each kind are asked for in turn, in an order that changes, so that other work on the
machine slows all of them alike.
"""

from __future__ import annotations

import itertools
import json
import random
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bench.load import Connection, get, post
from bench.report import Measurement
from bench.servers import Program, running
from shared.formats.timestamps import now_iso
from tests.support.emulator import ROOT
from tests.support.mail_servers import Certificates, MailServer, url_of
from tests.support.stores import postgres_store

MAX_DIFFERENCE = 0.05
"""Of two medians, as a part of the smaller."""
ASKED_BEFORE = 3
"""Mails after which an address gets no more for an hour."""
PATHS = ("/api/password/forgot", "/api/login/mail", "/api/email/verification")
KINDS = ("known", "google-only", "unverified", "disabled", "unknown", "throttled")
HASH = "$2b$10$" + "a" * 53
_INSERT = """
INSERT INTO users (id, email, email_key, password, provider, unverified_since, disabled_at)
SELECT id, email, email, password, provider, "unverifiedSince", "disabledAt"
FROM json_to_recordset(:rows::json) AS r (id uuid, email text, password text, provider text,
    "unverifiedSince" timestamptz, "disabledAt" timestamptz)
"""
NEXT = 4
"""Requests that follow on the same connection, where mails are delivered meanwhile."""


def measure(name: str, store: dict[str, str], samples: int) -> list[Measurement]:
    """Ask one store `samples` times for each kind of address; each known one is asked for once.

    Once nothing is delivered meanwhile; and once by the process itself, whose next answers count
    as well.
    """
    found = []
    for is_delivering in (False, True):
        with tempfile.TemporaryDirectory(prefix="auth-bench-") as folder:
            settings = {
                "ENVIRONMENT": "development",
                "USERS_FILE": f"{folder}/users.json",
                "MAIL_DELIVERY": "self",
                "PUBLIC_URL": "http://127.0.0.1:9",
                "SIGN_IN_BY_MAIL": "true",
            } | store
            _create_users(settings, samples)
            if not is_delivering:
                found += [_compared(name, path, settings, samples) for path in PATHS]
                continue
            with _mail_server(Path(folder)) as delivering:
                found.append(_compared(name, PATHS[0], settings | delivering, samples, NEXT))
    return found


@contextmanager
def _mail_server(folder: Path) -> Iterator[dict[str, str]]:
    """Run one, and give the settings of who delivers to it after an answer."""
    certificates = Certificates(folder)
    with MailServer(certificates.context()).running() as server:
        yield {
            "MAIL_DELIVERY": "after",
            "MAIL_URL": url_of(server.port),
            "MAIL_FROM": "no-reply@example.com",
            "SSL_CERT_FILE": certificates.roots,
        }


def _compared(
    name: str, path: str, settings: dict[str, str], samples: int, following: int = 0
) -> Measurement:
    times = _ask(path, settings, samples, following)
    medians = {kind: median(found) for kind, found in times.items()}
    difference = max(
        abs(one - two) / min(one, two) for one, two in itertools.combinations(medians.values(), 2)
    )
    told = ", ".join(f"{kind} {milliseconds:.3f} ms" for kind, milliseconds in medians.items())
    what = f"{path}, {name}"
    if following:
        what += f", delivering, with the next {following} answers"
    return Measurement(
        name=f"mails asked for, told apart by time, {what}: largest difference of medians",
        unit="",
        ours=[difference],
        at_most=MAX_DIFFERENCE,
        note=f"{what}, {samples} interleaved samples a kind, medians: {told}.",
    )


def _create_users(settings: dict[str, str], samples: int) -> None:
    """Store them as an operator would, all at once."""
    now = now_iso()
    rows = []
    for kind, number in itertools.product(KINDS, range(samples)):
        if kind == "unknown" or (kind == "throttled" and number):
            continue
        row = {"id": str(uuid.uuid4()), "email": f"{kind}{number}@example.com"}
        is_local = kind != "google-only"
        row |= {"password": HASH, "provider": "local"} if is_local else {"provider": "google"}
        row |= {"createdAt": now, "updatedAt": now}
        row |= {"unverifiedSince": now} if kind == "unverified" else {}
        row |= {"disabledAt": now} if kind == "disabled" else {}
        rows.append(row)
    if "DATABASE_URL" not in settings:
        Path(settings["USERS_FILE"]).write_text(json.dumps(rows))
        return
    store = postgres_store(**settings)
    for table in ("users", "mail_outbox", "auth_attempts"):
        store.database.execute(f"DELETE FROM {table}")  # noqa: S608  # constants
    store.database.execute(_INSERT, rows=json.dumps(rows))
    store.close()


def _ask(
    path: str, settings: dict[str, str], samples: int, following: int
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    program = Program(ROOT / "main.py", "api", settings)
    with running(program) as (server,), Connection(server.port) as connection:
        for _ in range(ASKED_BEFORE):
            connection.exchange(post(path, email="throttled0@example.com")).check(202)
        for number in range(samples):
            for kind in random.sample(KINDS, len(KINDS)):
                address = f"{kind}{0 if kind == 'throttled' else number}@example.com"
                request = post(path, email=address)
                started = time.perf_counter()
                answer = connection.exchange(request)
                for _ in range(following):
                    connection.exchange(get("/api/livez"))
                times[kind].append((time.perf_counter() - started) * 1000)
                answer.check(202)
    return times
