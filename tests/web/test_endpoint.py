"""What `@endpoint` does for every function: methods, who calls, and what runs afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from shared.model import clients
from tests.support.emulator import ROOT, Emulator, running_emulator
from tests.support.in_process import served
from tests.support.waiting import until

ALLOWED = "https://app.example.com"


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator with endpoints of the tests' own, behind one proxy."""
    with _running(tmp_path_factory.mktemp("edge"), trusted_proxies=1) as running:
        yield running


def _running(folder: Path, trusted_proxies: int) -> AbstractContextManager[Emulator]:
    return running_emulator(
        "routed",
        source=f"{ROOT}/tests/support/edge_functions.py",
        USERS_FILE=str(folder / "users.json"),
        ALLOWED_ORIGINS=ALLOWED,
        TRUSTED_PROXIES=str(trusted_proxies),
    )


def test_an_endpoint_of_several_methods_answers_these_and_head(edge: Emulator) -> None:
    with edge.client() as client:
        assert client.get("/api/several").json() == {"method": "GET", "body": {}}
        assert client.head("/api/several").status_code == 200
        assert client.delete("/api/several").json() == {"method": "DELETE", "body": {}}
        for method in ("POST", "PUT", "PATCH", "OPTIONS", "TRACE", "FOO"):
            response = client.request(method, "/api/several")
            assert response.status_code == 405
            assert response.headers["Allow"] == "GET, DELETE, HEAD"


def test_a_preflight_names_all_methods_of_an_endpoint(edge: Emulator) -> None:
    ask = {"Origin": ALLOWED, "Access-Control-Request-Method": "DELETE"}
    with edge.client() as client:
        response = client.options("/api/several", headers=ask)
    assert response.status_code == 204
    assert response.headers["Access-Control-Allow-Methods"] == "GET, DELETE, HEAD"


def test_the_body_is_read_for_methods_other_than_get_and_head(edge: Emulator) -> None:
    with edge.client() as client:
        response = client.request("DELETE", "/api/several", json={"a": 1})
        assert response.json()["body"] == {"a": 1}
        response = client.request("DELETE", "/api/several", content=b"{}")
        assert response.status_code == 415
        for method in ("GET", "HEAD"):
            response = client.request(method, "/api/several", json={"a": 1})
            assert response.status_code == 200
        assert client.request("GET", "/api/several", json={"a": 1}).json()["body"] == {}
        response = client.request("GET", "/api/several", content=b"x" * 20_000)
        assert response.status_code == 413


def test_the_origin_is_checked_for_methods_other_than_get_and_head(edge: Emulator) -> None:
    evil = {"Origin": "https://evil.example"}
    with edge.client() as client:
        assert client.delete("/api/several", headers=evil).status_code == 403
        assert client.get("/api/several", headers=evil).status_code == 200
        assert client.head("/api/several", headers=evil).status_code == 200


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        ([], "127.0.0.1"),
        ([("X-Forwarded-For", "203.0.113.9")], "203.0.113.9"),
        ([("X-Forwarded-For", "10.0.0.1, 203.0.113.9")], "203.0.113.9"),
        ([("X-Forwarded-For", "10.0.0.1"), ("X-Forwarded-For", "203.0.113.9")], "203.0.113.9"),
        ([("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-For", "")], "127.0.0.1"),
        ([("X-Forwarded-For", "203.0.113.9"), ("X_Forwarded_For", "10.0.0.1")], "203.0.113.9"),
        ([("X-Forwarded-For", "1,2,3,4," * 1000 + "203.0.113.9")], "203.0.113.9"),
        ([("X-Forwarded-For", "unknown")], "127.0.0.1"),
        ([("Forwarded", "for=10.0.0.1")], "127.0.0.1"),
        ([("X-Real-IP", "10.0.0.1")], "127.0.0.1"),
        ([("True-Client-IP", "10.0.0.1"), ("X-Client-IP", "10.0.0.1")], "127.0.0.1"),
        ([("X-Forwarded-Host", "10.0.0.1"), ("Via", "1.1 10.0.0.1")], "127.0.0.1"),
    ],
)
def test_the_caller_is_whom_the_trusted_proxy_saw_over_http_too(
    edge: Emulator, headers: list[tuple[str, str]], address: str
) -> None:
    with edge.client() as client:
        response = client.get("/api/client", headers=headers)
    assert response.json() == {"address": address}


def test_without_a_trusted_proxy_no_header_tells_who_calls(tmp_path: Path) -> None:
    with _running(tmp_path, trusted_proxies=0) as edge, edge.client() as client:
        for value in ("203.0.113.9", "203.0.113.9, 203.0.113.10"):
            response = client.get("/api/client", headers={"X-Forwarded-For": value})
            assert response.json() == {"address": "127.0.0.1"}


@pytest.mark.parametrize(
    ("settings", "header", "doubt"),
    [
        ({}, "X-Forwarded-For", clients.UNSET),
        ({}, "X-Real-IP", clients.NOT_APPENDED),
        ({}, "CF-Connecting-IP", clients.NOT_APPENDED),
        ({}, "Via", None),
        ({"TRUSTED_PROXIES": "0"}, "X-Forwarded-For", None),
        ({"TRUSTED_PROXIES": "1"}, "X-Forwarded-For", None),
        ({"TRUSTED_PROXIES": "2"}, "X-Forwarded-For", clients.TOO_MANY),
    ],
)
def test_a_number_of_proxies_that_does_not_fit_is_one_warning_of_a_process(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    settings: dict[str, str],
    header: str,
    doubt: str | None,
) -> None:
    with served(USERS_FILE=str(tmp_path / "users.json"), **settings) as app:
        for path in ("/api/user", "/api/health", "/api/user"):
            app.send("GET", path, [(header, "1.1.1.1")])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    told = [line["message"] for line in lines if "status" not in line]
    assert told == ([doubt] if doubt else [])


@pytest.mark.parametrize(
    ("method", "name", "status"),
    [
        ("GET", "answer", 200),
        ("POST", "posted", 200),
        ("GET", "problem", 401),
        ("GET", "empty", 204),
        ("HEAD", "head", 200),
        ("GET", "stream", 200),
    ],
)
def test_what_runs_afterwards_runs_when_the_client_has_its_whole_answer(
    edge: Emulator, method: str, name: str, status: int
) -> None:
    with edge.client() as client, edge.client() as other:
        response = client.request(method, f"/api/later?name={name}")
        assert response.status_code == status
        # It waits for this, which is sent only now; on a connection that nothing else keeps busy.
        assert other.post(f"/api/opened?name={name}").status_code == 200
    until(lambda: f"{name}: the client" in edge.output())
    assert f"{name}: the client went on" in edge.output()


def test_what_fails_afterwards_is_logged_and_hinders_nobody(edge: Emulator) -> None:
    with edge.client() as client:
        response = client.get("/api/failing")
        assert response.status_code == 200
        until(lambda: "the third ran" in edge.output())
        assert client.get("/api/livez").status_code == 200
    unforeseen, away = (line for line in edge.log() if line["message"] == "failing afterwards")
    for line in (unforeseen, away):
        assert line["severity"] == "ERROR"
        assert line["request_id"] == response.headers["X-Request-Id"]
    assert (unforeseen["exception"], away["cause"]) == ("RuntimeError", "nobody answers")
    assert unforeseen["stack"]
    assert "no line of a log" not in edge.output()
