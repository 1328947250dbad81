"""Whoever's password or identity an import or a rollback takes away loses the sessions it began."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from shared.errors import TransferRefused
from shared.model.users import MAX_EPOCH
from shared.transfer import rollback
from tests.support.postgres import Server
from tests.support.stores import CLIENT, opened_store, session_of
from tests.support.transfers import HASH, Target, finish, nonzero, user

OTHER_HASH = f"{HASH[:-1]}a"
GOOGLE = {"issuer": "https://accounts.google.com", "subject": "1"}
OTHER = {"issuer": "https://accounts.google.com", "subject": "2"}


def _google(*identities: dict[str, str], **members: Any) -> dict[str, Any]:
    given = {"password": ..., "provider": "google", "identities": list(identities)}
    return user(1, **given | members)


def _epoch(target: Target) -> int:
    ((epoch,),) = target.run("SELECT epoch FROM users")
    return int(epoch)


def _verdicts(target: Target, row: dict[str, Any]) -> dict[str, int]:
    return nonzero(target.apply([row])[0].plan.counts)


def _roll_back(target: Target, batch: str | None) -> dict[str, int]:
    done, _ = finish(rollback.roll_back(target.database, str(batch), run_by="test"))
    return nonzero(done.counts)


_LOSSES = [
    pytest.param(user(1), user(1, password=OTHER_HASH), 2, id="another-password"),
    pytest.param(user(1), _google(GOOGLE), 2, id="no-password-any-more"),
    pytest.param(_google(GOOGLE), _google(OTHER), 2, id="another-identity"),
    pytest.param(_google(GOOGLE, OTHER), _google(GOOGLE), 1, id="an-identity-gone"),
    pytest.param(_google(GOOGLE), user(1), 2, id="a-password-instead-of-an-identity"),
]


@pytest.mark.parametrize(("before", "after", "restored"), _LOSSES)
def test_a_session_ends_with_the_way_to_log_in_that_an_import_takes_away(
    target: Target, before: dict[str, Any], after: dict[str, Any], restored: int
) -> None:
    """And the proof holds, the second run changes nothing, and a rollback revives nothing.

    `restored` is the epoch after that: it rises once more if there is something to lose again.
    """
    target.apply([before])
    assert _epoch(target) == 0
    applied, _ = target.apply([after])
    assert (nonzero(applied.plan.counts), _epoch(target)) == ({"changed": 1}, 1)
    dump = target.dump()
    assert _verdicts(target, after) == {"identical": 1}
    assert nonzero(target.verify([after])[0].counts) == {"identical": 1}
    assert target.dump() == dump
    assert _roll_back(target, applied.batch) == {"restored": 1}
    assert _epoch(target) == restored
    assert _verdicts(target, before) == {"identical": 1}


_NO_LOSSES = [
    pytest.param(user(1), user(1, name="Ada", email="ada@example.com"), id="name-and-address"),
    pytest.param(_google(GOOGLE), _google(OTHER, GOOGLE), id="one-identity-more"),
    pytest.param(_google(GOOGLE), _google(GOOGLE, name="Ada"), id="the-same-identity"),
    pytest.param(user(1), user(1, identities=[GOOGLE]), id="an-identity-beside-the-password"),
]


@pytest.mark.parametrize(("before", "after"), _NO_LOSSES)
def test_a_session_goes_on_where_no_way_to_log_in_was_taken_away(
    target: Target, before: dict[str, Any], after: dict[str, Any]
) -> None:
    target.apply([before])
    assert _verdicts(target, after) == {"changed": 1}
    assert _epoch(target) == 0


def test_each_change_of_a_password_ends_sessions_again(target: Target) -> None:
    """Also after others, and after those that have ended none."""
    target.apply([user(1)])
    changes = [{"password": OTHER_HASH}, {"name": "Ada"}, {"password": HASH}, {"name": "Eve"},
               {"password": OTHER_HASH}]  # fmt: skip
    row, epochs = user(1), []
    for change in changes:
        row |= change
        assert _verdicts(target, row) == {"changed": 1}
        assert _verdicts(target, row) == {"identical": 1}
        epochs.append(_epoch(target))
    assert epochs == [1, 1, 2, 2, 3]


def test_what_the_source_has_ended_by_itself_is_not_ended_twice(target: Target) -> None:
    """A session that the JSON mode began after it goes on."""
    target.apply([user(1)])
    assert _verdicts(target, user(1, password=OTHER_HASH, epoch=1)) == {"changed": 1}
    assert _epoch(target) == 1


def test_sessions_that_the_source_ends_later_end_here_too(target: Target) -> None:
    """Though an import has raised the epoch to what the source's only comes to now."""
    target.apply([user(1)])
    target.apply([user(1, password=OTHER_HASH)])
    assert _epoch(target) == 1
    ended = user(1, password=OTHER_HASH, epoch=1, updatedAt="2025-12-24T00:00:00Z")
    assert _verdicts(target, ended) == {"changed": 1}
    assert _epoch(target) == 2
    assert _verdicts(target, ended) == {"identical": 1}
    assert _verdicts(target, user(1, password=OTHER_HASH)) == {"kept": 1}


