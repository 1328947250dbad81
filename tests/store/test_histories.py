"""Random histories of two instances, their database and its outages, against a simple model.

Hypothesis makes them of what users, operators and faults do, and shortens one that fails. The
model knows only what was acknowledged; what Postgres and the files hold is read without the code
under test. `HISTORIES` says how many there are: `make test-long` runs 2,000.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

import shared.database.pool
from shared.database import breaker
from shared.model.sessions import SESSION_SECONDS
from shared.revocations import redis_list
from tests.support.histories import SNAPSHOT_MAX_AGE, Histories, RedisLine, World
from tests.support.outage import ADMIN, running_site
from tests.support.postgres import Server
from tests.support.redis_servers import running_redis
from tests.support.relay import Relay

HISTORIES = int(os.environ.get("HISTORIES", "5"))
STEPS = 40


@pytest.mark.parametrize(
    ("mode", "histories", "has_redis"),
    [
        ("full", HISTORIES, False),
        ("readonly", max(2, HISTORIES // 5), False),
        ("full", HISTORIES // 2 + 1, True),
        pytest.param("full", HISTORIES * 4, False, marks=pytest.mark.long),
        pytest.param("full", HISTORIES * 2, True, marks=pytest.mark.long),
    ],
)
def test_in_every_history_all_that_was_acknowledged_holds(
    mode: str,
    histories: int,
    has_redis: bool,
    postgres: Server,
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setattr(shared.database.pool, "CONNECT_BACKOFF", 0.001)
    monkeypatch.setattr(breaker, "FIRST_PAUSE", 0.005)
    monkeypatch.setattr(breaker, "PAUSE_MAX", 0.02)
    # Of who waits for how long other tests tell.
    monkeypatch.setattr(redis_list, "SECONDS", 5)
    monkeypatch.setattr(redis_list, "PAUSE", 0)
    options = {
        "FALLBACK": mode,
        "ADMIN_TOKEN": ADMIN,
        "SNAPSHOT_INTERVAL": "0.001",
        "SNAPSHOT_MAX_AGE": str(SNAPSHOT_MAX_AGE),
    }
    with ExitStack() as stack:
        sites, redis = [], None
        if has_redis:
            server = stack.enter_context(running_redis(request.getfixturevalue("redis_program")))
            redis = RedisLine(server, stack.enter_context(Relay(server.port)))
            options["REDIS_URL"] = server.url.replace(str(server.port), str(redis.port))
        for name in ("a", "b"):
            folder = tmp_path / name
            folder.mkdir()
            site = running_site(postgres, database, folder, **options)
            sites.append(stack.enter_context(site))
        connection = stack.enter_context(postgres.connect(database))
        Histories.world = world = World(mode, connection, sites, redis)
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + world.offset)
        run_state_machine_as_test(
            Histories,
            settings=settings(
                max_examples=histories,
                stateful_step_count=STEPS,
                deadline=None,
                derandomize="HISTORIES" not in os.environ,
                database=None,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            ),
        )
    assert SESSION_SECONDS > STEPS * SNAPSHOT_MAX_AGE, "no session ends by itself"
