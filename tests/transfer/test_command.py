"""The move on the command line: what a person sees, what a program reads, and the exit codes."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.credentials.passwords import PasswordHasher
from tests.support import commands
from tests.support.commands import Ended
from tests.support.emulator import ROOT, environment
from tests.support.foreign_hashes import FOREIGN
from tests.support.old_database import OLD_DDL
from tests.support.postgres import PASSWORD, Server
from tests.support.reconciliations import sign_up
from tests.support.transfers import HASH, Target, user

COMMAND = [sys.executable, "-m", "shared.transfer"]
INTERRUPTION = "\x03"


class Shell:
    """Runs the command in a folder with a users file."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.source = folder / "users.json"
        self.environment = environment(DATABASE_URL=url, USERS_FILE=str(self.source))

    def write(self, *rows: Any) -> None:
        self.source.write_text(json.dumps(rows))

    def run(self, *arguments: str) -> Ended:
        return _checked(commands.invoke(arguments, self.environment))

    def start(self, *arguments: str) -> Ended:
        """Run it as a process of its own."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return _checked(Ended(done.returncode, done.stdout, done.stderr))

    def json(self, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
        done = self.run(*arguments, "--json")
        return done.code, [json.loads(line) for line in done.output.splitlines()]

    def on_terminal(self, typed: str, *arguments: str, after: str = "") -> tuple[int, str]:
        """Run it on a terminal of its own, and type, once it has shown what to type `after`."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(ROOT)
            os.execve(sys.executable, [*COMMAND, *arguments], self.environment)  # noqa: S606  # no shell is wanted
        shown, again = b"", ""
        while True:
            if typed and after.encode() in shown:
                os.write(terminal, typed.encode())
                again, typed = typed if typed == INTERRUPTION else "", ""
            if not select.select([terminal], [], [], 1)[0]:
                # Python misses one between its prompt and its reading: then people press again.
                typed = typed or again
                continue
            try:
                chunk = os.read(terminal, 4096)
            except OSError:  # The kernel's way to tell that the other end is closed.
                chunk = b""
            if not chunk:
                break
            shown += chunk
        os.close(terminal)
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status), shown.decode()

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


def _checked(ended: Ended) -> Ended:
    shown = ended.output + ended.error
    assert "Traceback" not in shown
    assert PASSWORD not in shown
    assert HASH not in shown
    return ended


@pytest.fixture
def shell(postgres: Server, database: str, tmp_path: Path) -> Shell:
    made = Shell(tmp_path, postgres.url(database))
    made.write(user(1), user(2, name="Ada"))
    return made


def test_the_whole_move_by_hand(shell: Shell, target: Target) -> None:
    planned = shell.start("plan")
    assert planned.code == 0
    assert "new        2  new, to be written" in planned.output
    assert f"to {target.name} on localhost" in planned.output
    assert shell.run("backup").code == 0
    (backup,) = (name for name in shell.files() if ".backup." in name)
    assert (shell.folder / backup).read_bytes() == shell.source.read_bytes()
    assert (shell.folder / backup).stat().st_mode & 0o777 == 0o600
    code, lines = shell.json("apply", "--yes")
    result = lines[-1]
    assert (code, result["event"], result["counts"]["new"]) == (0, "result", 2)
    (report,) = result["files"]
    assert [json.loads(line) for line in Path(report).read_text().splitlines()] == [
        {"row": 1, "verdict": "new", "user_id": user(1)["id"]},
        {"row": 2, "verdict": "new", "user_id": user(2)["id"]},
    ]
    assert Path(report).stat().st_mode & 0o777 == 0o600
    assert shell.run("verify").code == 0
    code, (*_, again) = shell.json("apply", "--yes")
    assert (code, again["batch"], again["files"]) == (0, None, [])
    code, (*_, status) = shell.json("status")
    assert (code, status["users"], status["batches"][0]["id"]) == (0, 2, result["batch"])
    code, (*_, exported) = shell.json("export")
    assert json.loads(Path(exported["path"]).read_text()) == json.loads(shell.source.read_text())
    code, (*_, rolled_back) = shell.json("rollback", result["batch"], "--yes")
    assert (code, rolled_back["counts"]["removed"]) == (0, 2)
    assert target.users() == {}
    assert result["batch"] in shell.run("status").output


