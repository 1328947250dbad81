"""Sign-ups of an outage, brought to Postgres from their file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shared.store.json_file.store import JsonFileStore
from shared.store.settings import StoreSettings
from shared.transfer.reconciling import Reconciled, quarantine_of, reconcile
from shared.transfer.steps import Outcome
from tests.support.outage import new_user
from tests.support.transfers import HASH, Target, finish

CONTENTS = "SELECT to_jsonb(u) FROM users u ORDER BY email"


def store_of(file: Path, *, is_fallback: bool = True) -> JsonFileStore:
    return JsonFileStore(StoreSettings(users_file=file), is_fallback=is_fallback)


def sign_up(file: Path, *emails: str) -> list[str]:
    """Sign users up in an outage, and give their ids."""
    return [store_of(file).create_user(new_user(email), HASH).id for email in emails]


def reconcile_file(target: Target, file: Path) -> tuple[Reconciled, list[Outcome]]:
    return finish(reconcile(target.database, store_of(file), quarantine_of(file)))


def quarantined(file: Path) -> list[dict[str, Any]]:
    path = quarantine_of(file)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
