"""Imports that take minutes: `make test-long` names this file, and nothing else collects it."""

from __future__ import annotations

import json
from pathlib import Path

from shared.database.pool import Database
from shared.database.settings import DatabaseSettings
from shared.database.url import DatabaseUrl
from shared.transfer import importing
from shared.transfer.json_rows import JsonSource
from shared.transfer.source_file import open_source
from tests.support.relay import Mode, Relay
from tests.support.transfers import Target, finish, nonzero, user


def _written(folder: Path, count: int) -> Path:
    path = folder / "users.jsonl"
    with path.open("w") as file:
        file.writelines(f"{json.dumps(user(number))}\n" for number in range(count))
    return path


def _bring(database: Database, path: Path, count: int) -> None:
    with open_source(path) as stream:
        applied, _ = finish(
            importing.apply(database, JsonSource(stream), batch_id="long", run_by="test")
        )
    assert nonzero(applied.plan.counts) == {"new": count}
    with open_source(path) as stream:
        found, _ = finish(importing.verify(database, JsonSource(stream)))
    assert nonzero(found.counts) == {"identical": count}


def test_a_million_users_come_over_with_the_settings_that_nobody_changed(
    target: Target, tmp_path: Path
) -> None:
    _bring(target.database, _written(tmp_path, 1_000_000), 1_000_000)


def test_twenty_thousand_come_over_a_slow_line_whatever_a_request_may_take(
    target: Target, relay: Relay, tmp_path: Path
) -> None:
    path = _written(tmp_path, 20_000)
    relay.mode = Mode(rate=400_000)
    url = DatabaseUrl.parse(target.server.url(target.name, port=relay.port))
    _bring(Database(url, DatabaseSettings(timeout=4)), path, 20_000)
