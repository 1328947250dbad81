"""There is a highest epoch: no file may exceed it, and under it, too, sessions can be ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from shared.errors import StoreUnavailable
from shared.model.users import MAX_EPOCH, ExternalIdentity, User, next_epoch
from shared.store.contract import Store
from shared.store.json_file.store import JsonFileStore
from shared.store.postgres import statements
from shared.store.settings import StoreSettings
from tests.support.stores import CLIENT, opened_store, session_of, stored
from tests.support.transfers import HASH, Target, user

OTHER_HASH = f"{HASH[:-1]}a"
GOOGLE = ExternalIdentity("https://accounts.google.com", "1")


def _on_json(path: Path, epoch: int) -> Store:
    path.write_text(json.dumps([user(1, epoch=epoch)]))
    return JsonFileStore(StoreSettings(users_file=path))


@pytest.mark.parametrize("epoch", [MAX_EPOCH + 1, 2**31 - 1, 2**31, 10**30, -1, 1.0, True, "1"])
def test_an_epoch_that_cannot_be_right_is_refused_by_name(
    target: Target, tmp_path: Path, epoch: Any
) -> None:
    _, (outcome,) = target.plan([user(1, epoch=epoch)])
    assert (outcome.verdict, "epoch" in outcome.reason) == ("invalid", True)
    problem = "Entry 1: The epoch is not" if type(epoch) is int else "Entry 1 is not a user"
    with pytest.raises(StoreUnavailable, match=problem):
        _on_json(tmp_path / "users.json", epoch).user(user(1)["id"])


def _change_password(store: Store, found: User) -> User | None:
    return store.change_password(*stored(store, found), OTHER_HASH)


def _log_out_everywhere(store: Store, found: User) -> User | None:
    assert store.revoke_all_sessions(session_of(found), CLIENT)
    return store.user(found.id)


def _adopt(store: Store, found: User) -> User | None:
    _, credentials = stored(store, found)
    return store.link(credentials, [GOOGLE], provider="google", drops_password=True, client=CLIENT)


@pytest.mark.parametrize("end", [_change_password, _log_out_everywhere, _adopt])
@pytest.mark.parametrize("epoch", [MAX_EPOCH, 2**31 - 1])
def test_sessions_can_be_ended_under_the_highest_epoch_too(
    target: Target, tmp_path: Path, epoch: int, end: Callable[[Store, User], User | None]
) -> None:
    """What the column holds, earlier imports let in; a file's is one that may be written again."""
    target.apply([user(1)])
    target.run(f"UPDATE users SET epoch = {epoch}")
    with closing(opened_store(DATABASE_URL=target.server.url(target.name))) as on_postgres:
        for store in (on_postgres, _on_json(tmp_path / "users.json", MAX_EPOCH)):
            found = store.user(user(1)["id"])
            assert found is not None
            ended = end(store, found)
            assert ended is not None
            assert ended.epoch != found.epoch
            assert store.user(found.id) == ended


@pytest.mark.parametrize("epoch", [0, 1, MAX_EPOCH - 1, MAX_EPOCH, 2**31 - 1])
def test_sql_and_python_come_to_the_same_epoch(target: Target, epoch: int) -> None:
    assert target.run(f"SELECT {statements.next_epoch(str(epoch))}") == [[next_epoch(epoch)]]
