"""The JSON store on a large file: a reading, and a sign-up, against what any program would do."""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.load import in_turns
from bench.report import Measurement
from shared import files
from shared.model.users import User
from shared.store.json_file.store import JsonFileStore
from shared.store.settings import StoreSettings
from tests.support.transfers import HASH, user

USERS = 50_000
"""Up to so many the documents recommend it."""


def measure(rounds: int) -> list[Measurement]:
    """Compare with parsing the file alone, and with copying it durably."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "users.json"
        path.write_text(json.dumps([user(number) for number in range(USERS)], indent=2))
        store = _store(path)
        parsing, reading, copying, signing_up, looking_up = in_turns(
            rounds,
            partial(_milliseconds, lambda: json.loads(path.read_bytes())),
            partial(_milliseconds, lambda: _store(path).credentials("user7@example.com")),
            partial(_milliseconds, lambda: files.replace(path.parent / "copy", path.read_bytes())),
            partial(_milliseconds, lambda: store.create_user(_user(), HASH)),
            partial(_milliseconds, lambda: store.credentials("user7@example.com")),
        )
    return [
        Measurement(
            name=f"first login, file of {USERS:,} / parsing it",
            unit="ms",
            floor=parsing,
            ours=reading,
            comparison="ratio",
            at_most=4,
        ),
        Measurement(
            name=f"sign-up, file of {USERS:,} / copying it",
            unit="ms",
            floor=copying,
            ours=signing_up,
            comparison="ratio",
            at_most=4,
        ),
        Measurement(
            name="looking a user up after a sign-up", unit="ms", ours=looking_up, at_most=1
        ),
    ]


def _store(path: Path) -> JsonFileStore:
    return JsonFileStore(StoreSettings(users_file=path))


def _user() -> User:
    name = str(uuid.uuid4())
    return User(id=name, email=f"{name}@example.com", name=None, provider="local")


def _milliseconds(do: Callable[[], object]) -> float:
    started = time.perf_counter()
    do()
    return (time.perf_counter() - started) * 1000
