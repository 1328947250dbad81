"""The move over HTTP: for administrators, streamed, and without a hash or an address."""

from __future__ import annotations

import itertools
import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.emulator import ROOT, Emulator, running_emulator
from tests.support.forged import KEY
from tests.support.google import AUDIENCE, SERVICE_ACCOUNT, certificate_server
from tests.support.postgres import Server
from tests.support.transfers import HASH, Target, user
from tests.support.waiting import until

TOKEN = "QWRtaW4gb2YgdGhlIHRlc3RzLCBub2JvZHkgZWxzZSBhdCBhbGw"
ADMIN = {"Authorization": f"Bearer {TOKEN}"}
Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def target(postgres: Server, make_database: Callable[..., str]) -> Target:
    return Target(postgres, make_database())


@pytest.fixture(scope="module")
def served(target: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """The whole API, with the old server's users in USERS_FILE."""
    folder = tmp_path_factory.mktemp("migrate")
    data = (Path(__file__).parents[1] / "data" / "old-users.json").read_bytes()
    (folder / "users.json").write_bytes(data)
    with (
        certificate_server(tmp_path_factory.mktemp("google"), KEY) as google,
        running_emulator(
            source=f"{ROOT}/tests/support/admin_functions.py",
            target="routed",
            ADMIN_TOKEN=TOKEN,
            ADMIN_AUDIENCE=AUDIENCE,
            ADMIN_SERVICE_ACCOUNT=SERVICE_ACCOUNT,
            TEST_CERTIFICATES_URL=google.url,
            SSL_CERT_FILE=str(google.authority.certificate),
            DATABASE_URL=target.server.url(target.name),
            USERS_FILE=str(folder / "users.json"),
        ) as emulator,
    ):
        yield emulator


@pytest.fixture(autouse=True)
def _empty(target: Target) -> None:
    target.run("TRUNCATE users, identities, import_batches, import_records")


def _post(emulator: Emulator, **options: Any) -> httpx.Response:
    with emulator.client(headers=ADMIN) as client:
        return client.post("/api/migrate", **options)


def _lines(response: httpx.Response) -> Lines:
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


def _do(emulator: Emulator, **body: Any) -> Lines:
    return _lines(_post(emulator, json=body))


def _send(emulator: Emulator, rows: Any, **query: Any) -> Lines:
    options = {"params": query, "headers": {"Content-Type": "application/json"}}
    return _lines(_post(emulator, content=json.dumps(rows).encode(), **options))


def test_the_whole_move_of_the_configured_file(served: Emulator, target: Target) -> None:
    *_, planned = _do(served, action="plan")
    assert planned["counts"]["new"] == 17
    assert target.users() == {}
    *_, applied = _do(served, action="apply", plan=planned["plan"])
    assert applied["counts"] == planned["counts"]
    assert len(target.users()) == 17
    *_, verified = _do(served, action="verify")
    assert verified["differing"] == 0
    *_, status = _do(served, action="status")
    assert status["users"] == 17
    assert status["batches"][0]["id"] == applied["batch"]
    assert status["batches"][0]["run_by"] == "admin token"
    *_, rolled_back = _do(served, action="rollback", batch=applied["batch"])
    assert rolled_back["counts"]["removed"] == 17
    assert target.users() == {}


def test_users_in_the_body_are_reported_by_row_number_without_hash_or_address(
    served: Emulator, target: Target
) -> None:
    rows = [user(1), user(2, password=f"{HASH}x"), user(3, email="USER1@example.com")]
    lines = _send(served, rows, action="apply")
    assert lines[-1]["event"] == "error"
    assert (lines[-1]["status"], lines[-1]["code"]) == (409, "rows_rejected")
    assert target.users() == {}
    lines = _send(served, rows, action="apply", skip_invalid="true")
    outcomes = [line for line in lines if line["event"] == "outcome"]
    assert [(line["row"], line["verdict"]) for line in outcomes] == [
        (2, "invalid"),
        (3, "duplicate"),
    ]
    assert lines[-1]["counts"]["new"] == 1
    for text in (json.dumps(lines), served.output()):
        assert "$2a$" not in text
        assert "example.com" not in text
    assert len(target.users()) == 1


def test_googles_token_for_the_service_account_works_and_is_named_in_the_batch(
    served: Emulator, target: Target
) -> None:
    with served.client(headers={"Authorization": f"Bearer {KEY.token()}"}) as client:
        lines = _lines(client.post("/api/migrate", json={"action": "apply"}))
    assert lines[-1]["counts"]["new"] == 17
    ((run_by,),) = target.psql("SELECT run_by FROM import_batches")
    assert run_by.startswith("Google's subject ")


@pytest.mark.parametrize(
    "authorization",
    [None, "Bearer", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer é"],
)
def test_without_the_right_credentials_nothing_is_told_or_done(
    served: Emulator, target: Target, authorization: str | None
) -> None:
    headers = [] if authorization is None else [(b"Authorization", authorization.encode())]
    with served.client() as client:
        answer = client.post("/api/migrate", json={"action": "apply"}, headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"] == "Administrator credentials are required"
    assert target.users() == {}


def test_another_service_account_is_forbidden(served: Emulator) -> None:
    token = KEY.token({"email": "other@project.iam.gserviceaccount.com"})
    with served.client(headers={"Authorization": f"Bearer {token}"}) as client:
        assert client.post("/api/migrate", json={"action": "status"}).status_code == 403


def test_without_an_administrator_there_is_no_such_address(emulator: Emulator) -> None:
    with emulator.client(headers=ADMIN) as client:
        answer = client.post("/api/migrate", json={"action": "status"})
        unknown = client.post("/api/nothing", json={"action": "status"})
    assert answer.status_code == unknown.status_code == 404
    assert answer.json() | {"request_id": ""} == unknown.json() | {"request_id": ""}


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({"json": {"action": "fly"}}, 400, "invalid_input"),
        ({"json": {"action": ["plan"]}}, 400, "invalid_input"),
        ({"json": {}}, 400, "invalid_input"),
        ({"json": {"action": "rollback"}}, 400, "invalid_input"),
        ({"json": {"action": "rollback", "batch": 1}}, 400, "invalid_input"),
        ({"json": {"action": "rollback", "batch": "x"}}, 409, "transfer_refused"),
        ({"json": {"action": "apply", "plan": 1}}, 400, "invalid_input"),
        ({"json": {"action": "apply", "users": [1] * 10_000}}, 413, "body_too_large"),
        ({"json": [1]}, 400, "invalid_json"),
        ({"content": b""}, 415, "unsupported_media_type"),
        ({"json": {"action": "apply"}, "params": {"plan": "0"}}, 400, "invalid_input"),
        ({"params": [("action", "apply"), ("action", "status")]}, 400, "invalid_input"),
        ({"params": {"action": "rollback", "batch": "\0"}}, 400, "invalid_input"),
        ({"content": b"x", "params": {"action": "plan"}}, 415, "unsupported_media_type"),
    ],
)
def test_a_call_that_asks_for_nothing_sensible_gets_a_problem(
    served: Emulator, options: dict[str, Any], status: int, code: str
) -> None:
    answer = _post(served, **options)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_an_option_that_it_does_not_know_is_refused_be_it_a_path(served: Emulator) -> None:
    for name in ("source", "users_file", "sha256"):
        answer = _post(served, json={"action": "plan", name: "/etc/passwd"})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input")


def test_odd_members_are_counted_because_their_names_may_be_addresses(served: Emulator) -> None:
    *_, result = _send(served, [user(1, **{"ada@example.com": 1})], action="plan")
    assert result["unknown_members"] == 1


@pytest.mark.parametrize("action", ["apply", "verify"])
def test_users_of_whom_none_can_be_imported_end_in_an_error(served: Emulator, action: str) -> None:
    *_, result = _send(served, [{"title": "a post"}], action=action, skip_invalid="true")
    assert (result["event"], result["code"]) == ("error", "rows_rejected")
    assert result["error"] == "No row of 1 is a valid user: is this a file of users?"


@pytest.mark.parametrize("body", [b"", b"[", b'[{"id": 1},', b"no json", b"[1] 2", b"\xff"])
def test_a_body_that_is_no_users_file_changes_nothing(
    served: Emulator, target: Target, body: bytes
) -> None:
    answer = _post(
        served,
        content=body,
        params={"action": "apply", "skip_invalid": "true"},
        headers={"Content-Type": "application/json"},
    )
    last = json.loads(answer.text.splitlines()[-1])
    assert (last["status"], last["code"]) == (400, "invalid_source")
    assert target.users() == {}


def test_a_client_that_hangs_up_in_the_middle_leaves_nothing(
    served: Emulator, target: Target
) -> None:
    port = int(served.url.rpartition(":")[2])
    rows = json.dumps([user(number) for number in range(20_000)]).encode()
    head = (
        f"POST /api/migrate?action=apply HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(rows)}\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head + rows[: len(rows) // 2])
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    query = f"SELECT FROM pg_stat_activity WHERE datname = '{target.name}' AND usename = 'app'"
    until(lambda: not target.run(query))
    assert target.users() == {}
    *_, result = _send(served, [user(1)], action="apply")
    assert result["counts"]["new"] == 1


def test_a_body_of_fifteen_megabytes_is_not_held_in_memory(
    served: Emulator, target: Target
) -> None:
    def body() -> Iterator[bytes]:
        for number in itertools.count():
            yield (json.dumps(user(number, name="x" * 200)) + "\n").encode()
            if number == 30_000:
                return

    options = {
        "params": {"action": "apply"},
        "headers": {"Content-Type": "application/x-ndjson"},
    }
    _lines(_post(served, content=b"".join(itertools.islice(body(), 1000)), **options))
    before = _peak(served)
    size = sum(map(len, body()))
    assert size > 13_500_000
    *_, result = _lines(_post(served, content=body(), **options))
    assert (result["counts"]["new"], result["counts"]["identical"]) == (29_001, 1000)
    assert len(target.users()) == 30_001
    assert _peak(served) - before < 8_000_000


def _peak(emulator: Emulator) -> int:
    """Give the most memory that the worker ever had, in bytes."""
    pid = emulator.process.pid
    (worker,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{worker}/status").read_text())
    assert found
    return int(found[1]) * 1024
