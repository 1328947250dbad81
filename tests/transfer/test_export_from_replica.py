"""The export where there is a read replica: of that one, said as of when, or of the primary."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from shared.database.connection import Connection
from shared.database.session import Row
from shared.transfer import export, staging
from shared.transfer.steps import Done, Progress, run
from tests.support.commands import Ended, invoke
from tests.support.emulator import environment
from tests.support.replicas import Pair, Said
from tests.support.waiting import until

_FILL = """
INSERT INTO users (email, email_key, created_at)
SELECT n || '@example.com', n || '@example.com', CURRENT_TIMESTAMP + n * interval '1 ms'
FROM generate_series(1, {}) n
"""
_CONFLICTS = "SELECT confl_snapshot FROM pg_stat_database_conflicts WHERE datname = '{}'"
NUMBER = 2500
"""Users that are fetched in three goes."""


@pytest.fixture
def filled(pair: Pair) -> Pair:
    pair.run(_FILL.format(NUMBER))
    pair.catch_up()
    return pair


def _export(pair: Pair, tmp_path: Path, *arguments: str, **settings: str) -> Ended:
    variables = pair.variables | {"USERS_FILE": str(tmp_path / "users.json")} | settings
    output = tmp_path / f"{time.time_ns()}.json"
    return invoke(("export", "--output", str(output), *arguments), environment(**variables))


def _result(ended: Ended) -> dict[str, Any]:
    assert ended.code == 0, ended.error
    *_, last = map(json.loads, ended.output.splitlines())
    return dict(last)


def test_it_is_the_replicas_and_says_as_of_when(filled: Pair, tmp_path: Path) -> None:
    here, there = Said(filled.standby), Said(filled.primary)
    ended = _export(filled, tmp_path, "--json")
    found = _result(ended)
    assert found["rows"] == len(json.loads(Path(found["path"]).read_bytes())) == NUMBER
    assert datetime.fromisoformat(found["as_of"]).timestamp() <= time.time()
    assert len(there.lines()) == 1, "what it is was asked of the primary, and nothing else"
    assert any(line.startswith("DECLARE") for line in here.lines())
    shown = _export(filled, tmp_path)
    assert "later changes may be missing; --primary reads the primary" in shown.output


def test_with_the_option_or_without_the_setting_it_is_the_primarys(
    filled: Pair, tmp_path: Path
) -> None:
    here = Said(filled.standby)
    with filled.paused():
        filled.run("DELETE FROM users WHERE email = '1@example.com'")
        behind = _result(_export(filled, tmp_path, "--json"))
        heard = len(here.lines())
        for found in (
            _result(_export(filled, tmp_path, "--json", "--primary")),
            _result(_export(filled, tmp_path, "--json", DATABASE_READ_URL="")),
        ):
            assert found.keys() == {"event", "path", "rows", "users_sha256", "not_for_old_server"}
            assert found["rows"] == NUMBER - 1
        assert len(here.lines()) == heard
    assert behind["rows"] == NUMBER


def test_a_replica_that_cancels_it_is_told_and_the_export_begins_again(filled: Pair) -> None:
    """VACUUM on the primary removes rows that the export still sees, and the replica replays it."""
    replica = filled.replica()
    written = bytearray()
    number, done = 0, None
    for event in run(
        export.export(replica.primary, written.extend, replica, written.clear), seconds=0
    ):
        if isinstance(event, Progress) and not number:
            number = event.rows
            filled.run("DELETE FROM users WHERE email LIKE '%7@example.com'")
            filled.run("VACUUM users")
            until(lambda: filled.standby.run(_CONFLICTS.format(filled.name)) != [[0]])
        if isinstance(event, Done):
            done = event.result
    assert number == 1000
    assert done is not None
    assert (done.as_of, done.rows) == (None, NUMBER * 9 // 10)
    assert len(json.loads(written)) == done.rows
    (told,) = replica.told
    assert told.outcome == "conflict"
    assert "due to conflict with recovery" in told.cause
    with replica.reading("test") as (connection, _):
        assert connection.execute("SELECT 1") == [[1]], "it is not passed over because of that"


def test_the_command_says_in_a_sentence_why_it_is_not_the_replicas(
    filled: Pair, tmp_path: Path
) -> None:
    url = filled.standby.url("missing")
    ended = _export(filled, tmp_path, DATABASE_READ_URL=url)
    assert ended.code == 0
    assert ended.error.startswith("The export is of the primary, not of the read replica: ")
    assert "3D000" in ended.error
    ended = _export(filled, tmp_path, "--json", DATABASE_READ_URL=url)
    notice, *_ = map(json.loads, ended.output.splitlines())
    assert notice["event"] == "notice"
    assert "as_of" not in _result(ended)
    assert _result(ended)["rows"] == NUMBER


def test_what_stops_after_a_thousand_users_leaves_one_whole_file(
    filled: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The part that the replica gave is gone from the file."""

    def stream(connection: Connection, statement: str, **options: Any) -> Iterator[Row]:
        for number, row in enumerate(_stream(connection, statement, **options)):
            if number == 1000 and options["fetch_seconds"]:
                filled.run("DELETE FROM users WHERE length(email) > 14")
                filled.standby.run(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'"
                )
            yield row

    _stream = staging.stream
    monkeypatch.setattr(staging, "stream", stream)
    ended = _export(filled, tmp_path, "--json")
    assert "the primary, not of the read replica: 57P01" in ended.output
    found = _result(ended)
    assert "as_of" not in found
    written = json.loads(Path(found["path"]).read_bytes())
    assert len(written) == 99, "fewer than the replica had given"
