"""SQL and Python make one key of an address, and keys that were made otherwise are repaired."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pg8000.exceptions
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.database import migrations
from shared.database.settings import DatabaseSettings
from shared.database.url import DatabaseUrl
from shared.errors import StoreRefused, StoreUnavailable
from shared.model.emails import email_key
from shared.model.users import ExternalIdentity
from shared.store.postgres import email_keys
from shared.store.postgres.preparation import bring_up_to_date
from shared.store.postgres.shapes import TABLES, USERS
from tests.support.commands import run
from tests.support.emulator import ROOT, running_emulator
from tests.support.old_database import HASH, OLD_DDL
from tests.support.postgres import Server, running_postgres, versions
from tests.support.stores import postgres_store

MAJOR_VERSIONS = [
    pytest.param(version, marks=() if version == 17 else pytest.mark.long)
    for version in (14, 15, 16, 17, 18)
]
"""Which the README names; the wheel's is 17."""
FILES = sorted((ROOT / "migrations").glob("*.sql"))
VICTIM, STRANGER = "victim@example.dev", "ictim@example.de"
GOOGLE = ExternalIdentity("https://accounts.google.com", "a stranger")
KEYS = "SELECT email, email_key FROM users ORDER BY email"

# The rules that an address meets: spaces at its ends, marks, cases of several letters, Punycode.
ADDRESSES = st.lists(
    st.one_of(
        st.text(
            st.one_of(
                st.sampled_from("vV\v\t \n\r\f\x1c\x85\xa0\u2003\u3000\ufeff.@-nx\\'"),
                st.sampled_from(
                    "iIİ\u0131K\u212a\u212bÅßẞ\u017fΣ\u03c3ςéÉe\u0301ŉǅ\u04c0ЖжŸÿ\u0345\uac00\u1100\u1161"
                ),
                st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
            ),
            max_size=20,
        ),
        st.emails(),
        st.from_regex(r"[a-zA-Zv]{1,6}@([Xx][Nn]--)?[a-zA-Z-]{1,9}\.(de|dev|DEV|example)\s*"),
    ).filter(lambda address: "\0" not in address),
    min_size=1,
    max_size=100,
)


@pytest.fixture(scope="module", params=MAJOR_VERSIONS)
def any_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of each major version in turn, without TLS, which not all were built with."""
    programs = versions().get(request.param)
    if programs is None:
        message = f"PostgreSQL {request.param} is not installed: `make postgres-versions`"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with running_postgres(plaintext=True, programs=programs) as server:
        yield server


def _locales(server: Server) -> Iterator[str]:
    """Create a database for each kind of locale that this server can have, and give its name."""
    options = ["", _c_locale(server)]
    has_icu = server.run("SELECT 1 FROM pg_collation WHERE collname = 'tr-x-icu'")
    if has_icu and server.version >= 15:
        options.append("LOCALE_PROVIDER icu ICU_LOCALE 'tr-TR' LOCALE 'C'")
    for number, option in enumerate(options):
        name = f"locale_{number}"
        server.run(f"CREATE DATABASE {name} TEMPLATE template0 {option}")
        yield name


def _c_locale(server: Server) -> str:
    return "LOCALE 'C'" + (" LOCALE_PROVIDER libc" if server.version >= 15 else "")


def test_on_every_version_and_locale_sql_makes_the_key_that_python_makes_or_none(
    any_server: Server,
) -> None:
    with ExitStack() as stack:
        connections = [
            stack.enter_context(any_server.connect(name)) for name in _locales(any_server)
        ]
        for connection in connections:
            for file in FILES:
                connection.run(file.read_text())
            connection.run("SET standard_conforming_strings = off")

        @settings(max_examples=50)
        @given(ADDRESSES)
        def agree(addresses: list[str]) -> None:
            made = [email_key(address) for address in addresses]
            for connection in connections:
                for key, right, address in zip(
                    _keys(connection, addresses), made, addresses, strict=True
                ):
                    is_plain = address.isascii() and "xn--" not in address.lower()
                    assert key == right or (key is None and not is_plain), address

        agree()


def test_letters_of_latin_and_cyrillic_have_their_keys_at_once(
    postgres: Server, database: str
) -> None:
    addresses = ["ÖZGE@Bücher.de", "ЖАННА@example.ru", "ŁÓDŹ@x.pl"]
    with postgres.connect(database) as connection:
        assert _keys(connection, addresses) == [email_key(address) for address in addresses]


def test_no_character_has_another_key_in_sql(postgres: Server, database: str) -> None:
    """Whatever it is, at an end of the address, inside, or in the domain."""
    characters = [chr(n) for n in range(1, 0x3000)]
    addresses = [a for c in characters for a in (f"{c}a{c}b@x.dev{c}", f"a@x{c}y.example")]
    with postgres.connect(database) as connection:
        keys = dict(zip(addresses, _keys(connection, addresses), strict=True))
    wrong = {a: key for a, key in keys.items() if key is not None and key != email_key(a)}
    assert wrong == {}


def _keys(connection: Any, addresses: list[str]) -> list[str | None]:
    statement = "SELECT email_key(e) FROM json_array_elements_text(CAST(:addresses AS json)) e"
    return [key for (key,) in connection.run(statement, addresses=json.dumps(addresses))]


def test_migrations_are_in_ascii_so_that_no_clients_encoding_changes_them() -> None:
    assert [file.name for file in FILES if not file.read_text().isascii()] == []


# Databases that were adopted with wrong keys


@pytest.fixture
def adopt(
    postgres: Server, make_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Adopt an old database as the code before 0007 did on PostgreSQL 14 and 15."""

    def adopt(*addresses: str, name: str = "") -> str:
        name = name or make_database(migrated=False)
        postgres.run(f"SET ROLE app; {OLD_DDL}", name)
        for number, address in enumerate(addresses, 1):
            _insert(postgres, name, address, number)
        with monkeypatch.context() as patch:
            load = migrations.load
            patch.setattr(migrations, "load", lambda: [m for m in load() if m.version < 7])
            columns = {n: column for n, column in TABLES[USERS].columns.items() if column.since < 7}
            patch.setitem(TABLES, USERS, replace(TABLES[USERS], columns=columns))
            bring_up_to_date(_url(postgres, name), DatabaseSettings())
        if postgres.version >= 16:  # Where \v is no letter v.
            postgres.run(_MUTILATE, name)
        return name

    return adopt


