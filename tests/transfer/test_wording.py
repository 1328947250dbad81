"""The command's sentences: of one's own face, make's or the module's, and with the right number."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from shared.transfer.actions import transfer
from shared.transfer.rollback import RolledBack
from shared.transfer.wording import TARGETS, question_before_rollback
from tests.support import commands
from tests.support.commands import Ended
from tests.support.emulator import ROOT, environment
from tests.support.transfers import Target, user


class Reader:
    """Calls the command in one of its two faces."""

    def __init__(self, target: Target, folder: Path, *, by_make: bool) -> None:
        self.source = folder / "users.json"
        self.write()
        self._environment = environment(
            DATABASE_URL=target.server.url(target.name),
            USERS_FILE=str(self.source),
            **({"UNDER_MAKE": "1"} if by_make else {}),
        )

    def write(self, *rows: Any) -> None:
        self.source.write_text(json.dumps(rows))

    def call(self, *arguments: str) -> Ended:
        return commands.invoke(arguments, self._environment)


@pytest.fixture(params=[True, False], ids=["make", "module"])
def by_make(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def reader(target: Target, tmp_path: Path, by_make: bool) -> Reader:
    return Reader(target, tmp_path, by_make=by_make)


def test_each_step_names_the_next_one_and_the_way_back_as_the_reader_calls_them(
    reader: Reader, target: Target, by_make: bool
) -> None:
    reader.write(user(1), user(2))
    planned = reader.call("plan").output
    applied = reader.call("apply", "--yes").output
    (batch,) = target.psql("SELECT id FROM import_batches")[0]
    if by_make:
        assert "Next: make migrate-backup copies the source, make migrate imports it." in planned
        assert "Next: make migrate-verify compares every user again." in applied
        assert f"Way back: make migrate-rollback BATCH={batch} undoes this import." in applied
        assert "python" not in planned + applied
    else:
        assert "python -m shared.transfer apply imports it." in planned
        assert "Next: python -m shared.transfer verify" in applied
        assert f"Way back: python -m shared.transfer rollback {batch} undoes" in applied
        assert "make" not in planned + applied
    assert reader.call("plan").output.endswith("Nothing was changed. There is nothing to write.\n")


@pytest.mark.parametrize(
    ("arguments", "by_make_said", "said"),
    [
        (["plan"], "skip with ARGS=--skip-invalid.", "skip with --skip-invalid."),
        (["apply", "--yes"], "skip with `ARGS=--skip-invalid`.", "skip with `--skip-invalid`."),
        (["rollback", "x", "--yes"], "`make migrate-status`", "`python -m shared.transfer status`"),
    ],
)
def test_a_refusal_speaks_of_the_readers_own_options_and_actions(
    reader: Reader, by_make: bool, arguments: list[str], by_make_said: str, said: str
) -> None:
    reader.write(user(1), user(2, provider="github"))
    ended = reader.call(*arguments)
    assert ended.code in (1, 3)
    assert (by_make_said if by_make else said) in ended.error
    assert "skip_invalid" not in ended.error


def test_who_calls_make_sees_no_word_of_the_module_where_an_option_is_wrong(
    target: Target, tmp_path: Path
) -> None:
    reader = Reader(target, tmp_path, by_make=True)
    for arguments, sentence in (
        (
            ["apply", "--swift"],
            "No such option '--swift'. Options go into ARGS; `make migrate ARGS=",
        ),
        (["apply", "--skip"], "Did you mean '--skip-invalid'? Options go into ARGS; `make migrate"),
        (["apply", "more"], "extra argument (more). Options go into ARGS; `make migrate ARGS="),
        (["rollback"], "BATCH is missing: `make migrate-rollback BATCH=…`; `make migrate-status`"),
        (["schema", "apply", "--x"], "`make migrate-schema ARGS=--help` lists them."),
        (["apply"], "There is no terminal to ask on: use ARGS=--yes to go on"),
    ):
        reader.write(user(1))
        ended = reader.call(*arguments)
        assert ended.code == 2
        assert sentence in ended.error
        assert "Usage" not in ended.error
        assert "python" not in ended.error
    shown = reader.call("rollback", "--help").output
    assert shown.startswith("Usage: make migrate-rollback BATCH=… [ARGS='OPTIONS']")


def test_more_users_than_are_shown_are_named_by_an_option_of_the_readers(
    reader: Reader, by_make: bool
) -> None:
    reader.write(*(user(number, email="nobody") for number in range(21)))
    ended = reader.call("plan")
    assert f"… and more: {'ARGS=--json' if by_make else '--json'} names all" in ended.error


def test_numbers_and_nouns_agree(reader: Reader, target: Target) -> None:
    reader.write(user(1))
    assert "(1 row)" in reader.call("plan").output
    assert reader.call("status").output.startswith(f"0 users in {target.name} on localhost; 0 imp")
    reader.call("apply", "--yes")
    assert "The only user agrees." in reader.call("verify").output
    assert reader.call("status").output.startswith(f"1 user in {target.name} on localhost; 1 imp")
    target.run("DELETE FROM users")
    reader.write(user(1, nickname="Ada"), user(2))
    assert "“nickname”  1  has this member" in reader.call("plan").output
    status = reader.call("status").output
    assert re.search(r" 1  user written by \S+ at ", status)
    assert "2 users differ between the source and Postgres. `" in reader.call("verify").error
    reader.write(user(1))
    assert "1 user differs between the source and Postgres.\n" in reader.call("verify").error


def test_a_successful_verification_says_how_many_agree_and_who_need_not(
    reader: Reader, target: Target
) -> None:
    reader.write(*(user(number) for number in range(17)))
    reader.call("apply", "--yes")
    assert reader.call("verify").output.endswith("\nAll 17 agree.\n")
    target.run("UPDATE users SET name = 'Later' WHERE email = 'user1@example.com'")
    reader.write(*(user(number) for number in range(17)), user(17, email="nobody"))
    ended = reader.call("verify", "--skip-invalid")
    assert ended.code == 0
    assert ended.output.endswith(
        "16 of 18 rows agree with Postgres; 1 changed there or was never imported, so Postgres "
        "wins; 1 cannot be imported and is left out.\n"
    )


@pytest.mark.parametrize(
    ("counts", "question"),
    [
        ({"removed": 2, "restored": 1}, "Remove 2 users and restore 1 user in t on host?"),
        ({"removed": 1, "restored": 0}, "Remove 1 user in t on host?"),
        ({"removed": 0, "restored": 1200}, "Restore 1,200 users in t on host?"),
        ({"removed": 0, "restored": 0}, "Close the batch, which changes no user, in t on host?"),
    ],
)
def test_the_question_before_a_rollback_says_what_would_be_done(
    counts: dict[str, int], question: str
) -> None:
    planned = RolledBack(batch="x", counts=counts, following=[])
    assert question_before_rollback(planned, "t on host") == question


def test_every_action_has_a_target_of_make() -> None:
    names = {name for name in transfer.commands if name != "schema"}
    schema: Any = transfer.commands["schema"]
    assert names | {f"schema {name}" for name in schema.commands} == TARGETS.keys()
    makefile = (ROOT / "Makefile").read_text()
    for action, target in TARGETS.items():
        assert f"\n{target}: " in makefile
        assert f"TRANSFER) {action} $$ARGS" in makefile
