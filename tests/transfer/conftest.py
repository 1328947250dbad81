"""What the tests of transfers share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.interceptor import Interceptor
from tests.support.postgres import Server


@pytest.fixture
def interceptor(postgres: Server) -> Iterator[Interceptor]:
    with Interceptor(postgres) as running:
        yield running


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The users file of an instance."""
    return tmp_path / "users.json"
