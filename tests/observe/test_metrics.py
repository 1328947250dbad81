"""What a process counts and times, as Prometheus reads it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from shared.observe.metrics import BUCKETS, Series
from tests.support.emulator import Emulator, running_emulator
from tests.support.postgres import Server
from tests.support.relay import Relay
from tests.support.waiting import until

TOKEN = "bWV0cmljcyBvZiB0aGUgdGVzdHMgb25seSwgb2theSBhcyBpcw"
ADA = {"email": "ada@example.com", "password": "correct horse battery staple"}
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def _scrape(client: httpx.Client) -> Samples:
    response = client.get("/api/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def _requests(found: Samples) -> dict[tuple[str, str, str], float]:
    """Count requests by function, status and outcome, but for scrapes and probes."""
    return {
        (labels["function"], labels["status"], labels["outcome"]): value
        for (name, pairs), value in found.items()
        if name == "http_server_request_duration_seconds_count"
        and (labels := dict(pairs))["function"] not in ("metrics", "health")
    }


@pytest.fixture
def on_json(tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of an emulator on the JSON store."""
    users_file = str(tmp_path / "users.json")
    settings = {"USERS_FILE": users_file, "ADMIN_TOKEN": TOKEN}
    with running_emulator(**settings) as running, running.client() as client:
        yield client


@pytest.fixture
def on_postgres(postgres: Server, database: str, relay: Relay) -> Iterator[Emulator]:
    """An emulator whose database is behind the relay, with one connection."""
    with running_emulator(
        DATABASE_URL=postgres.url(database, port=relay.port, **postgres.direct_tls),
        DATABASE_MAX_CONNECTIONS="1",
        DATABASE_SLOW_QUERY="0.2",
        ADMIN_TOKEN=TOKEN,
    ) as running:
        yield running


def test_each_request_is_counted_once_by_function_status_and_outcome(
    on_json: httpx.Client,
) -> None:
    on_json.post("/api/signup", json=ADA)
    for _ in range(3):
        on_json.post("/api/login", json=ADA | {"password": "wrong"})
    on_json.post("/api/login", json=ADA)
    on_json.get("/api/user")
    on_json.get("/api/nothing/here")
    on_json.put("/api/login")
    on_json.post("/api/login", content=b"{")
    assert _requests(_scrape(on_json)) == {
        ("signup", "201", "ok"): 1,
        ("login", "401", "invalid_credentials"): 3,
        ("login", "200", "ok"): 1,
        ("session", "200", "ok"): 1,
        ("none", "404", "not_found"): 1,
        ("login", "405", "method_not_allowed"): 1,
        ("login", "415", "unsupported_media_type"): 1,
    }


def test_the_hashes_of_sign_ups_and_logins_are_timed(on_json: httpx.Client) -> None:
    on_json.post("/api/signup", json=ADA)
    for password in ("wrong", ADA["password"]):
        on_json.post("/api/login", json=ADA | {"password": password})
    found = _scrape(on_json)
    for operation, count in (("hash", 1), ("verify", 2)):
        labels = (("operation", operation),)
        assert found["password_hash_duration_seconds_count", labels] == count
        assert found["password_hash_duration_seconds_sum", labels] > 0
        assert found["password_hash_duration_seconds_bucket", (("le", "+Inf"), *labels)] == count
    assert found["password_place_wait_time_seconds_count", (("outcome", "served"),)] == 3
    assert found["password_places_held", ()] == found["password_places_waiting", ()] == 0


@pytest.mark.tcp("it counts what PostgreSQL's wire sees")
def test_statements_connects_and_round_trips_are_those_that_the_wire_sees(
    on_postgres: Emulator, postgres: Server, relay: Relay
) -> None:
    with on_postgres.client() as client:
        client.post("/api/signup", json=ADA)
        client.post("/api/login", json=ADA)
        before, flights = _scrape(client), relay.flights
        client.post("/api/login", json=ADA | {"password": "wrong"})
        client.get("/api/health")
        assert relay.flights - flights == 2
        found = _scrape(client)
    assert found["db_client_round_trips_total", ()] == before["db_client_round_trips_total", ()] + 2
    # Of a connection, TCP's and TLS's own trips are not ours; login and the schema's check are.
    handshake = 2 if postgres.direct_tls else 3
    assert relay.flights - found["db_client_round_trips_total", ()] == handshake
    assert found["db_client_connection_create_time_seconds_count", (("outcome", "ok"),)] == 1
    counts = {
        dict(labels)["statement"]: value
        for (name, labels), value in found.items()
        if name == "db_client_operation_duration_seconds_count"
    }
    assert counts == {
        "reserve_sign_up": 1,
        "create": 1,
        "begin_login": 2,
        "end_login": 1,
        "pending_email_keys": 1,
        "clean_up": 1,
        "roll_up": 1,
        "health": 1,
    }
    assert found["db_client_connections", ()] == found["db_client_connections_idle", ()] == 1
    assert found["db_client_away", ()] == 0


