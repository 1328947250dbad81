"""A row that the operator's own constraints or triggers refuse is named, and nothing is written."""

from __future__ import annotations

from typing import Any

import pytest

from shared.errors import TransferRefused
from shared.transfer import rollback, writing
from tests.support.foreign_objects import cases, trigger
from tests.support.transfers import Target, finish, nonzero, user

COUNT, BAD = 20, 13
IDENTITY = {"issuer": "https://accounts.google.com"}
_CONTENTS = """
SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM identities),
    (SELECT count(*) FROM import_records), (SELECT count(*) FROM import_batches)
"""
_DEFERRED = "DEFERRABLE INITIALLY DEFERRED"
_NAMES = f"""
CREATE TABLE names AS SELECT 'user' || n AS name FROM generate_series(1, {COUNT}) n;
ALTER TABLE names ADD PRIMARY KEY (name); GRANT ALL ON names TO app;
ALTER TABLE users ADD CONSTRAINT guard FOREIGN KEY (name) REFERENCES names {_DEFERRED}
"""

REFUSALS: dict[str, tuple[str, dict[str, Any], str]] = {
    "a check": ("ALTER TABLE users ADD CONSTRAINT guard CHECK (name <> 'Eve')", {"name": "Eve"},
                'violates check constraint "guard"'),
    "a column more": (
        "ALTER TABLE users ADD tag text NOT NULL GENERATED ALWAYS AS (name) STORED",
        {"name": ...}, '"tag"'),
    "a unique name": ("ALTER TABLE users ADD CONSTRAINT guard UNIQUE (name)", {"name": "user3"},
                      'unique constraint "guard"'),
    "a unique name at the end": (
        f"ALTER TABLE users ADD CONSTRAINT guard UNIQUE (name) {_DEFERRED}",
        {"name": "user3"}, 'unique constraint "guard"'),
    "an exclusion": ("ALTER TABLE users ADD CONSTRAINT guard EXCLUDE (name WITH =)",
                     {"name": "user3"}, 'exclusion constraint "guard"'),
    "a reference at the end": (
        _NAMES,
        {"name": "Eve"}, 'foreign key constraint "guard"'),
    "a trigger that raises": (
        trigger("IF NEW.name = 'Eve' THEN RAISE 'no %', NEW.email; END IF; RETURN NEW;"),
        {"name": "Eve"}, "routine guard()"),
    "a trigger that says nothing": (
        trigger("RETURN CASE WHEN NEW.name <> 'Eve' THEN NEW END;"),
        {"name": "Eve"}, "a trigger or rule"),
    "a trigger that changes it": (
        trigger("IF NEW.name = 'Eve' THEN NEW.name = 'Adam'; END IF; RETURN NEW;"),
        {"name": "Eve"}, "a trigger or rule"),
    "a short column": (
        "ALTER TABLE users ADD tag varchar(6) GENERATED ALWAYS AS (name) STORED",
        {"name": "a long name"}, "value too long for type character varying(6)"),
    "one identity a user": (
        "ALTER TABLE identities ADD CONSTRAINT guard UNIQUE (user_id)",
        {"identities": [IDENTITY | {"subject": subject} for subject in ("a", "b")]},
        'unique constraint "guard"'),
}  # fmt: skip


def _rows(**bad: Any) -> list[dict[str, Any]]:
    rows = [user(number, name=f"user{number}") for number in range(1, COUNT + 1)]
    rows[BAD - 1] = user(BAD, **({"name": f"user{BAD}"} | bad))
    return rows


def _refused(target: Target, rows: list[dict[str, Any]]) -> str:
    with pytest.raises(TransferRefused) as raised:
        target.apply(rows)
    return raised.value.sentence


ALWAYS = (
    "a unique name at the end",
    "a reference at the end",
    "a trigger that says nothing",
    "a short column",
    "one identity a user",
)


@pytest.mark.parametrize("is_large", [False, pytest.param(True, marks=pytest.mark.long)])
@pytest.mark.parametrize("case", cases(REFUSALS, ALWAYS))
def test_the_row_that_the_schema_refuses_is_named_and_nothing_is_written(
    target: Target, monkeypatch: pytest.MonkeyPatch, case: str, is_large: bool
) -> None:
    change, bad, named = REFUSALS[case]
    if is_large:
        monkeypatch.setattr(writing, "INDEX_LATER_ROWS", COUNT)
    target.run(change)
    before = target.run("SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1")
    rows = _rows(**bad)
    sentence = _refused(target, rows)
    assert f"row {BAD} (user {rows[BAD - 1]['id']})" in sentence
    assert named in sentence
    assert "Nothing was changed." in sentence
    assert "@" not in sentence
    assert target.run(_CONTENTS) == [[0, 0, 0, 0]]
    assert before == target.run(
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
    )
    applied, _ = target.apply([row for row in rows if row is not rows[BAD - 1]])
    assert nonzero(applied.plan.counts) == {"new": COUNT - 1}


