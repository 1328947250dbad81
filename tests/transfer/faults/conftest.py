"""What every fault happens to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.import_faults import USERS, AskedOften, write
from tests.support.postgres import Server
from tests.support.transfers import Target, user


@pytest.fixture
def target(postgres: Server, database: str) -> Iterator[Target]:
    with closing(AskedOften(postgres, database)) as opened:
        yield opened


@pytest.fixture
def users_file(tmp_path: Path) -> Path:
    """A file of users, the last of whom cannot be brought over."""
    return write(tmp_path / "users.json", [*map(user, range(USERS)), user(USERS, email="nobody")])
