"""Who has come along without a password is invited by mail to choose one, a few at a time."""

from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path

import pytest

from shared.application import Application
from shared.settings import Settings
from shared.transfer import inviting
from tests.support import commands
from tests.support.emulator import environment
from tests.support.mails import in_folder, link, text
from tests.support.stores import CLIENT
from tests.support.transfers import Target, user
from tests.support.waiting import until

VERIFIED = "2025-01-01T00:00:00Z"


def _bring(target: Target, number: int) -> None:
    """Import so many users without a password, and those who are none of them."""
    without = [
        user(n, password=None, emailVerifiedAt=VERIFIED, locale="de" if n == 1 else None)
        for n in range(number)
    ]
    others = [
        user(900),
        user(901, password=None, emailVerifiedAt=VERIFIED, disabledAt=VERIFIED),
        user(902, password=None, provider="google"),
    ]
    target.apply(without + others)


def _invite(target: Target, **options: int) -> inviting.Invited:
    numbers = {"per_hour": 500, "most": 1000} | options
    return inviting.invite(target.database, run_by="test", **numbers)


def test_whoever_has_no_other_way_in_is_invited_once_and_nobody_else(target: Target) -> None:
    _bring(target, 5)
    assert inviting.waiting(target.database) == 5
    done = _invite(target)
    assert (done.invited, done.left) == (5, 0)
    assert _invite(target).invited == 0
    mails = target.run("SELECT kind, recipient, epoch, locale FROM mail_outbox ORDER BY recipient")
    assert [(kind, recipient) for kind, recipient, *_ in mails] == [
        ("invitation", user(number)["email"].lower()) for number in range(5)
    ]
    noted = target.run("SELECT actor FROM auth_events WHERE kind = 'invited'")
    assert noted == [["test"]] * 5


def test_runs_that_are_cut_off_go_on_and_mails_are_spread_over_time(target: Target) -> None:
    _bring(target, 7)
    first = _invite(target, most=3, per_hour=2)
    assert (first.invited, first.left, round(first.seconds)) == (3, 4, 3600)
    second = _invite(target, per_hour=1)
    assert (second.invited, second.left, round(second.seconds)) == (4, 0, 3 * 3600)
    hours = target.run(
        "SELECT round(extract(epoch FROM due_at - created_at) / 1800) FROM mail_outbox"
        " ORDER BY created_at, due_at"
    )
    assert [int(hour) for (hour,) in hours] == [0, 1, 2, 0, 2, 4, 6]


def test_no_mail_is_due_after_the_day_for_which_the_outbox_keeps_it(target: Target) -> None:
    _bring(target, inviting.MAX_HOURS + 3)
    done = _invite(target, per_hour=1)
    assert (done.invited, done.left) == (inviting.MAX_HOURS, 3)
    assert done.seconds <= 24 * 3600


def test_who_has_chosen_a_password_or_was_invited_long_ago_is_judged_anew(target: Target) -> None:
    _bring(target, 2)
    _invite(target)
    target.run("UPDATE auth_events SET at = at - interval '8 days'")
    target.run(f"UPDATE users SET password = 'x' WHERE email = '{user(0)['email']}'")
    assert inviting.waiting(target.database) == 1


@pytest.fixture
def variables(target: Target, tmp_path: Path) -> dict[str, str]:
    return environment(
        ENVIRONMENT="development",
        DATABASE_URL=target.server.url(target.name),
        USERS_FILE=str(tmp_path / "users.json"),
    )


def test_a_dry_run_shows_one_and_writes_nothing(target: Target, variables: dict[str, str]) -> None:
    _bring(target, 3)
    done = commands.invoke(("invite", "--dry-run"), variables)
    assert done.code == 0, done.error
    assert "Subject: Choose a password for AI-Coder" in done.output
    assert "http://localhost:8080/reset#token=…" in done.output
    assert target.run("SELECT count(*) FROM mail_outbox") == [[0]]


def test_without_mail_or_a_database_or_a_yes_nobody_is_invited(
    target: Target, variables: dict[str, str]
) -> None:
    _bring(target, 1)
    for changes, problem in (
        ({"ENVIRONMENT": "test"}, "No mail is sent: set MAIL_URL"),
        ({"DATABASE_URL": ""}, "There is no outbox in a file: set DATABASE_URL"),
        ({}, "There is no terminal to ask on"),
    ):
        done = commands.invoke(("invite",), variables | changes)
        assert done.code == 2
        assert problem in done.error
    assert target.run("SELECT count(*) FROM mail_outbox") == [[0]]


def test_the_link_of_an_invitation_lets_its_user_choose_a_password_and_log_in(
    target: Target, variables: dict[str, str], tmp_path: Path
) -> None:
    _bring(target, 2)
    done = commands.invoke(("invite", "--yes", "--per-hour", "100000", "--json"), variables)
    assert done.code == 0, done.error
    assert json.loads(done.output.splitlines()[-1])["invited"] == 2
    with closing(Application(Settings.from_env(variables))) as app:
        until(lambda: app.deliverer.deliver() == 0 and app.store.mail.status().waiting == 0)
        mails = {mail["To"]: mail for mail in in_folder(tmp_path / "mail")}
        german = mails[user(1)["email"].lower()]
        assert "Ihr Konto ist mitgekommen" in text(german)
        page, token = link(german)
        assert page == "reset"
        changed = app.mailboxes.reset_password(
            token, new="correct horse battery", client=CLIENT, now=time.time()
        )
        assert changed.email_verified
        found, _ = app.accounts.log_in(
            email=user(1)["email"], password="correct horse battery", client=CLIENT
        )
        assert found.id == changed.id