def test_a_person_is_shown_a_plan_and_asked_with_the_name_of_the_place(
    shell: Shell, target: Target
) -> None:
    code, shown = shell.on_terminal("y\n", "apply")
    assert code == 0
    assert f"Write 2 users to {target.name} on localhost? [y/N]" in shown
    assert "\x1b[" in shown
    assert "Reading" in shown
    assert len(target.users()) == 2


@pytest.mark.parametrize("typed", ["n\n", "\n", "\x04"])
def test_a_no_is_calm_changes_nothing_and_is_no_failure(
    shell: Shell, target: Target, typed: str
) -> None:
    code, shown = shell.on_terminal(typed, "apply")
    assert (code, target.users(), shell.files()) == (0, {}, ["users.json"])
    assert shown.rstrip().endswith("Nothing was changed.")
    assert "Interrupted" not in shown
    assert "\x1b[31m" not in shown, "nothing is red"


def test_a_no_to_the_offer_of_make_dev_is_calm_too(shell: Shell, target: Target) -> None:
    shell.source.unlink()
    sign_up(shell.source, "ada@example.com")
    before = shell.source.read_bytes()
    code, shown = shell.on_terminal("n\n", "reconcile", "--offer")
    assert (code, target.users(), shell.source.read_bytes()) == (0, {}, before)
    assert "1 sign-up is not yet in Postgres. Write to Postgres now? [y/N]:" in shown
    assert shown.rstrip().endswith("Nothing was changed.")


def test_ctrl_c_at_a_question_is_an_interruption(shell: Shell, target: Target) -> None:
    code, shown = shell.on_terminal(INTERRUPTION, "apply", after="[y/N]")
    assert (code, target.users()) == (130, {})
    assert "Interrupted. Nothing was changed." in shown


def test_who_would_go_and_who_would_stay_is_shown_before_a_rollback(
    shell: Shell, target: Target
) -> None:
    _, (*_, applied) = shell.json("apply", "--yes")
    target.run("UPDATE users SET name = 'Later' WHERE email = 'user1@example.com'")
    target.run(
        "SET ROLE app; CREATE TABLE snippets (owner uuid REFERENCES users ON DELETE CASCADE)"
    )
    before = target.dump()
    code, shown = shell.on_terminal("n\n", "rollback", applied["batch"])
    counts, _, question = shown.partition("[y/N]")
    assert code == 0
    assert "removed    1  go: the import brought them" in counts
    assert "kept       1  stay: changed since the import" in counts
    assert "user1@example.com: kept." in counts
    assert "refer to them go or change: snippets (ON DELETE CASCADE)." in counts
    assert f"Remove 1 user in {target.name} on localhost?" in counts
    assert "Nothing was changed." in question
    code, (*_, planned) = shell.json("rollback", applied["batch"], "--dry-run")
    assert (code, planned["counts"]["removed"], planned["counts"]["kept"]) == (0, 1, 1)
    assert target.dump() == before
    done = shell.run("rollback", applied["batch"], "--yes")
    assert "refer to them went or changed: snippets (ON DELETE CASCADE)." in done.output
    assert list(target.users()) == [user(1)["id"]]


def test_colours_and_bars_are_for_terminals_only(shell: Shell) -> None:
    done = shell.start("plan")
    assert "\x1b" not in done.output + done.error
    assert all(json.loads(line)["event"] == "progress" for line in done.error.splitlines())


def test_without_a_terminal_yes_has_to_be_given_once_nothing_else_is_wrong(
    shell: Shell, target: Target
) -> None:
    done = shell.run("apply")
    assert done.code == 2
    assert "There is no terminal to ask on: use --yes to go on" in done.error
    assert target.users() == {}
    _, (*_, applied) = shell.json("apply", "--yes")
    done = shell.run("rollback", applied["batch"])
    assert done.code == 2
    assert "There is no terminal to ask on: use --yes to go on" in done.error
    assert len(target.users()) == 2


