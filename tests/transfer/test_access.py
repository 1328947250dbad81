"""What only reads needs SELECT alone; what lacks a right names it and changes nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.transfer import access
from tests.support.commands import Ended, invoke
from tests.support.emulator import ROOT, SECRET, environment
from tests.support.postgres import PASSWORD, Server, running_standby
from tests.support.reconciliations import sign_up
from tests.support.transfers import Target, user
from tests.support.waiting import until

DOCUMENT = (ROOT / "docs" / "MIGRATION.md").read_text()
(GRANT,) = re.findall(r"```sql\n(GRANT.*?)```", DOCUMENT, re.DOTALL)
ROWS = [user(1, name="Ada"), user(2), user(3, epoch=1)]
CHANGED = [user(1, name="Countess"), user(2), user(4)]
READING: dict[tuple[str, ...], int] = {
    ("plan",): 0,
    ("verify",): 5,
    ("status",): 0,
    ("export",): 0,
    ("schema", "status"): 0,
    ("schema", "plan"): 0,
    ("snapshot",): 0,
}
"""Each command that only reads, and its exit code with CHANGED as its source."""
Run = Callable[..., Ended]


@pytest.fixture
def run(target: Target, tmp_path: Path) -> Run:
    """Run a command in a folder whose users file has CHANGED, of whom ROWS were imported."""
    source = tmp_path / "users.json"
    source.write_text(json.dumps(CHANGED))
    target.apply(ROWS)

    def command(*arguments: str, server: Server = target.server, role: str = "app") -> Ended:
        url = server.url(target.name, user=role)
        variables = environment(DATABASE_URL=url, USERS_FILE=str(source), SESSION_SECRET=SECRET)
        return invoke(arguments, variables)

    return command


@pytest.fixture
def reader(target: Target) -> Iterator[str]:
    """A role that may do what the document grants an auditor, and nothing else."""
    target.run(f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'")
    target.run(GRANT.replace("auditor", "reader"))
    target.run(f"REVOKE TEMPORARY ON DATABASE {target.name} FROM PUBLIC")
    target.run(
        f"ALTER ROLE reader IN DATABASE {target.name} SET default_transaction_read_only = on"
    )
    yield "reader"
    target.run("DROP OWNED BY reader; DROP ROLE reader")


def _result(ended: Ended) -> dict[str, Any]:
    """Read the last line but for what differs in each run."""
    result: dict[str, Any] = json.loads(ended.output.splitlines()[-1])
    if exported := result.pop("path", None):
        Path(exported).unlink()
    return result


def _written(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.suffix not in (".lock", ".json")] + [
        path.name for path in folder.glob("*.*.json")
    ]


def _check_reading(run: Run, **elsewhere: Any) -> None:
    """Check that each command does there what it does as the owner on the primary."""
    for arguments, code in READING.items():
        results = []
        for where in ({}, elsewhere):
            ended = run(*arguments, "--json", **where)
            assert ended.code == code, (arguments, ended.error)
            results.append(_result(ended))
        assert results[0] == results[1], arguments


def test_what_reads_needs_no_right_to_write_and_no_temporary_table(run: Run, reader: str) -> None:
    _check_reading(run, role=reader)


@pytest.mark.long
def test_what_reads_works_on_a_hot_standby_and_what_writes_names_the_primary(
    run: Run, target: Target
) -> None:
    """Also where transactions are serializable by default, which no standby can do."""
    target.run(f"ALTER DATABASE {target.name} SET default_transaction_isolation = 'serializable'")
    with running_standby(target.server) as standby:
        _check_reading(run, server=standby)
        ended = run("schema", "apply", server=standby)
        assert (ended.code, "it is a standby. Name the primary" in ended.error) == (1, True)
        target.run(f"ALTER DATABASE {target.name} RESET default_transaction_isolation")
        until(lambda: "is a standby" in run("apply", "--yes", server=standby).error)
        ended = run("apply", "--yes", server=standby)
        assert ended.code == 1
        assert ended.error.endswith("Nothing was changed.\n")


REFUSED_WRITES = {
    "ALTER ROLE reader IN DATABASE {0} SET default_transaction_read_only = on": "RESET "
    "default_transaction_read_only",
    "ALTER ROLE reader IN DATABASE {0} SET default_transaction_read_only = off": "GRANT TEMPORARY "
    "ON DATABASE {0} TO reader",
    "GRANT TEMPORARY ON DATABASE {0} TO reader": "DELETE ON identities TO reader;",
}
"""What is done, each after the one before, and what is told then."""


def test_what_writes_says_which_right_is_missing_and_changes_nothing(
    run: Run, target: Target, reader: str, tmp_path: Path
) -> None:
    target.run("GRANT SELECT ON pending_email_keys TO reader")
    before = target.dump()
    for sql, sentence in REFUSED_WRITES.items():
        target.run(sql.format(target.name))
        for arguments in (("apply", "--yes"), ("rollback", "some-batch", "--yes")):
            ended = run(*arguments, role=reader)
            assert ended.code == 1, ended.error
            assert sentence.format(target.name) in ended.error
            assert ended.error.endswith("Nothing was changed.\n")
    assert target.dump() == before
    assert not _written(tmp_path)


@pytest.mark.parametrize("of_each", [1, pytest.param(None, marks=pytest.mark.long)])
@pytest.mark.parametrize("deed", ["IMPORT", "ROLLBACK", "RECONCILIATION"])
def test_what_writes_needs_each_right_of_its_table_and_no_other(
    run: Run,
    target: Target,
    reader: str,
    tmp_path: Path,
    monkeypatch: Any,
    deed: str,
    of_each: int | None,
) -> None:
    """Where one lacks it is named; and unless it were asked for, the database would refuse."""
    commands: dict[str, tuple[str, ...]] = {
        "IMPORT": ("apply", "--yes", "--no-report"),
        "ROLLBACK": (
            "rollback",
            str(target.run("SELECT max(id) FROM import_batches")[0][0]),
            "--yes",
        ),
        "RECONCILIATION": ("reconcile",),
    }
    rights: dict[str, tuple[str, ...]] = getattr(access, deed)
    target.run(
        f"ALTER ROLE {reader} IN DATABASE {target.name} RESET ALL;"
        f"GRANT TEMPORARY ON DATABASE {target.name} TO {reader};"
        f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {reader};"
        f"GRANT SELECT ON schema_migrations TO {reader}"
    )
    for table, verbs in rights.items():
        target.run(f"GRANT {', '.join(verbs)} ON {table} TO {reader}")
    sign_up(tmp_path / "pending.json", "new@example.com")
    source = "pending.json" if deed == "RECONCILIATION" else "users.json"

    def command() -> Ended:
        url = target.server.url(target.name, user=reader)
        variables = environment(
            DATABASE_URL=url, USERS_FILE=str(tmp_path / source), AUTO_MIGRATE="false"
        )
        return invoke(commands[deed], variables)

    before = target.dump()
    for table, verbs in rights.items():
        for verb in verbs[::-1][:of_each]:
            target.run(f"REVOKE {verb} ON {table} FROM {reader}")
            ended = command()
            assert ended.code == 1, (table, verb, ended.output)
            assert f"GRANT {verb} ON {table} TO {reader}. Nothing was changed." in ended.error
            with monkeypatch.context() as patch:
                patch.setattr(access, deed, {})
                ended = command()
            assert ended.code == 1, (table, verb, ended.output)
            assert "42501" in ended.error, (table, verb, ended.error)
            target.run(f"GRANT {verb} ON {table} TO {reader}")
    assert target.dump() == before
    ended = command()
    assert ended.code == 0, ended.error


@pytest.mark.parametrize("table", ["users", "identities"])
def test_who_may_not_read_a_table_is_told_the_grant_and_gets_no_file(
    run: Run, target: Target, reader: str, tmp_path: Path, table: str
) -> None:
    target.run(
        f"REVOKE SELECT ON {table} FROM reader; GRANT SELECT (created_at) ON {table} TO reader"
    )
    for arguments in (("plan",), ("verify",), ("export",)):
        ended = run(*arguments, role=reader)
        assert ended.code == 1, ended.output
        assert f"GRANT SELECT ON {table} TO reader." in ended.error
    assert not _written(tmp_path)


@pytest.mark.parametrize("forced", [False, True])
def test_row_security_refuses_what_would_not_see_every_user_and_there_is_no_file(
    run: Run, target: Target, reader: str, tmp_path: Path, *, forced: bool
) -> None:
    """Without a policy nobody is there: an export would be empty, and everybody deleted."""
    before = target.dump()
    role = "app" if forced else reader
    every = [("plan",), ("verify",), ("status",), ("export",), ("snapshot",)]
    commands = {
        "users": [*every, ("apply", "--yes"), ("rollback", "x", "--yes")] if forced else every,
        "identities": [("export",)],
        "revoked_sessions": [("export",)],
        "import_records": [("verify",)],
    }
    for table, refused in commands.items():
        target.run(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        if forced:
            target.run(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        for arguments in refused:
            ended = run(*arguments, role=role)
            assert ended.code == 1, (table, arguments, ended.output)
            assert re.search(rf"[Rr]ow(-level)? security .*\b{table}\b", ended.error), ended.error
        target.run(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY")
    assert not _written(tmp_path)
    assert target.dump() == before


def test_whom_row_security_bypasses_sees_everybody(run: Run, target: Target, reader: str) -> None:
    target.run("ALTER TABLE users ENABLE ROW LEVEL SECURITY; ALTER ROLE reader BYPASSRLS")
    assert run("verify", role=reader).code == READING["verify",]
    assert _result(run("export", "--json", role=reader))["rows"] == len(ROWS)
