"""A checkout with CRLF and one with LF see the same migrations, whichever of them applied them."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from shared.database import migrations
from shared.database.pool import Database
from shared.database.settings import DatabaseSettings
from shared.database.url import DatabaseUrl
from shared.errors import StoreRefused
from shared.store.postgres.preparation import prepare
from tests.support.emulator import ROOT
from tests.support.postgres import Server


@pytest.fixture
def crlf(tmp_path: Path) -> Path:
    """The migrations as `core.autocrlf=true` checks them out."""
    folder = Path(shutil.copytree(ROOT / "migrations", tmp_path / "migrations"))
    for path in folder.glob("*.sql"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    return folder


def _edit(folder: Path) -> None:
    path = min(folder.glob("*.sql"))
    path.write_bytes(path.read_bytes() + b"-- edited\r\n")


@pytest.mark.parametrize("recorded", ["lf", "crlf"])
def test_migrations_applied_from_either_checkout_are_applied_to_both_and_an_edit_is_seen(
    postgres: Server,
    make_database: Callable[..., str],
    crlf: Path,
    monkeypatch: pytest.MonkeyPatch,
    recorded: str,
) -> None:
    name = make_database(migrated=True)
    if recorded == "crlf":  # As an older release recorded its own checkout.
        for path in crlf.glob("*.sql"):
            checksum = hashlib.sha256(path.read_bytes()).hexdigest()
            postgres.run(
                f"UPDATE schema_migrations SET checksum = '{checksum}' WHERE name = '{path.name}'",
                name,
            )
    load = migrations.load
    database = Database(DatabaseUrl.parse(postgres.url(name)), DatabaseSettings())
    deadline = time.monotonic() + 60
    with database.direct_connection(deadline) as connection:
        for folder in (ROOT / "migrations", crlf):
            monkeypatch.setattr(migrations, "load", partial(load, folder))
            assert {item.state for item in migrations.status(connection)} == {"applied"}
            prepare(database, connection, deadline, apply=True)
        _edit(crlf)
        assert migrations.status(connection)[0].state == "edited"
        with pytest.raises(StoreRefused, match=r"0001_users\.sql was edited"):
            prepare(database, connection, deadline, apply=True)


def test_the_sql_that_is_run_has_no_carriage_returns(crlf: Path) -> None:
    assert migrations.load(crlf) == migrations.load(ROOT / "migrations")


def test_a_checkout_has_lf_whatever_git_is_told() -> None:
    files = subprocess.run(
        ["git", "ls-files", "--eol"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert files
    for line in files:
        fields, _, path = line.partition("\t")
        index, _, attributes = fields.split(maxsplit=2)
        is_binary = index == "i/-text"
        assert is_binary or index in ("i/lf", "i/none"), path
        assert ("-text" if is_binary else "eol=lf") in attributes, path
