"""`--from` and its kin on the command line: what a person sees, and what is left of a file."""

from __future__ import annotations

import json
import os
import pty
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.adapted import FILES
from tests.support.commands import Ended, invoke
from tests.support.emulator import ROOT, environment
from tests.support.transfers import HASH, Target


class Shell:
    """Runs actions on a file of another system."""

    def __init__(self, folder: Path, target: Target) -> None:
        self.source = folder / "export.json"
        self.environment = environment(DATABASE_URL=target.server.url(target.name))

    def run(self, *arguments: str, **variables: str) -> Ended:
        return invoke(
            (arguments[0], "--source", str(self.source), *arguments[1:]),
            self.environment | variables,
        )


@pytest.fixture
def shell(target: Target, tmp_path: Path) -> Shell:
    return Shell(tmp_path, target)


def _firebase(number: int, **members: Any) -> dict[str, Any]:
    return {"localId": f"id{number}", "email": f"user{number}@example.com"} | members


def test_a_person_sees_what_the_file_is_taken_for_and_what_stays_behind(shell: Shell) -> None:
    rows = [
        _firebase(1),
        _firebase(2, email=None, phoneNumber="+15550100"),
        _firebase(3, passwordHash="AAAA"),
    ]
    shell.source.write_text(json.dumps({"users": rows}))
    shown = shell.run("plan")
    assert shown.code == 0
    notice = "The file is taken for Firebase's, by its localId; --from names another system."
    assert shown.error.splitlines()[0] == notice
    lines = [" ".join(line.split()) for line in shown.output.splitlines()]
    assert lines[0].endswith("(3 rows)")
    assert "new 2 new, to be written" in lines
    assert "left behind 1 phone only (row 2)" in lines
    assert "left behind 1 password hash left behind: --hash-config is not given (row 3)" in lines
    assert "no password 2 without a password: they set one by mail, or sign in with a link" in lines


def test_rejected_rows_are_written_as_a_users_file_that_can_be_corrected_and_imported(
    shell: Shell, target: Target
) -> None:
    rows: list[Any] = [_firebase(number) for number in range(5)]
    rows[1]["email"] = "nobody"
    rows[3] = "what is this"
    shell.source.write_text(json.dumps({"users": rows}))
    refused = shell.run("apply", "--yes", "--from", "firebase")
    assert refused.code == 3
    assert "row 2 (" in refused.error
    applied = shell.run("apply", "--yes", "--from", "firebase", "--skip-invalid", "--json")
    result = json.loads(applied.output.splitlines()[-1])
    assert result["counts"] | {"new": 3, "invalid": 2} == result["counts"]
    (path,) = [Path(name) for name in result["files"] if "rejected" in Path(name).name]
    assert path.suffix == ".json"
    bad, lost = json.loads(path.read_bytes())
    assert lost == "what is this"
    shell.source = path
    path.write_text(json.dumps([bad | {"email": "user1@example.com"}]))
    assert shell.run("apply", "--yes").code == 0
    assert len(target.users()) == 4
    shell.source = path.parent / "export.json"
    rows[1]["email"] = "user1@example.com"
    shell.source.write_text(json.dumps({"users": rows[:3] + rows[4:]}))
    assert shell.run("verify", "--from", "firebase").code == 0


def test_of_two_rows_with_one_id_address_or_identity_the_report_has_the_numbers(
    shell: Shell,
) -> None:
    google = {
        "providerUserInfo": [{"providerId": "google.com", "rawId": "108"}],
        "emailVerified": True,
    }
    rows = [
        _firebase(1, email=None, phoneNumber="+1"),
        _firebase(2, **google),
        _firebase(3, **google),
        _firebase(4),
        _firebase(5, email="USER4@example.com"),
        _firebase(6),
        _firebase(6, email="other@example.com"),
    ]
    shell.source.write_text(json.dumps({"users": rows}))
    told, plans = {}, []
    for action in (("plan",), ("apply", "--yes", "--skip-invalid"), ("plan",)):
        shown = shell.run(*action, "--from", "firebase", "--json")
        events = [json.loads(line) for line in shown.output.splitlines()]
        plans += [event["plan"] for event in events if event["event"] == "result"]
        told[action] = {
            event["row"]: event["other_row"]
            for event in events
            if event["event"] == "outcome" and event["verdict"] == "duplicate"
        }
    assert set(map(str, told.values())) == {str({2: 3, 3: 2, 5: 4, 6: 7, 7: 6})}
    assert plans[0] == plans[1]