_MUTILATE = """
UPDATE users SET email_key = NULL;
UPDATE users SET email_key = lower(btrim(email, E' \\t\\n\\r\\fv')) WHERE id IN (
    SELECT DISTINCT ON (lower(btrim(email, E' \\t\\n\\r\\fv'))) id FROM users
    ORDER BY lower(btrim(email, E' \\t\\n\\r\\fv')),
        email = lower(btrim(email, E' \\t\\n\\r\\fv')) DESC, created_at, id
)
"""


def _insert(server: Server, name: str, address: str, number: int) -> None:
    """Insert as the old server does, with the password "secret"."""
    with server.connect(name) as connection:
        connection.run(
            "INSERT INTO users (id, email, password, created_at)"
            f" VALUES ('{_id(number)}', :email, '{HASH}', '2025-01-{number:02}')",
            email=address,
        )


def _id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def _url(server: Server, name: str) -> DatabaseUrl:
    return DatabaseUrl.parse(server.url(name))


def test_an_owner_whose_key_was_mutilated_logs_in_and_the_mutilated_address_finds_nobody(
    postgres: Server, adopt: Callable[..., str]
) -> None:
    name = adopt(VICTIM, "Vera@Example.com", "eva@example.com")
    assert [VICTIM, STRANGER] in postgres.run(KEYS, name)
    with running_emulator(DATABASE_URL=postgres.url(name)) as emulator, emulator.client() as client:
        for address in (VICTIM, "vera@example.com", "eva@example.com"):
            login = {"email": address, "password": "secret"}
            assert client.post("/api/login", json=login).status_code == 200, address
            again = login | {"password": "another long passphrase"}
            assert client.post("/api/signup", json=again).status_code == 409, address
        login = {"email": STRANGER, "password": "another long passphrase"}
        assert client.post("/api/signup", json=login).status_code == 201
        corrected = [line["corrected"] for line in emulator.log() if "corrected" in line]
    assert sum(corrected) >= 1
    assert [[address, email_key(address)] for address, _ in postgres.run(KEYS, name)] == (
        postgres.run(KEYS, name)
    )


