"""The smoke test against the real emulator, which works, and which fails at each step."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shared.formats.strict_json import loads
from tests.support.emulator import ROOT, Emulator, environment, running_emulator
from tests.support.postgres import Server, free_port
from tests.support.relay import REFUSE, Relay
from tests.support.spoiler import Spoiled, spoiling


def _smoke(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "deploy", "smoke", "--url", url, *arguments],
        cwd=ROOT, env=environment(), capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def database(make_database: Callable[..., str]) -> str:
    """One database for all: every test leaves it empty."""
    return make_database()


@pytest.fixture(scope="module")
def emulator(postgres: Server, database: str) -> Iterator[Emulator]:
    """The functions on that database."""
    with running_emulator(DATABASE_URL=postgres.url(database)) as running:
        yield running


def _users(postgres: Server, database: str) -> int:
    ((count,),) = postgres.run("SELECT count(*) FROM users", database)
    return int(count)


def test_every_step_is_told_and_nothing_is_left(
    emulator: Emulator, postgres: Server, database: str
) -> None:
    done = _smoke(emulator.url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^ok      (.*): (\d+), \d+ ms$", done.stdout, re.MULTILINE) == [
        ("lives", "200"),
        ("health", "200"),
        ("sign-up", "201"),
        ("who am I", "200"),
        ("own data", "200"),
        ("logout", "200"),
        ("who am I, logged out", "401"),
        ("login", "200"),
        ("who am I, again", "200"),
        ("deletion", "204"),
        ("who am I, deleted", "401"),
    ]
    assert "sees you at 127.0.0.0/24" in done.stdout
    assert _users(postgres, database) == 0
    kinds = [kind for (kind,) in postgres.run("SELECT kind FROM auth_events", database)]
    assert sorted(kinds) == ["account_deleted", "login", "logout", "signup"]


STEPS = {
    ("POST", "/api/signup"): "sign-up",
    ("GET", "/api/user"): "who am I",
    ("GET", "/api/account"): "own data",
    ("POST", "/api/logout"): "logout",
    ("POST", "/api/login"): "login",
    ("DELETE", "/api/account"): "deletion",
}


@pytest.mark.parametrize("call", STEPS, ids=STEPS.get)
@pytest.mark.parametrize("status", [503, None], ids=["refused", "lost"])
def test_wherever_it_fails_the_step_is_named_and_the_user_is_deleted(
    emulator: Emulator,
    postgres: Server,
    database: str,
    call: tuple[str, str],
    status: int | None,
) -> None:
    spoiled: Spoiled = {call: status}
    with spoiling(emulator.url, spoiled, times=1) as url:
        done = _smoke(url)
    assert done.returncode == 1
    assert f"FAILED  {STEPS[call]}: {status or 'nothing'} instead of" in done.stdout
    assert re.search(r"The probe user (was deleted|does not exist)\.", done.stdout)
    assert _users(postgres, database) == 0


def test_ctrl_c_deletes_the_user_too(emulator: Emulator, postgres: Server, database: str) -> None:
    # The signal may come between a socket and who would close it.
    variables = environment(PYTHONWARNINGS="ignore::ResourceWarning")
    with (
        spoiling(emulator.url, {("GET", "/api/account"): 200}, delay=3) as url,
        subprocess.Popen(
            [sys.executable, "-u", "-m", "deploy", "smoke", "--url", url],
            cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as process,
    ):  # fmt: skip
        assert process.stdout
        while "who am I" not in process.stdout.readline():
            pass
        assert _users(postgres, database) == 1
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=60)
    assert (process.returncode, error.strip()) == (130, "Interrupted.")
    assert "The probe user was deleted." in output
    assert _users(postgres, database) == 0


def test_a_user_who_cannot_be_deleted_is_named_with_the_statement_that_does(
    emulator: Emulator, postgres: Server, database: str
) -> None:
    with spoiling(emulator.url, {("DELETE", "/api/account"): 503}) as url:
        # The emulator has deleted it, only nobody is told.
        done = _smoke(url)
    assert done.returncode == 1
    assert "The probe user does not exist" in done.stdout
    spoiled: Spoiled = {("POST", "/api/login"): 500, ("DELETE", "/api/account"): 503}
    with spoiling(emulator.url, spoiled) as url:
        done = _smoke(url)
    assert done.returncode == 1
    (statement,) = re.findall(r"DELETE FROM users WHERE email = 'probe-\w{16}@.*';", done.stdout)
    postgres.run(statement, database)


def test_a_sign_up_that_is_refused_leaves_nothing_to_delete(
    postgres: Server, make_database: Callable[..., str]
) -> None:
    url = postgres.url(make_database())
    with running_emulator(DATABASE_URL=url, MAX_SIGNUPS="1") as emulator:
        assert _smoke(emulator.url).returncode == 0
        done = _smoke(emulator.url)
    assert done.returncode == 1
    assert "FAILED  sign-up: 429 instead of 201 (too_many_attempts" in done.stdout
    assert "probe user" not in done.stdout


def test_a_database_that_is_away_is_told_before_anybody_signs_up(
    relay: Relay, postgres: Server, database: str
) -> None:
    with running_emulator(DATABASE_URL=postgres.url(database, port=relay.port)) as emulator:
        relay.mode = REFUSE
        done = _smoke(emulator.url)
    assert done.returncode == 1
    assert "its database is not connected" in done.stderr
    assert "sign-up" not in done.stdout


def test_a_service_without_a_database_is_told_to_have_none_and_is_tried_all_the_same(
    tmp_path: Path,
) -> None:
    users = tmp_path / "users.json"
    with running_emulator(USERS_FILE=str(users)) as emulator:
        done = _smoke(emulator.url)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "keeps its users in a file (USERS_FILE)" in done.stdout
        assert done.stdout.count("ok ") == 11
        assert loads(users.read_text()) == []
        spoiled: Spoiled = {("POST", "/api/login"): 500, ("DELETE", "/api/account"): 503}
        with spoiling(emulator.url, spoiled) as url:
            done = _smoke(url)
    assert done.returncode == 1
    assert "remove the user from its users file" in done.stdout
    assert "Postgres" not in done.stdout + done.stderr


def test_where_nobody_or_somebody_else_answers_it_fails_at_the_first_step() -> None:
    done = _smoke(f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "FAILED  lives: nothing instead of 200 (no answer:" in done.stdout


@pytest.mark.parametrize("url", ["example.com", "http://example.com", "ftp://example.com", ""])
def test_a_password_is_sent_over_https_only_or_to_this_machine(url: str) -> None:
    done = _smoke(url)
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"{url!r} cannot be tested" in done.stderr if url else "URL is missing" in done.stderr


def test_the_made_up_users_domain_can_be_chosen(emulator: Emulator) -> None:
    done = _smoke(emulator.url, "--domain", "not a domain")
    assert done.returncode == 1
    assert "FAILED  sign-up: 400 instead of 201 (invalid_input" in done.stdout