def test_a_file_that_grows_while_it_is_read_or_is_not_the_plans_writes_nothing(
    shell: Shell, target: Target
) -> None:
    users, passwords = (
        (FILES / f"auth0-{name}.ndjson").read_bytes() for name in ("users", "passwords")
    )
    shell.source.write_bytes(users)
    other = shell.source.with_name("passwords")
    other.write_bytes(passwords)
    options = ("--from", "auth0", "--passwords", str(other))
    planned = json.loads(shell.run("plan", *options, "--json").output.splitlines()[-1])
    other.write_bytes(passwords + b"\n")
    applied = shell.run("apply", "--yes", *options, "--plan", planned["plan"])
    assert applied.code == 4
    assert not target.users()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--map", "email=mail"), "name that with --from"),
        (("--from", "users", "--project", "x"), "name that with --from"),
        (("--from", "csv", "--map", "mail"), "--map takes pairs"),
        (("--from", "clerk", "--map", "email=mail"), "--map does not belong to a file of Clerk"),
        (("--from", "auth0", "--identities", "x"), "--identities does not belong to a file of"),
        (("--from", "supertokens", "--pepper-env", "NO_SUCH"), "--pepper-env names NO_SUCH"),
        (("--from", "firebase", "--hash-config", "README.md"), "is not Firebase's hash parameters"),
        (("--from", "auth0", "--passwords", "nowhere"), "There is no file nowhere."),
    ],
)
def test_options_that_cannot_be_meant_are_refused(
    options: tuple[str, ...], sentence: str, shell: Shell
) -> None:
    shell.source.write_text(json.dumps([{"email": "ada@example.com", "password": HASH}]))
    ended = shell.run("plan", *options)
    assert ended.code == 2
    assert sentence in ended.error


def test_a_file_of_nobody_who_comes_along_is_no_success(shell: Shell) -> None:
    shell.source.write_text(json.dumps([_firebase(1, email=None)]))
    ended = shell.run("apply", "--yes", "--from", "firebase")
    assert ended.code == 3
    assert "No row of 1 is a valid user" in ended.error


def _terminal(shell: Shell, typed: str, *arguments: str) -> tuple[int, str]:
    """Run an action on a terminal of its own, and type a password once it is asked for."""
    command = [sys.executable, "-m", "shared.transfer", arguments[0], "--source", str(shell.source)]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execve(sys.executable, [*command, *arguments[1:]], shell.environment)  # noqa: S606  # no shell is wanted
    shown = b""
    while True:
        try:
            chunk = os.read(terminal, 4096)
        except OSError:  # The kernel's way to tell that the other end is closed.
            break
        if not chunk:
            break
        shown += chunk
        if typed and b"Password of" in shown:
            os.write(terminal, f"{typed}\n".encode())
            typed = ""
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), shown.decode()


def test_one_known_password_is_asked_for_and_a_wrong_key_is_told_before_anything_is_written(
    shell: Shell, target: Target
) -> None:
    shell.source.write_bytes((FILES / "firebase-users.json").read_bytes())
    right = FILES / "firebase-hash-config.txt"
    wrong = shell.source.with_name("wrong")
    wrong.write_text(right.read_text().replace("2WYE", "3WYE"))
    asked = ("--check", "ADA@example.com", "--hash-config")
    assert shell.run("apply", "--yes", *asked, str(right)).code == 2  # There is no terminal.
    code, shown = _terminal(shell, "correct horse 42", "apply", "--yes", *asked, str(wrong))
    assert code == 1, shown
    assert "is not the password of A…@example.com" in " ".join(shown.split())
    assert not target.users()
    code, shown = _terminal(shell, "correct horse 42", "apply", "--yes", *asked, str(right))
    assert code == 0, shown
    assert "The password of A…@example.com is verified" in shown
    assert "correct horse" not in shown
    assert len(target.users()) == 3


@pytest.mark.parametrize(
    ("email", "sentence"),
    [
        ("eve@example.com", "The source has no valid user e…@example.com"),
        ("bob@example.com", "b…@example.com comes without a password's hash"),
    ],
)
def test_who_cannot_be_checked_is_told_without_asking(
    email: str, sentence: str, shell: Shell
) -> None:
    shell.source.write_bytes((FILES / "firebase-users.json").read_bytes())
    ended = shell.run("plan", "--check", email)
    assert ended.code == 1
    assert sentence in ended.error


def test_without_a_check_the_plan_warns_where_hashes_need_what_is_not_in_the_file(
    shell: Shell,
) -> None:
    shell.source.write_bytes((FILES / "firebase-users.json").read_bytes())
    config = ("--hash-config", str(FILES / "firebase-hash-config.txt"))
    assert "No password was checked" in shell.run("plan", *config).error
    assert "No password was checked" not in shell.run("plan").error