def test_keys_that_stood_in_each_others_way_all_come_right(
    postgres: Server, adopt: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(email_keys, "BATCH", 1)
    addresses = ("Vvada@example.com", "vada@example.com", "ada@example.com", "Ada@example.comv")
    name = adopt(*addresses)
    bring_up_to_date(_url(postgres, name), DatabaseSettings())
    assert dict(postgres.run(KEYS, name)) == {address: email_key(address) for address in addresses}


def test_of_two_rows_with_one_key_the_one_who_has_it_keeps_it_and_the_other_is_named(
    postgres: Server, adopt: Callable[..., str], tmp_path: Path
) -> None:
    name = adopt("Victim@Example.dev", "Ada@example.com", "ada@example.com")
    postgres.run(f"UPDATE users SET email_key = 'ictim@example.de' WHERE id = '{_id(1)}'", name)
    # The owner could not log in, and signed up again.
    twin = _id(9)
    postgres.run(
        f"INSERT INTO users (id, email, email_key) VALUES ('{twin}', '{VICTIM}', '{VICTIM}')", name
    )
    ended = run(postgres.url(name), tmp_path / "users.json", "schema", "apply")
    assert ended.code == 0, ended.error
    assert f"{_id(1)}: {twin} has it" in ended.output
    assert f"{_id(2)}: {_id(3)} has it" in ended.output
    assert "Victim" not in ended.output
    assert dict(postgres.run(KEYS, name)) == {
        "Victim@Example.dev": None,
        VICTIM: VICTIM,
        "Ada@example.com": None,
        "ada@example.com": "ada@example.com",
    }


def test_a_stranger_loses_identity_password_and_sessions_of_a_damaged_user(
    postgres: Server, adopt: Callable[..., str], tmp_path: Path
) -> None:
    name = adopt(VICTIM, "vera@example.com", "grace@example.com")
    postgres.run("UPDATE users SET password = 'of the stranger or the owner'", name)
    for number, subject in ((1, "a stranger"), (3, "Grace herself")):
        postgres.run(
            "INSERT INTO identities (issuer, subject, user_id)"
            f" VALUES ('{GOOGLE.issuer}', '{subject}', '{_id(number)}')",
            name,
        )
    ended = run(postgres.url(name), tmp_path / "users.json", "schema", "apply")
    assert ended.code == 0, ended.error
    assert f"{_id(1)}: {GOOGLE.issuer} a stranger" in ended.output
    assert postgres.run("SELECT email, epoch, password FROM users ORDER BY email", name) == [
        ["grace@example.com", 0, "of the stranger or the owner"],
        ["vera@example.com", 0, "of the stranger or the owner"],
        [VICTIM, 1, None],
    ]
    assert postgres.run("SELECT subject FROM identities", name) == [["Grace herself"]]
    events = "SELECT kind, user_id::text FROM auth_events"
    assert postgres.run(events, name) == [["identity_unlinked", _id(1)]]
    # It is still told when somebody else has repaired the keys.
    ended = run(postgres.url(name), tmp_path / "users.json", "schema", "apply", "--json")
    result = json.loads(ended.output.splitlines()[-1])
    assert [found["user_id"] for found in result["identities_unlinked"]] == [_id(1)]


def test_what_takes_longer_than_a_request_may_is_done_by_hand_and_503_says_so(
    postgres: Server, adopt: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = adopt(*(f"v{number}@example.com" for number in range(1, 9)))
    store = postgres_store(DATABASE_URL=postgres.url(name), SESSION_SECRET="x" * 32)
    with monkeypatch.context() as patch:
        patch.setattr(email_keys, "MIN_SECONDS", 1e9)  # No request has as long.
        for _ in range(2):
            with pytest.raises(StoreRefused, match=r"8 keys .* run `make migrate-schema`"):
                store.user(_id(1))
    store.close()
    assert postgres.run("SELECT count(email_key) FROM users", name) == [[0]]
    bring_up_to_date(_url(postgres, name), DatabaseSettings())
    assert postgres.run("SELECT count(email_key) FROM users", name) == [[8]]


def test_what_is_cut_off_between_two_batches_goes_on_where_it_was(
    postgres: Server, adopt: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(email_keys, "BATCH", 1)
    name = adopt(VICTIM, "vera@example.com", "vava@example.com")

    class Killed(Exception):
        pass

    def kill(_: email_keys.Correction) -> None:
        raise Killed

    with pytest.raises(Killed):
        bring_up_to_date(_url(postgres, name), DatabaseSettings(), corrected=kill)
    bring_up_to_date(_url(postgres, name), DatabaseSettings())
    keys = postgres.run(KEYS, name)
    assert keys == [[address, email_key(address)] for address, _ in keys]


def test_whom_the_old_server_is_just_adding_while_keys_are_repaired_has_the_right_key_too(
    postgres: Server, adopt: Callable[..., str]
) -> None:
    name = adopt("eva@example.com")
    with postgres.connect(name) as old_server:
        old_server.run(
            f"BEGIN; INSERT INTO users (id, email, email_key) VALUES ('{_id(2)}', '{VICTIM}',"
            f" '{STRANGER}')"  # As the trigger of 0002 does where \\v is the letter v.
        )
        with suppress(StoreUnavailable):
            bring_up_to_date(_url(postgres, name), DatabaseSettings())
        old_server.run("COMMIT")
    bring_up_to_date(_url(postgres, name), DatabaseSettings())
    assert [VICTIM, VICTIM] in postgres.run(KEYS, name)


def test_keys_with_characters_that_nobody_sees_are_made_anew_and_a_twin_keeps_its_own(
    postgres: Server, make_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a release before 0009 made them of addresses that somebody had copied."""
    name = make_database(migrated=False)
    with monkeypatch.context() as patch:
        load = migrations.load
        patch.setattr(migrations, "load", lambda: [m for m in load() if m.version < 9])
        bring_up_to_date(_url(postgres, name), DatabaseSettings())
    addresses = [
        "\u200bada@example.com",
        "bob@example.com\ufeff",
        "bob@example.com",
        "a\u200bb@x.de",
    ]
    for number, address in enumerate(addresses, 1):
        with postgres.connect(name) as connection:
            connection.run(
                "INSERT INTO users (id, email, email_key, password, updated_at)"
                f" VALUES ('{_id(number)}', :email, :key, '{HASH}', '2025-01-01 00:00Z')",
                email=address,
                key=address,
            )
    with running_emulator(DATABASE_URL=postgres.url(name)) as emulator, emulator.client() as client:
        login = {"email": "ada@example.com", "password": "secret"}
        assert client.post("/api/login", json=login).status_code == 200
        assert (
            client.post("/api/signup", json=login | {"password": "another one"}).status_code == 409
        )
        assert [(line["corrected"], line["without_key"]) for line in emulator.log()
                if "corrected" in line] == [(2, 1)]  # fmt: skip
    assert postgres.run("SELECT email_key FROM users ORDER BY id", name) == [
        ["ada@example.com"], [None], ["bob@example.com"], ["ab@x.de"],
    ]  # fmt: skip
    untouched = "SELECT count(*) FROM users WHERE updated_at = '2025-01-01 00:00Z'"
    assert postgres.run(untouched, name) == [[4]]


def test_a_key_that_a_trigger_of_the_operators_swallows_is_told_and_nobody_is_locked_out(
    postgres: Server, make_database: Callable[..., str]
) -> None:
    name = make_database(migrated=False)
    postgres.run(f"SET ROLE app; {OLD_DDL}", name)
    _insert(postgres, name, "ada@example.com", 1)
    postgres.run(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER keep BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION keep()",
        name,
    )
    with pytest.raises(StoreRefused, match="drop the trigger or the rule on users"):
        bring_up_to_date(_url(postgres, name), DatabaseSettings())
    postgres.run("DROP TRIGGER keep ON users", name)
    bring_up_to_date(_url(postgres, name), DatabaseSettings())
    assert postgres.run(KEYS, name) == [["ada@example.com", "ada@example.com"]]


def test_who_may_only_add_users_can_have_nobody_cut_off(postgres: Server, database: str) -> None:
    postgres.run("CREATE ROLE earlier; GRANT INSERT (id, email) ON users TO earlier", database)
    try:
        add = f"INSERT INTO users (id, email) VALUES ('{_id(1)}', 'ada@xn--bcher-kva.example')"
        postgres.run(f"SET ROLE earlier; {add}", database)
        with pytest.raises(pg8000.exceptions.DatabaseError, match="permission denied"):
            postgres.run(
                "SET ROLE earlier; INSERT INTO pending_email_keys (user_id, former_key)"
                f" VALUES ('{_id(2)}', 'a wrong key')",
                database,
            )
        pending = "SELECT user_id::text, former_key FROM pending_email_keys"
        assert postgres.run(pending, database) == [[_id(1), None]]
    finally:
        postgres.run("DROP OWNED BY earlier; DROP ROLE earlier", database)


def test_in_a_database_of_the_c_locale_an_address_that_the_old_server_adds_has_its_key(
    postgres: Server, adopt: Callable[..., str]
) -> None:
    name = "locale_c"
    postgres.run(f"CREATE DATABASE {name} OWNER app TEMPLATE template0 {_c_locale(postgres)}")
    adopt("ÜMLAUT@Example.de", name=name)
    postgres.run("UPDATE users SET email_key = 'Ümlaut@example.de'", name)  # As C lowers it.
    with running_emulator(DATABASE_URL=postgres.url(name)) as emulator, emulator.client() as client:
        client.get("/api/health")
        _insert(postgres, name, "ÖZGE@Example.com", 2)
        for address in ("ümlaut@example.de", "özge@example.com"):
            login = {"email": address, "password": "secret"}
            assert client.post("/api/login", json=login).status_code == 200, address
            login["password"] = "another long passphrase"
            assert client.post("/api/signup", json=login).status_code == 409, address


def test_an_address_that_sql_cannot_judge_gets_its_key_when_an_instance_cleans_up(
    postgres: Server, database: str
) -> None:
    _insert(postgres, database, "Ada@XN--BCHER-KVA.example", 1)
    assert postgres.run(KEYS, database) == [["Ada@XN--BCHER-KVA.example", None]]
    store = postgres_store(DATABASE_URL=postgres.url(database))
    store.clean_up()
    store.close()
    assert postgres.run(KEYS, database) == [["Ada@XN--BCHER-KVA.example", "ada@bücher.example"]]
    assert postgres.run("SELECT count(*) FROM pending_email_keys", database) == [[0]]


RESTORE = "SET session_replication_role = replica; INSERT INTO users (id, email, password) VALUES"


@pytest.mark.parametrize("by_hand", [True, False])
def test_who_was_restored_past_the_triggers_is_found_by_their_address(
    postgres: Server, database: str, by_hand: bool
) -> None:
    addresses = ("Ada@Example.com", "ada@example.com", "Bob@Example.com")
    for number, address in enumerate(addresses, 1):
        postgres.run(f"{RESTORE} ('{_id(number)}', '{address}', '{HASH}')", database)
    if by_hand:
        bring_up_to_date(_url(postgres, database), DatabaseSettings())
    store = postgres_store(DATABASE_URL=postgres.url(database))
    store.clean_up()
    assert dict(postgres.run(KEYS, database)) == {
        "Ada@Example.com": None,
        "ada@example.com": "ada@example.com",
        "Bob@Example.com": "bob@example.com",
    }
    postgres.run("DELETE FROM users WHERE email = 'ada@example.com'", database)
    store.clean_up()
    store.close()
    assert ["Ada@Example.com", "ada@example.com"] in postgres.run(KEYS, database)


def test_the_old_servers_role_adds_users_where_new_functions_are_not_everybodys(
    postgres: Server, make_database: Callable[..., str]
) -> None:
    name = make_database(migrated=False)
    postgres.run(
        "ALTER DEFAULT PRIVILEGES FOR ROLE app REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;"
        f"SET ROLE app; {OLD_DDL} RESET ROLE; CREATE ROLE elder; GRANT ALL ON users TO elder",
        name,
    )
    try:
        bring_up_to_date(_url(postgres, name), DatabaseSettings())
        postgres.run("SET ROLE elder; INSERT INTO users (email) VALUES ('Ada@example.com')", name)
        assert postgres.run(KEYS, name) == [["Ada@example.com", "ada@example.com"]]
    finally:
        postgres.run("DROP OWNED BY elder; DROP ROLE elder", name)


def test_a_database_that_is_not_in_utf8_is_refused_by_name(postgres: Server) -> None:
    postgres.run(
        "CREATE DATABASE latin OWNER app TEMPLATE template0 ENCODING 'LATIN1' "
        + _c_locale(postgres)
    )
    with pytest.raises(StoreRefused, match="encoded in LATIN1, and must be in UTF8"):
        bring_up_to_date(_url(postgres, "latin"), DatabaseSettings())
