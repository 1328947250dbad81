"""Joins, other files and bad rows: what is found, what is missed, and what it takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shared.errors import InvalidSource
from shared.model.user_record import InvalidRow
from shared.transfer.adapters import django
from tests.support.adapted import FILES, Adapted, adapted
from tests.support.emulator import ROOT
from tests.support.transfers import HASH

ADA = "ada@example.com"
GOOGLE = {"issuer": "https://accounts.google.com", "subject": "108000000000000000001"}


def _lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _users(**users: str) -> list[dict[str, Any]]:
    return [{"id": key, "email": email, "emailVerified": True} for key, email in users.items()]


def test_passwords_of_another_file_find_their_users_and_those_without_are_named(
    tmp_path: Path,
) -> None:
    users = [
        {"user_id": f"auth0|{n}", "email": f"{n}@example.com", "identities": []} for n in "abc"
    ]
    passwords = tmp_path / "passwords"
    passwords.write_bytes(
        _lines(
            {"_id": {"$oid": "zz"}, "passwordHash": HASH},
            {"_id": {"$oid": "b"}, "passwordHash": HASH},
            {"passwordHash": HASH},
            [],
        )
    )
    found = adapted(tmp_path, "auth0", _lines(*users), passwords=passwords)
    assert [row.get("password") for row in found.rows] == [None, HASH, None]
    assert found.left == {
        "password hash left behind: no hash in --passwords": [1, 3],
        "password of a user who is not in the file": [1],
        "password that names no user": [3],
        "password that cannot be read: It is not an object.": [4],
    }


def test_the_digest_is_the_files_own_and_of_two_it_changes_with_either(tmp_path: Path) -> None:
    users = FILES / "auth0-users.ndjson"
    alone = Adapted(users, "auth0").source.sha256
    both = Adapted(users, "auth0", passwords=FILES / "auth0-passwords.ndjson").source.sha256
    assert len({alone, both, Adapted(users, "auth0", passwords=users).source.sha256}) == 3


@pytest.mark.parametrize("before", [True, False])
def test_tables_of_one_file_are_joined_in_whatever_order_they_stand(
    before: bool, tmp_path: Path
) -> None:
    accounts = {
        "account": [
            {"userId": "k1", "providerId": "credential", "password": HASH},
            {"userId": "k2", "providerId": "google", "accountId": GOOGLE["subject"]},
            {"userId": "k2", "providerId": "github", "accountId": "7"},
            {"userId": "gone", "providerId": "credential", "password": HASH},
        ]
    }
    users = {"user": _users(k1=ADA, k2="bob@example.com")}
    found = adapted(tmp_path, "better-auth", accounts | users if before else users | accounts)
    ada, bob = found.rows
    assert (ada["password"], bob["provider"]) == (HASH, "google")
    assert bob["identities"][-1] == GOOGLE
    assert found.left == {
        "sign-in with github left behind": [2],
        "account of a user who is not in the file": [4],
    }


def test_djangos_tables_stand_among_each_other_and_keys_may_be_natural(tmp_path: Path) -> None:
    rows = [
        {"model": "account.emailaddress", "pk": 1,
         "fields": {"user": ["ada"], "email": "old@example.com", "verified": True}},
        {"model": "app.person", "fields": {"username": "ada", "password": HASH}},
        {"model": "account.emailaddress", "pk": 2,
         "fields": {"user": ["ada"], "email": ADA, "verified": True, "primary": True}},
        {"model": "sessions.session", "pk": "x", "fields": {}},
        {"model": "socialaccount.socialaccount", "pk": 2,
         "fields": {"user": ["ada"], "provider": "google", "uid": GOOGLE["subject"]}},
    ]  # fmt: skip
    found = adapted(tmp_path, django.adapter("app.Person"), rows)
    (ada,) = found.rows
    assert (ada["email"], ada["password"]) == (ADA, HASH)
    assert ada["emailVerifiedAt"] == "1970-01-01T00:00:00.000Z"
    assert GOOGLE in ada["identities"]
    assert found.left == {"second address dropped": [2]}


def test_supabases_identities_come_from_their_table_alone(tmp_path: Path) -> None:
    identities = tmp_path / "identities.csv"
    identities.write_text(
        "provider_id,user_id,identity_data,provider\n"
        f'{GOOGLE["subject"]},6f1d0c1e-0000-4000-8000-000000000002,"{{""email"":'
        '""bob@example.com""}",google\n'
    )
    found = Adapted(FILES / "supabase-users.csv", "supabase", identities=identities)
    assert found.rows[1]["identities"] == [GOOGLE]
    assert found.left == {}


def test_one_bad_row_of_many_is_one_and_the_others_keep_their_numbers(tmp_path: Path) -> None:
    rows: list[Any] = [{"localId": f"a{n}", "email": f"user{n}@example.com"} for n in range(1000)]
    rows[400] = "not an object"
    rows[500]["email"] = None
    rows[600]["providerUserInfo"] = 7
    found = adapted(tmp_path, "firebase", {"users": rows})
    assert len(found.rows) == 999
    assert [str(row) for row in found.rows if isinstance(row, InvalidRow)] == [
        "The providerUserInfo is not a list of objects."
    ]
    assert found.rows[400] == "not an object"
    assert found.left == {"anonymous": [501]}
    assert found.source.rows_read == 1000


@pytest.mark.parametrize(
    ("system", "content", "problem"),
    [
        ("clerk", "a,b\n1,2\n", "The file has no column id, primary_email_address"),
        ("clerk", "id,primary_email_address\n1,\xe4\n".encode("latin-1"), "convert the file"),
        ("better-auth", '{"user": []}', "it is one object, and has no array of account"),
        ("firebase", '{"Users": []}', "it is one object, and has no array of users"),
        ("firebase", "", "line 1 is empty"),
    ],
)
def test_a_file_of_another_shape_is_refused_by_what_it_lacks(
    system: str, content: str | bytes, problem: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidSource) as refused:
        adapted(tmp_path, system, content)
    assert problem in refused.value.sentence


_MEMORY = """
import resource, sys
from pathlib import Path
from shared.transfer.source_file import open_source
from tests.support.adapted import adapted_file

with open_source(Path(sys.argv[1])) as file:
    rows = adapted_file(file, "better-auth").source().rows()
    first = next(rows)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = 1 + sum("password" in row for row in rows)
    print(found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, before)
"""


def test_joining_keeps_memory_flat(tmp_path: Path) -> None:
    most = []
    for count in (1_000, 60_000):
        path = tmp_path / "better-auth.json"
        with path.open("w") as file:
            for before, row in (
                ('{"account": [', {"providerId": "credential", "password": HASH}),
                ('], "user": [', {"emailVerified": True, "name": "x" * 100}),
            ):
                file.write(before)
                for number in range(count):
                    key = f"k{number}"
                    keys = {"id": key, "userId": key, "email": f"{key}@example.com"}
                    file.write(("," if number else "") + json.dumps(row | keys))
            file.write("]}")
        done = subprocess.run(
            [sys.executable, "-c", _MEMORY, path], cwd=ROOT, check=True, capture_output=True
        )
        found, more, before_users = map(int, done.stdout.split())
        assert found == count
        most.append(before_users + more)
    assert most[1] - most[0] < 8_000  # KiB, of a file of 18 MB.
