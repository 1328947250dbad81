"""What was logged out on one side of a move is logged out on the other."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from shared.database.pool import Database
from shared.database.settings import DatabaseSettings
from shared.database.url import DatabaseUrl
from shared.model.sessions import Session
from shared.store.contract import Store
from shared.store.json_file.store import JsonFileStore
from shared.store.settings import StoreSettings
from shared.transfer import importing
from tests.support.interceptor import Interceptor
from tests.support.postgres import Server
from tests.support.stores import CLIENT, opened_store, session_of
from tests.support.transfers import Target, finish, nonzero, source_of, user

END = int(time.time()) + 86_400


def _on_json(path: Path) -> JsonFileStore:
    return JsonFileStore(StoreSettings(users_file=path))


def _revoked(target: Target) -> list[list[str]]:
    return target.psql("SELECT sid, extract(epoch FROM ends_at)::bigint, user_id"
                       " FROM revoked_sessions ORDER BY sid")  # fmt: skip


def _sessions(store: Store, number: int = 1) -> tuple[Session, Session]:
    """Give two sessions of a user: one that was logged out, and one that goes on."""
    known = store.user(user(number)["id"])
    assert known is not None
    now = time.time()
    over, going_on = session_of(known, now=now), session_of(known, now=now)
    store.revoke_session(over, CLIENT)
    return over, going_on


def test_a_logout_is_one_on_either_side_of_the_move_and_after_the_return(
    target: Target, tmp_path: Path
) -> None:
    first, back = tmp_path / "users.json", tmp_path / "back.json"
    first.write_text(json.dumps([user(1), user(2)]))
    sessions = [_sessions(_on_json(first))]
    applied, _ = target.apply(first.read_bytes())
    assert (applied.revoked_sessions, applied.plan.unknown_members) == (1, {})
    store = opened_store(DATABASE_URL=target.server.url(target.name))
    sessions.append(_sessions(store, 2))
    back.write_bytes(target.export())
    for over, going_on in sessions:
        for each in (store, _on_json(back)):
            assert each.user(over.user.id, sid=over.sid) is None
            assert each.user(over.user.id, sid=going_on.sid) is not None
    store.close()
    before = _revoked(target)
    target.run("TRUNCATE users, identities, revoked_sessions, import_records, import_batches")
    target.apply(back.read_bytes())
    assert _revoked(target) == before
    assert target.export() == back.read_bytes()


def test_a_logout_between_two_imports_comes_with_the_second_though_no_user_does(
    target: Target,
) -> None:
    target.apply([user(1), user(2)])
    target.run("UPDATE users SET name = 'Ada' WHERE email = 'user2@example.com'")
    rows = [user(number, revokedSessions={f"sid{number}": END}) for number in (1, 2)]
    applied, _ = target.apply(rows)
    assert nonzero(applied.plan.counts) == {"identical": 1, "kept": 1}
    assert (applied.batch, applied.revoked_sessions) == (None, 2)
    expected = [[f"sid{number}", str(END), user(number)["id"]] for number in (1, 2)]
    assert _revoked(target) == expected
    again, _ = target.apply(rows)
    assert again.revoked_sessions == 0
    assert target.plan(rows)[0].users_sha256 == applied.plan.users_sha256
    assert target.verify([user(1)])[0].differing == 0


def test_of_a_row_that_is_not_brought_nothing_is_and_what_has_ended_stays_behind(
    target: Target,
) -> None:
    rows = [
        user(1, revokedSessions={"ended": time.time() - 1, "far": 1e300}),
        user(2, email="USER1@example.com", revokedSessions={"rejected": END}),
    ]
    applied, _ = target.apply(rows, skip_invalid=True)
    assert applied.revoked_sessions == 1
    assert [sid for sid, *_ in _revoked(target)] == ["far"]
    target.run("UPDATE revoked_sessions SET ends_at = now() - interval '1 second'")
    assert json.loads(target.export()) == [user(1)]


@pytest.mark.parametrize("value", [[], "x", {"sid": "x"}, {"sid": True}, {"": 1}, {"a\0": 1}])
def test_revoked_sessions_that_are_none_are_refused_with_their_row(
    target: Target, value: Any
) -> None:
    planned, (outcome,) = target.plan([user(1, revokedSessions=value)])
    assert nonzero(planned.counts) == {"invalid": 1}
    assert "revokedSessions" in outcome.reason


def test_an_export_from_the_schema_before_loses_no_user(target: Target) -> None:
    target.apply([user(1)])
    target.run("INSERT INTO revoked_sessions VALUES ('sid', now() + interval '1 day')")
    target.run(
        "ALTER TABLE revoked_sessions DROP COLUMN user_id; DROP TABLE applied_ops;"
        "DELETE FROM schema_migrations WHERE version >= 5"
    )
    assert json.loads(target.export()) == [user(1)]


def test_a_commit_of_logouts_alone_is_certain_too(target: Target, postgres: Server) -> None:
    target.apply([user(1)])
    with Interceptor(postgres) as interceptor:
        interceptor.watch = lambda message: message.is_committed
        database = Database(DatabaseUrl.parse(interceptor.url(target.name)), DatabaseSettings())
        source = source_of([user(1, revokedSessions={"sid": END})])
        done, _ = finish(importing.apply(database, source, batch_id="x", run_by="test"))
    assert done.revoked_sessions == 1
    assert [sid for sid, *_ in _revoked(target)] == ["sid"]