@pytest.mark.parametrize("is_large", [False, True])
@pytest.mark.parametrize("condition", ["true", f"NEW.name = 'user{BAD}'"])
def test_a_trigger_that_gives_other_ids_is_told_as_that_also_where_rows_may_be_skipped(
    target: Target, monkeypatch: pytest.MonkeyPatch, condition: str, is_large: bool
) -> None:
    """And not as other users who have the addresses."""
    if is_large:
        monkeypatch.setattr(writing, "INDEX_LATER_ROWS", COUNT)
    target.run(trigger(f"IF {condition} THEN NEW.id = gen_random_uuid(); END IF; RETURN NEW;"))
    rows = _rows()
    bad = rows[0] if condition == "true" else rows[BAD - 1]
    with pytest.raises(TransferRefused) as raised:
        target.apply(rows, skip_invalid=True)
    assert "Verification failed: row" in raised.value.sentence
    assert f"(user {bad['id']})" in raised.value.sentence
    if not is_large:
        assert "with another id; the trigger guard of the table" in raised.value.sentence
    assert target.run(_CONTENTS) == [[0, 0, 0, 0]]


def test_a_changed_row_that_the_schema_refuses_is_named(target: Target) -> None:
    target.apply(_rows())
    target.run("ALTER TABLE users ADD CONSTRAINT guard CHECK (name <> 'Eve')")
    before = target.users()
    rows = [row | {"name": row["name"].upper()} for row in _rows()]
    rows[BAD - 1]["name"] = "Eve"
    sentence = _refused(target, rows)
    assert f"row {BAD} (" in sentence
    assert '"guard"' in sentence
    assert target.users() == before


def test_a_user_who_is_there_already_may_be_what_refuses_a_row(target: Target) -> None:
    target.run("INSERT INTO users (email, name) VALUES ('sam@example.com', 'user13')")
    target.run("ALTER TABLE users ADD CONSTRAINT guard UNIQUE (name)")
    sentence = _refused(target, _rows())
    assert f"row {BAD} (" in sentence
    assert '"guard"' in sentence


@pytest.mark.parametrize("is_large", [False, True])
def test_deferrable_constraints_are_no_obstacle(
    target: Target, monkeypatch: pytest.MonkeyPatch, is_large: bool
) -> None:
    if is_large:
        monkeypatch.setattr(writing, "INDEX_LATER_ROWS", COUNT)
    target.run(
        f"ALTER TABLE users ADD UNIQUE (name) {_DEFERRED};"
        "CREATE TABLE teams (id int PRIMARY KEY); GRANT ALL ON teams TO app;"
        f"ALTER TABLE users ADD team int REFERENCES teams {_DEFERRED};"
        "CREATE FUNCTION join_team() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " NEW.team = 7; INSERT INTO teams VALUES (7) ON CONFLICT DO NOTHING; RETURN NEW; END $$;"
        "CREATE TRIGGER join_team BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION join_team()"
    )
    applied, _ = target.apply(_rows())
    assert nonzero(applied.plan.counts) == {"new": COUNT}
    assert target.run("SELECT count(*), min(team) FROM users") == [[COUNT, 7]]
    target.verify(_rows())
    assert applied.batch is not None
    finish(rollback.roll_back(target.database, applied.batch, run_by="test"))
    assert target.run("SELECT count(*) FROM users") == [[0]]


def test_where_the_quick_way_fails_the_slow_way_works(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "INDEX_LATER_ROWS", COUNT)
    target.run(
        trigger(
            "IF NOT EXISTS (SELECT FROM pg_class WHERE relname = 'idx_users_email_key')"
            " THEN RAISE 'an index is missing'; END IF; RETURN NEW;"
        )
    )
    applied, _ = target.apply(_rows())
    assert nonzero(applied.plan.counts) == {"new": COUNT}
    assert target.run("SELECT to_regclass('idx_users_email_key') IS NOT NULL") == [[True]]


@pytest.mark.parametrize("table", ["import_batches", "import_records"])
def test_an_import_that_could_not_be_taken_back_is_refused(target: Target, table: str) -> None:
    target.run(trigger("RETURN NULL;", table=table))
    before = target.run(_CONTENTS)
    assert f"a row did not come into {table}" in _refused(target, _rows())
    assert target.run(_CONTENTS) == before


def test_a_rollback_that_cannot_be_recorded_is_refused(target: Target) -> None:
    applied, _ = target.apply(_rows())
    target.run(trigger("RETURN NULL;", "BEFORE UPDATE", "import_batches"))
    before = target.run(_CONTENTS)
    with pytest.raises(TransferRefused, match="the batch could not be closed"):
        finish(rollback.roll_back(target.database, str(applied.batch), run_by="test"))
    assert target.run(_CONTENTS) == before


def test_a_rollback_names_whose_rows_go_along_before_and_after_it(target: Target) -> None:
    """Also the rows that refer to those, or to what of ours goes with the users."""
    applied, _ = target.apply(_rows())
    batch = str(applied.batch)
    target.run(
        "CREATE TABLE snippets (id int PRIMARY KEY, owner uuid REFERENCES users ON DELETE CASCADE);"
        "CREATE TABLE likes (snippet int REFERENCES snippets ON DELETE CASCADE);"
        "CREATE TABLE logins (issuer text, subject text,"
        " FOREIGN KEY (issuer, subject) REFERENCES identities ON DELETE CASCADE);"
        "CREATE TABLE teams (head uuid REFERENCES users ON DELETE SET NULL);"
        "CREATE TABLE notes (team uuid REFERENCES users)"
    )
    planned, _ = finish(rollback.preview(target.database, batch))
    assert planned.following == [
        "likes (ON DELETE CASCADE)",
        "logins (ON DELETE CASCADE)",
        "snippets (ON DELETE CASCADE)",
        "teams (ON DELETE SET NULL)",
    ]
    done, _ = finish(rollback.roll_back(target.database, batch, run_by="test"))
    assert done == planned