def test_a_scrape_asks_the_database_nothing(on_postgres: Emulator, relay: Relay) -> None:
    with on_postgres.client() as client:
        for _ in range(3):
            found = _scrape(client)
    assert relay.connections == found["db_client_round_trips_total", ()] == 0


@pytest.mark.tcp("connections to the database are the proxy's")
def test_an_outage_shows_and_its_end_too(on_postgres: Emulator, relay: Relay) -> None:
    with on_postgres.client() as client:
        client.post("/api/signup", json=ADA)
        relay.hang_up = 10**9
        relay.cut()
        assert client.post("/api/login", json=ADA).status_code == 503
        found = _scrape(client)
        assert found["db_client_away", ()] == found["db_client_outages_total", ()] == 1
        assert found["db_client_connection_create_time_seconds_count", (("outcome", "failed"),)]
        relay.hang_up = 0
        until(lambda: _scrape(client)["db_client_away", ()] == 0)
        assert _scrape(client)["db_client_outages_total", ()] == 1


_HAS_CLEANED_UP = """
SELECT FROM pg_stat_activity WHERE datname = current_database() AND usename = 'app'
AND state = 'idle' AND query LIKE '%event_hours%'
"""
"""The connection's last statement is the last one of cleaning up."""


@pytest.mark.tcp("the last statement of its connection is the proxy's")
def test_who_waits_for_a_connection_is_timed_and_a_slow_query_is_logged_by_name(
    on_postgres: Emulator, postgres: Server, database: str
) -> None:
    with on_postgres.client() as client:
        client.post("/api/signup", json=ADA)
        until(lambda: postgres.run(_HAS_CLEANED_UP, database))  # That would be slow, too.
        with postgres.connect(database) as holder, ThreadPoolExecutor(2) as both:
            holder.run("BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
            logins = [both.submit(client.post, "/api/login", json=ADA) for _ in range(2)]
            time.sleep(0.3)  # So long that it is slow.
            holder.run("ROLLBACK")
            assert {login.result().status_code for login in logins} == {200}
        assert _scrape(client)["db_client_connection_wait_time_seconds_count", ()]
    line, *_ = _slow(on_postgres)
    assert line["statement"] == "begin_login"
    assert float(str(line["milliseconds"])) >= 200
    assert line["function"] == "login"
    assert line["request_id"]


def _slow(emulator: Emulator) -> list[dict[str, object]]:
    return [line for line in emulator.log() if line["message"] == "A query was slow"]


def test_only_an_administrator_sees_them(on_json: httpx.Client, tmp_path: Path) -> None:
    assert on_json.get("/api/metrics").status_code == 401
    assert on_json.head("/api/metrics").status_code == 401
    wrong = {"Authorization": f"Bearer {TOKEN}x"}
    assert on_json.get("/api/metrics", headers=wrong).status_code == 401
    users_file = str(tmp_path / "other.json")
    with running_emulator(USERS_FILE=users_file) as unguarded, unguarded.client() as client:
        assert client.get("/api/metrics").status_code == 404


@given(
    values=st.lists(st.floats(0.0001, 9.99), min_size=1), part=st.sampled_from([0.5, 0.95, 0.99])
)
def test_an_estimated_quantile_is_in_the_bucket_of_the_true_one(
    values: list[float], part: float
) -> None:
    series = Series([sum(low < value <= high for value in values) for low, high in _bounds()])
    rank = max(1, -int(-part * len(values) // 1))
    true = sorted(values)[rank - 1]
    found = series.quantile(part)
    (low, high), *_ = [pair for pair in _bounds() if pair[0] < true <= pair[1]]
    assert found is not None
    assert low <= found <= high


def _bounds() -> list[tuple[float, float]]:
    return list(zip((0.0, *BUCKETS), (*BUCKETS, float("inf")), strict=True))


def test_a_quantile_of_nothing_is_none() -> None:
    assert Series().quantile(0.5) is None
