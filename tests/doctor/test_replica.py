"""What make doctor says of the read replica: each fault in a sentence, with a remedy."""

from __future__ import annotations

import re

import pytest

from shared.doctor import replica as replica_checks
from shared.doctor.subject import Verdict
from tests.support.doctor import look, told
from tests.support.emulator import ROOT
from tests.support.postgres import PASSWORD
from tests.support.replicas import Pair

(GRANT,) = re.findall(
    r"```sql\n(GRANT SELECT.*?) TO reader;\n```", (ROOT / "docs" / "OPERATIONS.md").read_text()
)


def _look(pair: Pair, read_url: str = "") -> tuple[Verdict, str, str]:
    url = read_url or pair.standby.url(pair.name)
    (found,) = look("replica", DATABASE_URL=pair.primary.url(pair.name), DATABASE_READ_URL=url)
    assert found.sentence.startswith("The read replica")
    return found.verdict, found.sentence, found.remedy


def test_one_that_follows_is_well_and_one_that_does_not_says_by_how_much(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict, sentence, _ = _look(pair)
    assert verdict == "ok"
    assert "follows the primary, at most" in sentence
    monkeypatch.setattr(replica_checks, "LATE_SECONDS", 0.0)
    verdict, sentence, remedy = _look(pair)
    assert verdict == "note"
    assert "behind" in sentence
    assert "pg_is_wal_replay_paused()" in remedy
    assert look("replica", DATABASE_URL=pair.primary.url(pair.name)) == []


def test_one_that_is_away_refuses_or_is_none_is_a_problem(pair: Pair) -> None:
    verdict, sentence, remedy = _look(pair, pair.standby.url(pair.name, port=1))
    assert verdict == "problem"
    assert "is not used, and the primary is read instead: cannot connect" in sentence
    assert remedy.startswith("Check host and port in DATABASE_READ_URL")
    for url, part in (
        (pair.standby.url(pair.name, password="canary"), "28P01"),
        (pair.standby.url("missing"), "3D000"),
        (pair.standby.url("postgres"), "another database"),
        (pair.primary.url("postgres"), "it is no standby"),
    ):
        verdict, sentence, remedy = _look(pair, url)
        assert (verdict, part in sentence) == ("problem", True), sentence
        assert "canary" not in sentence
        assert remedy.startswith("docs/OPERATIONS.md, “A read replica”")


def test_a_right_and_a_migration_that_are_missing_are_named(pair: Pair) -> None:
    pair.run(f"CREATE ROLE looker LOGIN PASSWORD '{PASSWORD}'")
    pair.run("GRANT SELECT ON users, identities, revoked_sessions TO looker")
    pair.catch_up()
    url = pair.standby.url(pair.name, user="looker")
    verdict, sentence, remedy = _look(pair, url)
    assert verdict == "problem"
    lacking = "auth_events, event_hours, changed_hours, schema_migrations"
    assert sentence.endswith(f"lets the role looker not read {lacking}.")
    assert f"`GRANT SELECT ON {lacking} TO looker`" in remedy
    pair.run(f"{GRANT} TO looker")
    pair.catch_up()
    assert _look(pair, url)[0] == "ok", "as the document has it"
    pair.run("DELETE FROM schema_migrations WHERE version = 11")
    with pair.paused():
        pair.run(
            "INSERT INTO schema_migrations (version, name, checksum) "
            "SELECT 11, '0011_mail.sql', 'x'"
        )
        verdict, sentence, _ = _look(pair)
    assert verdict == "problem"
    assert "has not replayed 0011_mail.sql yet" in sentence


def test_while_the_primary_cannot_be_asked_nothing_is_said(pair: Pair) -> None:
    url = pair.primary.url("missing")
    read_url = pair.standby.url(pair.name)
    found = look("database", "replica", DATABASE_URL=url, DATABASE_READ_URL=read_url)
    assert len(told(found, "problem")) == len(found) == 1