def test_a_batch_can_be_taken_back_and_brought_again_any_number_of_times(target: Target) -> None:
    """And the batches before it can be taken back as well."""
    first, _ = target.apply([user(1)])
    changed = user(1, password=OTHER_HASH)
    epochs = []
    for _ in range(3):
        applied, _ = target.apply([changed])
        epochs.append(_epoch(target))
        assert _verdicts(target, changed) == {"identical": 1}
        assert _roll_back(target, applied.batch) == {"restored": 1}
        assert target.users()[user(1)["id"]][2] == HASH
        epochs.append(_epoch(target))
    assert epochs == [1, 2, 3, 4, 5, 6]
    assert _roll_back(target, first.batch) == {"removed": 1}
    assert target.users() == {}


def test_who_logged_out_everywhere_here_has_changed_here(target: Target) -> None:
    target.apply([user(1)])
    target.apply([user(1, password=OTHER_HASH)])
    with closing(opened_store(DATABASE_URL=target.server.url(target.name))) as store:
        found = store.user(user(1)["id"])
        assert found is not None
        assert store.revoke_all_sessions(session_of(found), CLIENT)
    for name in ("Ada", None):
        assert _verdicts(target, user(1, password=OTHER_HASH, name=name)) == {"kept": 1}
    assert _epoch(target) == 2


def test_an_export_has_the_epoch_and_is_identical_to_what_it_is_of(
    target: Target, make_database: Callable[..., str], postgres: Server
) -> None:
    target.apply([user(1)])
    target.apply([user(1, password=OTHER_HASH)])
    exported = target.export()
    assert json.loads(exported) == [user(1, password=OTHER_HASH, epoch=1)]
    assert nonzero(target.plan(exported)[0].counts) == {"identical": 1}
    fresh = Target(postgres, make_database())
    fresh.apply(exported)
    assert (fresh.export(), _epoch(fresh)) == (exported, 1)


def test_a_raised_epoch_that_is_not_held_undoes_the_import(target: Target) -> None:
    target.apply([user(1)])
    target.run(
        "CREATE FUNCTION lower_epoch() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN NEW.epoch = 0; RETURN NEW; END'"
    )
    target.run("CREATE TRIGGER lower BEFORE UPDATE ON users FOR EACH ROW"
               " EXECUTE FUNCTION lower_epoch()")  # fmt: skip
    before = target.dump()
    with pytest.raises(TransferRefused, match=r"row 1 .* differs from the source"):
        target.apply([user(1, password=OTHER_HASH)])
    assert target.dump() == before


def test_an_import_and_its_rollback_have_room_above_the_highest_epoch(target: Target) -> None:
    target.apply([user(1, epoch=MAX_EPOCH)])
    applied, _ = target.apply([user(1, epoch=MAX_EPOCH, password=OTHER_HASH)])
    assert _epoch(target) == MAX_EPOCH + 1
    assert _roll_back(target, applied.batch) == {"restored": 1}
    assert _epoch(target) not in (MAX_EPOCH, MAX_EPOCH + 1)