@pytest.mark.parametrize(
    ("arguments", "settings", "sentence"),
    [
        (["apply"], {"DATABASE_URL": ""}, "DATABASE_URL is missing"),
        (["apply"], {"USERS_FILE": "/nowhere/users.json"}, "There is no file /nowhere/users.json"),
        (["apply"], {"LOCKOUT_TIME": "15m"}, "LOCKOUT_TIME must be a whole number"),
        (["apply"], {"DATABASE_URL": "", "DATABSE_URL": "x"}, "DATABSE_URL is no setting; perhaps"),
        (["rollback", "20261122T183014"], {}, "There is no batch 20261122T183014"),
        (["rollback", "x"], {"DATABASE_URL": ""}, "DATABASE_URL is missing"),
    ],
)
def test_without_a_terminal_too_the_real_fault_is_said(
    shell: Shell, arguments: list[str], settings: dict[str, str], sentence: str
) -> None:
    shell.environment |= settings
    done = shell.run(*arguments)
    assert done.code in (1, 2)
    assert sentence in done.error
    assert "terminal" not in done.error


def test_rejected_rows_stop_it_or_go_to_a_file_that_can_be_mended(
    shell: Shell, target: Target
) -> None:
    shell.write(user(1), user(2, provider="github", avatar="kept"), user(3, password="x"))
    for arguments in (["plan"], ["apply", "--yes"]):
        code, lines = shell.json(*arguments)
        assert code == 3
        assert lines[-1]["code"] == "rows_rejected"
        rejected = [line for line in lines if line["event"] == "outcome"]
        assert [(line["row"], line["verdict"]) for line in rejected] == [
            (2, "invalid"),
            (3, "invalid"),
        ]
    assert shell.files() == ["users.json"]
    assert target.users() == {}
    code, lines = shell.json("apply", "--yes", "--skip-invalid")
    assert code == 0
    (path,) = (Path(name) for name in lines[-1]["files"] if ".rejected." in name)
    assert path.stat().st_mode & 0o777 == 0o600
    rows = json.loads(path.read_text())
    assert rows == json.loads(shell.source.read_text())[1:]
    path.write_text(json.dumps([rows[0] | {"provider": "google"}, rows[1] | {"password": HASH}]))
    code, lines = shell.json("apply", "--yes", "--source", str(path))
    assert (code, lines[-1]["counts"]["new"]) == (0, 2)
    assert lines[-1]["unknown_members"] == {"avatar": 1}
    assert len(target.users()) == 3


def test_a_plan_that_no_longer_holds_has_an_exit_code_of_its_own(
    shell: Shell, target: Target
) -> None:
    _, (*_, plan) = shell.json("plan")
    shell.write(user(1))
    assert shell.run("apply", "--yes", "--plan", plan["plan"]).code == 4
    assert target.users() == {}
    _, (*_, plan) = shell.json("plan")
    assert shell.run("apply", "--yes", "--plan", plan["plan"]).code == 0


def test_differing_users_have_an_exit_code_of_their_own_and_are_named(
    shell: Shell, target: Target
) -> None:
    shell.run("apply", "--yes")
    target.run("DELETE FROM users WHERE email = 'user1@example.com'")
    code, lines = shell.json("verify")
    assert (code, lines[-1]["code"]) == (5, "users_differ")
    assert [line["user_id"] for line in lines if line["event"] == "outcome"] == [user(1)["id"]]
    assert f"row 1 ({user(1)['id']}): deleted." in shell.run("verify").error


def test_the_schema_is_left_alone_when_rows_are_rejected(
    postgres: Server, make_database: Callable[..., str], tmp_path: Path
) -> None:
    shell = Shell(tmp_path, postgres.url(make_database(migrated=False)))
    shell.write(user(1, email="nobody"))
    assert shell.run("apply", "--yes").code == 3
    _, (*_, status) = shell.json("schema", "status")
    assert {migration["state"] for migration in status["migrations"]} == {"pending"}
    shell.write(user(1))
    assert shell.run("apply", "--yes").code == 0


