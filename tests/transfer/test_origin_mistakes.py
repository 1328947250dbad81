"""What a person does wrong with `--from` and its kin: refused, or told, before anything is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shared.transfer.wording import question
from tests.support.adapted import FILES
from tests.support.commands import Ended, invoke
from tests.support.emulator import environment
from tests.support.transfers import HASH, Target, user

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


class Shell:
    """Runs actions on files of other systems."""

    def __init__(self, folder: Path, target: Target) -> None:
        self.folder = folder
        self.source = folder / "export"
        self.environment = environment(DATABASE_URL=target.server.url(target.name))

    def write(self, content: Any, name: str = "export") -> Path:
        """Write a file, JSON where it is no bytes."""
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return path

    def run(self, *arguments: str, **variables: str) -> Ended:
        return invoke(
            (arguments[0], "--source", str(self.source), *arguments[1:]),
            self.environment | variables,
        )

    def apply(self, *arguments: str, **variables: str) -> Ended:
        return self.run("apply", "--yes", "--no-report", *arguments, **variables)


@pytest.fixture
def shell(target: Target, tmp_path: Path) -> Shell:
    return Shell(tmp_path, target)


def _lines(ended: Ended) -> list[str]:
    return [" ".join(line.split()) for line in ended.output.splitlines()]


def _django(number: int, email: str, model: str = "auth.user") -> dict[str, Any]:
    return {"model": model, "pk": number, "fields": {"email": email, "password": HASH}}


@pytest.mark.parametrize(
    ("system", "file", "sentence"),
    [
        ("keycloak", "firebase-users.json", "Firebase's, by its localId, and --from says Keycloak"),
        ("supabase", "keycloak-realm.json", "is Keycloak's, by its"),
        ("clerk", "aspnet.csv", "is ASP.NET Identity's, by its"),
    ],
)
def test_a_file_that_tells_of_another_system_than_is_named_is_refused(
    system: str, file: str, sentence: str, shell: Shell, target: Target
) -> None:
    shell.source = FILES / file
    for run in (shell.run("plan", "--from", system), shell.apply("--from", system)):
        assert run.code == 2
        assert sentence in run.error
    assert not target.users()


def test_with_a_mapping_it_is_only_told(shell: Shell) -> None:
    shell.source = FILES / "wordpress.json"
    shown = shell.run("plan", "--from", "json", "--map", "email=user_email")
    assert shown.code == 0
    assert "and --from says json: --from wordpress brings what is WordPress's own." in shown.error


def test_a_file_that_tells_nothing_is_what_it_is_named(shell: Shell) -> None:
    shell.write([{"id": "1", "email": "ada@example.com"}])
    assert shell.run("plan", "--from", "supabase").code == 0


@pytest.mark.parametrize("options", [(), ("--model", "app.usr")])
def test_a_dump_without_a_user_of_the_model_names_the_models_that_it_has(
    options: tuple[str, ...], shell: Shell
) -> None:
    session = {"model": "sessions.session", "pk": "x", "fields": {}}
    shell.write([session, session, _django(1, "ada@example.com", "app.user")])
    for action in ("plan", "verify"):
        ended = shell.run(action, "--from", "django", *options)
        assert ended.code == 2
        assert (
            "none of its 3 rows is a user of Django. Name the model of users with --model; it has "
            "app.user (1 row), sessions.session (2 rows)."
        ) in ended.error
    assert shell.run("plan", "--model", "app.user").code == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--from", "django", "--hash", "devise"), "--hash does not belong to a file of Django"),
        (("--from", "auth0", "--pepper-env", "PEPPER"), "--pepper-env does not belong to a file"),
        (("--from", "csv", "--pepper-env", "PEPPER"), "--pepper-env needs --hash devise"),
        (
            ("--from", "json", "--hash", "meteor", "--pepper-env", "PEPPER"),
            "--pepper-env needs --hash devise",
        ),
        (("--from", "django", "--instance", "Shop EU"), "--instance is a name of lower case"),
        (("--from", "firebase", "--instance", "eu", "--project", "x"), "exclude each other"),
        (("--from", "users", "--instance", "eu"), "name that with --from"),
    ],
)
def test_options_that_would_be_ignored_or_do_harm_are_refused(
    options: tuple[str, ...], sentence: str, shell: Shell
) -> None:
    shell.write([{"email": "ada@example.com", "password": HASH}])
    ended = shell.run("plan", *options, PEPPER="x")
    assert ended.code == 2
    assert sentence in ended.error


def test_two_installations_of_a_system_are_told_apart_by_their_names(
    shell: Shell, target: Target
) -> None:
    for name in ("shop", "forum"):
        shell.write([_django(1, f"ada@{name}.example")])
        options = ("--from", "django", "--instance", name)
        assert shell.apply(*options).code == 0
        assert shell.run("verify", *options).code == 0
    emails = sorted(columns[0] for columns in target.users().values())
    assert emails == ["ada@forum.example", "ada@shop.example"]
    assert sorted(target.psql("SELECT issuer, subject FROM identities")) == [
        ["urn:ai-coder:source:django:forum", "1"],
        ["urn:ai-coder:source:django:shop", "1"],
    ]


def test_the_ids_of_another_installation_do_not_overwrite_the_first_ones_people(
    shell: Shell, target: Target
) -> None:
    shell.write([_django(number, f"user{number}@shop.example") for number in range(5)])
    assert shell.apply("--from", "django").code == 0
    before = target.users()
    shell.write([_django(number, f"user{number}@forum.example") for number in range(5)])
    planned = shell.run("plan")
    assert planned.code == 0
    line = "address changed 5 have another address than the user of that id had (rows 1, 2, 3 …)"
    assert line in _lines(planned)
    refused = shell.apply()
    assert refused.code == 1
    assert "5 of 5 changed users would get another address" in refused.error
    assert "--instance" in refused.error
    assert target.users() == before
    applied = shell.apply("--addresses-changed")
    assert applied.code == 0
    assert line in _lines(applied)
    assert all("forum" in columns[0] for columns in target.users().values())


def test_a_few_who_have_moved_are_no_reason_to_ask(shell: Shell, target: Target) -> None:
    shell.write([_django(number, f"user{number}@example.com") for number in range(5)])
    assert shell.apply().code == 0
    moved = [_django(number, f"moved{number}@example.com") for number in range(3)]
    shell.write(moved)
    assert shell.apply().code == 0
    assert sum("moved" in columns[0] for columns in target.users().values()) == 3


def test_a_catch_up_that_takes_away_what_was_brought_is_told_in_the_plan(
    shell: Shell,
) -> None:
    google = [{"provider": "google-oauth2", "user_id": "108"}]
    users = [
        {"user_id": f"auth0|{number}", "email": f"{number}@example.com", "email_verified": True,
         "identities": google if number == 2 else []}
        for number in range(3)
    ]  # fmt: skip
    shell.write(users)
    hashes = [{"_id": {"$oid": str(number)}, "passwordHash": HASH} for number in range(2)]
    passwords = shell.write("\n".join(map(json.dumps, hashes)).encode(), "passwords")
    assert shell.apply("--passwords", str(passwords)).code == 0
    assert "loses" not in shell.run("plan", "--passwords", str(passwords)).output
    users[2]["identities"] = []
    shell.write(users)
    told = _lines(shell.run("plan"))
    assert "loses password 2 changed, and without the password that they have here (rows 1, 2)" in (
        told
    )
    assert "loses identity 1 changed, and without an identity that they have here (row 3)" in told


def test_the_question_repeats_what_is_lost(target: Target) -> None:
    target.apply([user(1), user(2), user(3)])
    found, _ = target.plan(
        [user(number, password=None, emailVerifiedAt="2024-01-01T00:00:00Z") for number in (1, 2)]
        + [user(3, name="Other")]
    )
    assert question(found, 0, "here") == (
        "Among 3 changed users: 2 without their password. Write 3 users to here?"
    )
    assert question(found, 1, "here").endswith(
        "without their password. Apply 1 migration and write 3 users to here?"
    )


def test_a_second_factor_that_a_forgotten_key_takes_away_is_told(shell: Shell) -> None:
    row = {"email": "ada@example.com", "password": HASH, "totp": "JBSWY3DPEHPK3PXPJBSWY3DP"}
    shell.write([row])
    assert shell.apply("--from", "json", ENCRYPTION_KEY=KEY).code == 0
    line = "loses factor 1 changed, and without the second factor that they have here (row 1)"
    planned, applied = shell.run("plan", "--from", "json"), shell.apply("--from", "json")
    assert line in _lines(planned)
    assert line in _lines(applied)


@pytest.mark.parametrize(
    ("content", "options", "sentence"),
    [
        (b"", (), "export is empty."),
        (b"%PDF-1.7 x\n", (), "it is a PDF; export the users as JSON or CSV"),
        (b"%PDF-1.7 x\n", ("--from", "csv"), "it is a PDF"),
        ("mail,name\na@b.example,Zo\xeb\n".encode("latin-1"), (), "iconv -f WINDOWS-1252 -t UTF-8"),
        ('[{"email": "Zo\xeb"}]'.encode("latin-1"), (), "iconv -f WINDOWS-1252 -t UTF-8"),
        (b"mail;name\nx;y\n", (), "line 1 has semicolons between its cells; write commas there"),
        (b"email\tname\nx\ty\n", ("--from", "csv"), "line 1 has tabs between its cells"),
        (
            b'{"users": []}',
            ("--from", "better-auth"),
            'has no array of account. Write {"account": [\u2026]}.',
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_told_by_what_it_is(
    content: bytes, options: tuple[str, ...], sentence: str, shell: Shell
) -> None:
    shell.write(content)
    ended = shell.run("plan", *options)
    assert ended.code == 2
    assert sentence in ended.error


def test_of_two_files_the_one_at_fault_is_named(shell: Shell) -> None:
    shell.source = FILES / "auth0-users.ndjson"
    other = shell.write(b"[{", "passwords")
    for content, sentence in ((b"[{", "breaks off"), (b"%PDF-", "it is a PDF")):
        other.write_bytes(content)
        refused = shell.run("plan", "--passwords", str(other))
        assert refused.code == 2
        assert "--passwords: The file cannot be read: " in refused.error
        assert sentence in refused.error
    shell.source = shell.folder / "nowhere"
    assert f"There is no file {shell.source}." in shell.run("plan", "--from", "csv").error


def test_that_no_password_was_checked_is_said_after_a_plan_alone(shell: Shell) -> None:
    options = ("--from", "json", "--hash", "meteor")
    shell.write(b"[{")
    assert "No password was checked" not in shell.run("plan", *options).error
    shell.write([{"email": "ada@example.com", "password": HASH}])
    for shown in (shell.run("plan", *options), shell.apply(*options)):
        assert shown.code == 0
        assert "No password was checked" in shown.error
    events = shell.run("plan", *options, "--json").output.splitlines()
    assert json.loads(events[-1])["event"] == "result"


def test_a_key_that_no_hash_needs_is_told(shell: Shell) -> None:
    config = ("--hash-config", str(FILES / "firebase-hash-config.txt"))
    unneeded = "No hash in the file needs the key of --hash-config"
    shell.write([{"email": "ada@example.com", "password": HASH}])
    for shown in (
        shell.run("plan", "--from", "json", *config),
        shell.apply("--from", "json", *config),
    ):
        assert shown.code == 0
        assert shown.error.count(unneeded) == 1
    assert unneeded not in shell.run("plan", "--from", "json").error
    shell.write([{"localId": "a", "email": "ada@example.com"}])
    assert unneeded in shell.run("plan", "--from", "firebase", *config).error
    shell.write((FILES / "firebase-users.json").read_bytes())
    assert unneeded not in shell.run("plan", *config).error
    supertokens = f"$f_scrypt${'A' * 86}==$AQID$m=14$r=8$s=Bw=="
    shell.write([{"email": "bob@example.com", "password": supertokens}])
    shown = shell.run("plan", "--from", "json", *config)
    assert "new 1 new, to be written" in _lines(shown)
    assert "left behind" not in shown.output
    assert unneeded not in shown.error


def test_a_pepper_that_no_hash_needs_is_told(shell: Shell) -> None:
    variables = {"PEPPER": "p", "PASSWORD_PEPPERS": "p"}
    options = ("--from", "json", "--hash", "devise", "--pepper-env", "PEPPER")
    unneeded = "No hash in the file needs the key of --pepper-env"
    for password, is_told in ((HASH, False), (None, True)):
        shell.write([{"email": "ada@example.com", "password": password}])
        shown = shell.run("plan", *options, **variables)
        assert shown.code == 0
        assert (unneeded in shown.error) == is_told


def test_a_quote_within_a_cell_swallows_no_other_row(shell: Shell) -> None:
    rows = ['a@b.example,the 5" disk', "c@d.example,", 'e@f.example,another "', "g@h.example,"]
    shell.write("\n".join(["email,name", *rows, ""]).encode())
    assert "new 4 new, to be written" in _lines(shell.run("plan", "--from", "csv"))


def test_a_row_that_could_not_be_adapted_is_kept_beside_what_is_wrong_with_it(
    shell: Shell,
) -> None:
    bad = {"email": "ada@example.com", "roles": {"a": 1}}
    shell.write([bad, {"email": "bob@example.com"}])
    applied = shell.apply("--from", "json", "--skip-invalid", "--json")
    (path,) = json.loads(applied.output.splitlines()[-1])["files"]
    assert json.loads(Path(path).read_bytes()) == [
        {"row": 1, "problem": "The roles are not a list of texts.", "source": bad}
    ]
