"""Users of other systems through the whole move and back, by the command, as their files stand."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from shared.formats.password_hashes import BCRYPT
from tests.support.adapted import FILES
from tests.support.commands import Ended, invoke
from tests.support.emulator import environment
from tests.support.in_process import served
from tests.support.mails import token
from tests.support.other_systems import CASES, KEY, LATER, PASSWORD, SUBJECT, Case
from tests.support.transfers import Target, nonzero

HASHES = Path(__file__).parent.parent / "data" / "hashes.tsv"
NEW = "a wholly new password"
GOOGLE = "https://accounts.google.com"


class Move:
    """The commands of a move from a file to a database."""

    def __init__(self, case: Case, folder: Path, url: str) -> None:
        for name in (case.file, *case.options):
            if (FILES / name).is_file():
                (folder / name).write_bytes((FILES / name).read_bytes())
        self.source = folder / case.file
        paths = [str(folder / it) if (folder / it).is_file() else it for it in case.options]
        self.options = ["--source", str(self.source), "--from", case.system, *paths]
        self.environment = environment(DATABASE_URL=url, ENCRYPTION_KEY=KEY)

    def run(self, action: str, *options: str) -> list[dict[str, Any]]:
        """Run an action on the file, and give its JSON lines."""
        return _lines(self.ended(action, *options))

    def ended(self, action: str, *options: str) -> Ended:
        return invoke((action, *self.options, *options, "--json"), self.environment)

    def other(self, *arguments: str) -> list[dict[str, Any]]:
        return _lines(invoke((*arguments, "--json"), self.environment))


def _lines(ended: Ended) -> list[dict[str, Any]]:
    assert ended.code == 0, ended.error
    return [json.loads(line) for line in ended.output.splitlines()]


def _email(name: str) -> str:
    return f"{name}@example.com"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.file)
def test_a_file_of_each_system_through_the_whole_move_and_back(
    case: Case, target: Target, tmp_path: Path
) -> None:
    move = Move(case, tmp_path, target.server.url(target.name))
    people = [*case.hashed, *case.others]
    planned = move.run("plan")[-1]
    assert planned["system"] == case.system
    assert (planned["rows"], planned["counts"]["new"]) == (len(people), len(people))
    assert sorted(planned["left_behind"]) == sorted(case.left)
    assert not target.users()

    applied = move.run("apply", "--yes")[-1]
    assert applied["plan"] == planned["plan"]
    _check(case, target)
    assert move.run("verify")[-1]["counts"]["identical"] == len(people)
    again = move.run("apply", "--yes")[-1]
    assert (again["batch"], again["counts"]["identical"]) == (None, len(people))

    exported = move.other("export", "--output", str(tmp_path / "exported.json"))[-1]
    copy = Target(target.server, f"{target.name}_copy")
    target.server.create_database(copy.name, "migrated")
    copy.apply(Path(exported["path"]).read_bytes())
    assert copy.users() == target.users()
    assert copy.identities() == target.identities()
    copy.close()

    done = move.other("rollback", applied["batch"], "--yes")[-1]
    assert done["counts"]["removed"] == len(people)
    assert not target.users()
    assert not target.identities()


def _check(case: Case, target: Target) -> None:
    """Compare what Postgres holds with what the file says."""
    stored = {email: rest for email, *rest in target.psql(
        "SELECT email_key, password IS NOT NULL, disabled_at IS NOT NULL,"
        " unverified_since IS NOT NULL, totp_secret IS NOT NULL, claims IS NOT NULL,"
        " coalesce((SELECT string_agg(subject, ' ') FROM identities i"
        f" WHERE i.user_id = u.id AND issuer = '{GOOGLE}'), '') FROM users u"
    )}  # fmt: skip
    assert set(stored) == {_email(name) for name in [*case.hashed, *case.others]}
    columns = case.hashed, case.disabled, case.unverified, case.secrets
    for place, names in enumerate(columns):
        found = {email for email, row in stored.items() if row[place] == "t"}
        assert found == {_email(name) for name in names}, place
    assert sum(row[4] == "t" for row in stored.values()) == case.claims
    linked = {email for email, row in stored.items() if row[5] == SUBJECT}
    assert linked == {_email(name) for name in case.google}


@pytest.mark.parametrize("case", [it for it in CASES if it.hashed], ids=lambda case: case.file)
def test_who_has_a_hash_logs_in_and_has_one_of_ours_then_but_nobody_who_is_disabled(
    case: Case, target: Target, tmp_path: Path
) -> None:
    url = target.server.url(target.name)
    move = Move(case, tmp_path, url)
    move.run("apply", "--yes")
    brought = _passwords(target)
    assert {name for name in case.hashed if BCRYPT.fullmatch(brought[name])} == set(case.bcrypt)
    with served(DATABASE_URL=url) as service:
        for name in case.hashed:
            body = {"email": _email(name), "password": PASSWORD}
            wrong = body | {"password": f"{PASSWORD}!"}
            assert service.post("/api/login", wrong).status_code == 401
            status = 401 if name in case.disabled else 200
            assert service.post("/api/login", body).status_code == status, name
    came_in = {name for name in case.hashed if name not in case.disabled}
    found = _passwords(target)
    replaced = came_in - set(case.bcrypt)
    assert {name for name in found if found[name] != brought[name]} == replaced
    assert all(found[name].startswith("$2b$04$") for name in replaced)
    counts = move.run("verify")[-1]["counts"]
    assert (counts["kept"], counts["identical"]) == (len(replaced), len(found) - len(replaced))
    if weaker := came_in & set(case.bcrypt):
        with served(DATABASE_URL=url, BCRYPT_ROUNDS="11") as service:
            for name in weaker:
                body = {"email": _email(name), "password": PASSWORD}
                assert service.post("/api/login", body).status_code == 200
        found = _passwords(target)
        assert all(found[name].startswith("$2b$11$") for name in weaker)


def _passwords(target: Target) -> dict[str, str]:
    rows = target.psql("SELECT email_key, coalesce(password, '') FROM users")
    return {email.split("@")[0]: password for email, password in rows}


@pytest.mark.parametrize("case", [it for it in CASES if it.file in LATER], ids=lambda it: it.system)
def test_a_later_export_brings_what_has_changed_there_and_can_be_taken_back(
    case: Case, target: Target, tmp_path: Path
) -> None:
    later, move = LATER[case.file], Move(case, tmp_path, target.server.url(target.name))
    first = move.run("apply", "--yes")[-1]
    before = _rows(target)
    for name, edits in later.edits.items():
        text = (tmp_path / name).read_text()
        for old, new in edits:
            assert old in text
            text = text.replace(old, new, 1)
        (tmp_path / name).write_text(text)
    options = []
    for option, text in later.files.items():
        (tmp_path / option).write_text(text)
        options += [f"--{option}", str(tmp_path / option)]
    second = move.run("apply", "--yes", *options)[-1]
    assert nonzero(second["counts"]) == {"changed": len(later.changed), "new": 1}
    after = _rows(target)
    assert {name for name in before if after[name] != before[name]} == set(later.changed)
    assert after.keys() - before.keys() == {"eve"}
    assert move.run("verify", *options)[-1]["counts"]["identical"] == len(after)
    move.other("rollback", second["batch"], "--yes")
    assert _rows(target) == before
    move.other("rollback", first["batch"], "--yes")
    assert not _rows(target)


def _rows(target: Target) -> dict[str, list[str]]:
    """Read all that is stored of each user, by name, but for what a restored password raises."""
    rows = target.psql(
        "SELECT split_part(email_key, '@', 1), to_jsonb(u) - 'epoch', (SELECT jsonb_agg(to_jsonb(i)"
        " ORDER BY issuer, subject) FROM identities i WHERE i.user_id = u.id) FROM users u"
    )
    return {name: row for name, *row in rows}


SCHEMES = [line.split("\t") for line in HASHES.read_text().splitlines() if line[0] != "#"]
NAMED = {"meteor": (), "devise": ("--pepper-env", "THEIR_PEPPER"), "wordpress": ()}
PEPPER = "synthetic-pepper"


def _scheme(name: str) -> str:
    """Name the scheme that the operator has to name, if the text of the hash does not tell."""
    return next((it for it in NAMED if name.startswith(it)), "")


@pytest.mark.parametrize("scheme", ["", *NAMED])
def test_a_table_of_ones_own_by_a_mapping_with_hashes_of_every_scheme(
    scheme: str, target: Target, tmp_path: Path
) -> None:
    url = target.server.url(target.name)
    source = tmp_path / "members.csv"
    stored = [text for name, text in SCHEMES if _scheme(name) == scheme]
    with source.open("w", newline="") as file:
        lines = [[f"user{n}@example.com", text, f'a\n"b", {n}'] for n, text in enumerate(stored)]
        csv.writer(file).writerows([("mail", "pw", "full name"), *lines])
    variables = {"PASSWORD_PEPPERS": PEPPER}
    options = [
        "--source",
        str(source),
        "--from",
        "csv",
        "--map",
        "email=mail,password=pw,name=full name",
    ]
    if scheme:
        options += ["--hash", scheme, *NAMED[scheme]]
    settings = environment(DATABASE_URL=url, THEIR_PEPPER=PEPPER, **variables)
    (*_, applied) = _lines(invoke(("apply", "--yes", *options, "--json"), settings))
    assert (applied["counts"]["new"], applied["left_behind"]) == (len(stored), {})
    brought = _passwords(target)
    assert len(brought) == len(stored)
    with served(DATABASE_URL=url, **variables) as service:
        for number, text in enumerate(stored):
            body = {"email": f"user{number}@example.com", "password": PASSWORD}
            assert service.post("/api/login", body).status_code == 200, text
    replaced = {name for name, password in brought.items() if not BCRYPT.fullmatch(password)}
    found = _passwords(target)
    assert {name for name in found if found[name] != brought[name]} == replaced
    assert all(found[name].startswith("$2b$04$") for name in replaced)
    assert all('b",' in name for (name,) in target.psql("SELECT name FROM users"))


@pytest.mark.parametrize("is_verified", [True, False])
@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        ("/api/password/forgot", "/api/password/reset"),
        ("/api/login/mail", "/api/login/mail/verify"),
    ],
)
def test_who_has_no_hash_comes_in_by_mail_verified_or_not(
    ask: str, answer: str, is_verified: bool, target: Target, tmp_path: Path
) -> None:
    case = Case("cognito", "cognito.json", [], ["ada"])
    url = target.server.url(target.name)
    move = Move(case, tmp_path, url)
    content = json.loads(move.source.read_bytes())
    content["Users"][0]["Attributes"][1]["Value"] = str(is_verified).lower()
    move.source.write_text(json.dumps(content))
    assert move.run("apply", "--yes")[-1]["without_password"] == 1
    variables = {"ENVIRONMENT": "development", "SIGN_IN_BY_MAIL": "true"}
    folder = str(tmp_path / "users.json")  # The mails are beside it.
    with served(DATABASE_URL=url, USERS_FILE=folder, **variables) as service:
        assert service.post(ask, {"email": _email("ada")}).status_code == 202
        body = {"token": token(service, _email("ada"))}
        if ask == "/api/password/forgot":
            body["newPassword"] = NEW
        answered = service.post(answer, body)
        assert answered.status_code == 200, answered.text
        if "newPassword" in body:
            login = {"email": _email("ada"), "password": NEW}
            assert service.post("/api/login", login).status_code == 200
    assert target.psql("SELECT email_verified_at IS NOT NULL FROM users") == [["t"]]