def test_an_old_servers_table_is_adopted_before_users_are_imported(
    postgres: Server, make_database: Callable[..., str], tmp_path: Path
) -> None:
    target = Target(postgres, make_database(migrated=False))
    target.run(f"SET ROLE app; {OLD_DDL}")
    shell = Shell(tmp_path, postgres.url(target.name))
    shell.write(user(1))
    for arguments in (["plan"], ["apply", "--yes"], ["verify"]):
        done = shell.run(*arguments)
        assert done.code == 1
        assert "make migrate-schema" in done.error


@pytest.mark.parametrize(
    ("arguments", "settings", "code", "sentence"),
    [
        (["plan"], {"DATABASE_URL": ""}, 2, "DATABASE_URL is missing"),
        (["plan"], {"DATABASE_URL": "mysql://x"}, 2, "must begin with postgresql://"),
        (["plan"], {"USERS_FILE": "/nowhere/users.json"}, 2, "There is no file /nowhere"),
        (["backup"], {"USERS_FILE": "/nowhere/users.json"}, 2, "There is no file /nowhere"),
        (["plan", "--source", "/"], {}, 2, "/ is not a regular file"),
        (["plan", "--source", "/dev/null"], {}, 2, "/dev/null is not a regular file"),
        (["rollback", "nothing", "--yes"], {}, 1, "There is no batch nothing"),
        (["export", "--output", "/nowhere/x.json"], {}, 1, "Nothing was changed"),
        (["fly"], {}, 2, "No such command 'fly'"),
        (["apply", "--fast"], {}, 2, "No such option"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    shell: Shell, arguments: list[str], settings: dict[str, str], code: int, sentence: str
) -> None:
    shell.environment |= settings
    done = shell.run(*arguments)
    assert (done.code, done.output) == (code, "")
    assert sentence in done.error


def test_an_unreachable_database_is_said_in_a_sentence(shell: Shell, postgres: Server) -> None:
    for url, sentence in (
        (postgres.url("missing"), "3D000"),
        (postgres.url("postgres", password="wrong"), "28P01"),
        (postgres.url("postgres", port=1), "cannot connect"),
    ):
        shell.environment["DATABASE_URL"] = url
        for arguments in (["plan"], ["apply", "--yes"], ["status"], ["export"]):
            done = shell.run(*arguments)
            assert done.code == 1
            assert sentence in done.error
            assert "Nothing was changed." in done.error
    assert shell.files() == ["users.json"]


def test_nothing_that_exists_is_overwritten(shell: Shell) -> None:
    before = shell.source.read_bytes()
    done = shell.run("export", "--output", str(shell.source))
    assert done.code == 1
    assert "exists" in done.error
    assert shell.source.read_bytes() == before


def test_a_rollback_leaves_a_file_that_names_whom_it_kept(shell: Shell, target: Target) -> None:
    _, (*_, applied) = shell.json("apply", "--yes")
    target.run("UPDATE users SET name = 'Later' WHERE email = 'user1@example.com'")
    _, (*_, result) = shell.json("rollback", applied["batch"], "--yes")
    (path,) = (Path(name) for name in result["files"])
    (line,) = map(json.loads, path.read_text().splitlines())
    assert (line["verdict"], line["email"]) == ("kept", "user1@example.com")


def test_rejected_rows_are_named_before_all_others(shell: Shell, target: Target) -> None:
    shell.write(*(user(number) for number in range(30)))
    shell.run("apply", "--yes")
    target.run("UPDATE users SET name = 'Later'")
    shell.write(*(user(number) for number in range(30)), user(30, email="nobody"))
    lines = [line for line in shell.run("plan").error.splitlines() if line.startswith("  row")]
    assert lines[0].startswith(f"  row 31 ({user(30)['id']}, n…): invalid. ")
    assert len(lines) == 20


def test_an_export_counts_whose_password_the_old_server_cannot_verify(
    shell: Shell, target: Target
) -> None:
    shell.write(
        user(1),
        user(2, password=FOREIGN["django-pbkdf2"]),
        user(3, password=PasswordHasher(4).hash("x" * 72)),
        user(4, password=..., emailVerifiedAt="2025-06-09T17:54:12Z"),
        user(5, password=HASH.replace("$2a$", "$2y$")),
    )
    assert shell.run("apply", "--yes").code == 0
    code, (*_, exported) = shell.json("export", "--output", str(shell.folder / "first.json"))
    assert (code, exported["rows"], exported["not_for_old_server"]) == (0, 5, 2)
    assert json.loads((shell.folder / "first.json").read_text())[1]["password"].startswith("$pbk")
    shown = shell.run("export", "--output", str(shell.folder / "second.json"))
    assert "The old Node server cannot verify the password of 2 users" in shown.output
    target.run("DELETE FROM users WHERE password NOT LIKE '$2%'")
    code, (*_, exported) = shell.json("export", "--output", str(shell.folder / "third.json"))
    assert (exported["rows"], exported["not_for_old_server"]) == (3, 0)
    assert "Node" not in shell.run("export", "--output", str(shell.folder / "last.json")).output


def test_a_database_without_our_tables_has_a_status_and_no_export(
    postgres: Server, make_database: Callable[..., str], tmp_path: Path
) -> None:
    """It may be the wrong database or schema, and a file without users would not tell."""
    shell = Shell(tmp_path, postgres.url(make_database(migrated=False)))
    code, (*_, status) = shell.json("status")
    assert (code, status["users"], status["batches"]) == (0, 0, [])
    ended = shell.run("export")
    assert ended.code == 1
    assert "There is no table users" in ended.error
    assert not list(tmp_path.glob("*.export.*"))


def test_an_outdated_plan_leaves_the_schema_alone(
    postgres: Server, make_database: Callable[..., str], tmp_path: Path
) -> None:
    shell = Shell(tmp_path, postgres.url(make_database(migrated=False)))
    shell.write(user(1))
    assert shell.run("apply", "--yes", "--plan", "0" * 64).code == 4
    _, (*_, plan) = shell.json("plan")
    assert plan["migrations"] == sorted(path.name for path in (ROOT / "migrations").glob("*.sql"))


def test_what_a_file_says_cannot_steer_the_terminal(shell: Shell) -> None:
    shell.write(user(1, **{"\x1b[2J\nplan evil": 1}))
    shown = shell.run("plan").output
    assert "\x1b" not in shown
    assert "\nplan" not in shown


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_what_a_terminal_cannot_show_does_not_stop_anything(
    shell: Shell, target: Target, encoding: str
) -> None:
    shell.write(user(1, **{"\ud800 山": 1}))
    shell.environment["PYTHONIOENCODING"] = encoding
    assert shell.start("apply", "--yes").code == 0
    assert len(target.users()) == 1


def test_who_would_be_overwritten_is_named_before(shell: Shell) -> None:
    shell.run("apply", "--yes")
    shell.write(user(1, name="New"), user(2, name="Ada"))
    _, lines = shell.json("plan")
    named = [(line["row"], line["verdict"]) for line in lines if line["event"] == "outcome"]
    assert named == [(1, "changed")]


def test_help_tells_every_action_and_exit_code() -> None:
    done = subprocess.run(
        [*COMMAND, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for word in ("plan", "backup", "apply", "verify", "status", "rollback", "export", "schema"):
        assert f"\n  {word} " in done
    for code in (0, 1, 2, 3, 4, 5, 130):
        assert f"\n    {code} " in done


def test_a_plan_names_the_first_row_of_each_kind_of_time_that_cannot_be_right(
    shell: Shell,
) -> None:
    shell.write(
        user(1), user(2, createdAt="1970-01-19T19:07:21.492Z"), user(3, updatedAt="2023-08-08")
    )
    for arguments in (["plan"], ["apply", "--yes"], ["verify"]):
        said = shell.run(*arguments).output
        assert "odd time 1 have a time before 1990 (the first: row 2)" in " ".join(said.split()), (
            said
        )
        assert "without an offset, which is read as UTC (the first: row 3)" in said


@pytest.mark.parametrize("skip", [[], ["--skip-invalid"]])
def test_a_file_without_a_single_user_is_never_a_success(shell: Shell, skip: list[str]) -> None:
    """It may be another file: a success would say that there was nothing to do."""
    shell.write({"title": "a post"}, {"title": "another"})
    for arguments in (["apply", "--yes", *skip], ["verify", *skip]):
        done = shell.run(*arguments)
        assert done.code == 3, done
        assert "No row of 2 is a valid user: is this a file of users?" in done.error
        assert "Nothing to write" not in done.output
    assert shell.run("plan").code == 3
    assert shell.files() == ["users.json"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"users": {"u1": {"email": "a@example.com"}}}', "its users are not an array"),
        (json.dumps(user(1), indent=2), "it is one object, and has no array of users"),
        (json.dumps({"posts": [user(1)]}), "it is one object, and has no array of users"),
        (f"{json.dumps(user(1), indent=2)}\n" * 2, "its objects do not stand one on a line"),
    ],
)
def test_a_file_of_another_form_is_told_so_and_which_forms_there_are(
    shell: Shell, text: str, sentence: str
) -> None:
    shell.source.write_text(text)
    for arguments in (["plan"], ["apply", "--yes", "--skip-invalid"], ["verify"]):
        done = shell.run(*arguments)
        assert done.code == 2, done
        assert f"The file cannot be read: {sentence}. Write an array of users" in done.error


def test_users_are_found_beside_posts_and_a_picture_in_a_row_keeps_no_other_back(
    shell: Shell, target: Target
) -> None:
    picture = user(2, avatar="data:image/png;base64," + "x" * 1_400_000)
    held = {"posts": [{"by": user(1)}] * 3, "users": [user(1), picture, user(3)]}
    shell.source.write_text(json.dumps(held, indent=2))
    done = shell.run("apply", "--yes")
    assert done.code == 3
    assert "row 2: invalid. It is longer than 1,048,576 characters." in done.error
    code, (*_, result) = shell.json("apply", "--yes", "--skip-invalid")
    assert (code, result["counts"]["new"], result["counts"]["invalid"]) == (0, 2, 1)
    assert [row[0] for row in target.users().values()] == [user(1)["email"], user(3)["email"]]
    (rejected,) = (Path(name) for name in result["files"] if ".rejected." in name)
    assert json.loads(rejected.read_text()) == [picture]


@pytest.mark.parametrize("action", [["plan"], ["apply", "--yes", "--skip-invalid"], ["verify"]])
def test_a_row_that_cannot_be_imported_shows_its_id_and_its_masked_address(
    shell: Shell, target: Target, action: list[str]
) -> None:
    target.apply([user(9, email="taken@example.com")])
    rows = [
        user(1, password="secret"), user(2), user(3, email="USER2@example.com"),
        user(4, email="taken@example.com"), {"id": "no-uuid", "email": "eve"}, {"id": 7}, "x",
        user(8, createdAt="1624041492226", id=..., email="\u202e@example.com"),
    ]  # fmt: skip
    shell.write(*rows)
    expected = {
        1: (user(1)["id"], "u…@example.com"),
        3: (user(3)["id"], "U…@example.com"),
        4: (user(4)["id"], "t…@example.com"),
        5: ("no-uuid", "e…"),
        6: ("7", None),
        7: (None, None),
        8: (None, "\u202e…@example.com"),
    }
    done = shell.run(*action)
    shown = done.error + done.output
    for row, names in expected.items():
        told = ", ".join(filter(None, names)).replace("\u202e", "\ufffd")
        assert f"  row {row}{f' ({told})' if told else ''}: " in shown, (row, shown)
    assert "taken@" not in shown
    shell.write(*rows)
    _, lines = shell.json(*action)
    rejected = {
        line["row"]: (line.get("user_id"), line.get("email"))
        for line in lines
        if line["event"] == "outcome" and line["row"] in expected
    }
    assert rejected == expected


def test_the_file_is_read_again_only_up_to_the_last_row_that_is_shown(shell: Shell) -> None:
    shell.write(*({"id": str(number)} for number in range(30)), user(1))
    done = shell.run("plan")
    for number in range(20):
        assert f"  row {number + 1} ({number}): invalid. " in done.error
    assert "row 21" not in done.error
    _, lines = shell.json("plan")
    outcomes = [line for line in lines if line["event"] == "outcome"]
    assert [line["user_id"] for line in outcomes] == [str(number) for number in range(30)]
