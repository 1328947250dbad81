"""The contract over real HTTP, as the old front end uses it, on both stores."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.emulator import Emulator
from tests.support.in_process import served

PASSWORD = "correct horse battery staple"
Response = httpx.Response


def test_sign_up_answers_with_the_user_and_a_session(emulator: Emulator, address: str) -> None:
    with emulator.client() as client:
        response = client.post(
            "/api/signup", json={"email": address, "password": PASSWORD, "name": " Ada "}
        )
        assert response.status_code == 201
        user = response.json()
        assert user == {
            "id": user["id"],
            "email": address,
            "name": "Ada",
            "provider": "local",
            "emailVerified": False,
        }
        assert client.get("/api/user").json() == user


def test_the_old_front_ends_calls_work_unchanged(emulator: Emulator, address: str) -> None:
    with emulator.client() as client:
        credentials = {"email": address, "password": PASSWORD}
        registered = client.post("/api/register", json=credentials)
        assert registered.status_code == 201
        # The page asks for a login although it already has a session.
        logged_in = client.post("/api/login", json=credentials)
        assert logged_in.status_code == 200
        assert {"id", "email", "provider"} <= logged_in.json().keys()
        assert client.get("/api/user").json() == registered.json() == logged_in.json()
        # No body and no content type.
        logged_out = client.post("/api/logout")
        assert logged_out.status_code == 200
        assert logged_out.json() == {"message": "Logged out successfully"}
        gone = client.get("/api/user")
        assert gone.status_code == 401
        assert gone.json()["error"] == "Not authenticated"


def test_an_address_logs_in_however_it_is_spelled(emulator: Emulator, address: str) -> None:
    with emulator.client() as client:
        client.post("/api/signup", json={"email": address, "password": PASSWORD})
        for spelling in (address.upper(), f"  {address.title()}\n"):
            response = client.post("/api/login", json={"email": spelling, "password": PASSWORD})
            assert response.status_code == 200
            assert response.json()["email"] == address


def test_a_taken_address_is_refused_however_it_is_spelled(emulator: Emulator, address: str) -> None:
    with emulator.client() as client:
        client.post("/api/signup", json={"email": address, "password": PASSWORD})
        response = client.post(
            "/api/signup", json={"email": address.upper(), "password": "another password"}
        )
        assert response.status_code == 409
        assert response.json()["error"] == "User already exists with this email"
        assert response.json()["code"] == "email_taken"
        assert "set-cookie" not in response.headers


def test_unknown_addresses_and_wrong_passwords_get_one_answer(
    emulator: Emulator, address: str
) -> None:
    with emulator.client() as client:
        client.post("/api/signup", json={"email": address, "password": PASSWORD})
        answers = [
            client.post("/api/login", json={"email": email, "password": password})
            for email, password in (
                (address, "wrong password"),
                (f"x{address}", PASSWORD),
                ("not an address", PASSWORD),
            )
        ]
        assert {answer.status_code for answer in answers} == {401}
        sentence = "Invalid email or password. If you have tried several times, wait 15 minutes."
        assert {_normal(answer)[2]["error"] for answer in answers} == {sentence}
        assert len({str(_normal(answer)) for answer in answers}) == 1


def test_the_longest_name_and_address_still_fit_into_a_cookie(
    emulator: Emulator, address: str
) -> None:
    long_address = f"{'é' * 100}{address}"
    with emulator.client() as client:
        body = {"email": long_address, "password": PASSWORD, "name": "😀" * 100}
        response = client.post("/api/signup", json=body)
        assert response.status_code == 201
        assert len(response.headers["Set-Cookie"]) < 4096
        assert client.get("/api/user").json() == response.json()


def test_logging_out_everywhere_takes_a_session_and_a_boolean(emulator: Emulator) -> None:
    with emulator.client() as client:
        assert client.post("/api/logout", json={"everywhere": True}).status_code == 401
        response = client.post("/api/logout", json={"everywhere": "yes"})
    assert response.status_code == 400
    assert response.json()["field"] == "everywhere"


def test_each_login_begins_a_session_of_its_own(emulator: Emulator, address: str) -> None:
    with emulator.client() as client:
        credentials = {"email": address, "password": PASSWORD}
        client.post("/api/signup", json=credentials)
        first = client.cookies["session"]
        client.post("/api/login", json=credentials)
        assert client.cookies["session"] != first


@pytest.mark.parametrize(
    ("body", "field", "sentence"),
    [
        ({"password": PASSWORD}, "email", "Please enter your email"),
        ({"email": "", "password": PASSWORD}, "email", "Please enter your email"),
        ({"email": "a@example.com"}, "password", "Please enter your password"),
        ({"email": 7, "password": PASSWORD}, "email", "The email must be a string"),
        ({"email": "a@example.com", "password": ["x"]}, "password", "must be a string"),
        ({"email": "a@example.com", "password": "short"}, "password", "at least 8 characters"),
        ({"email": "a@example.com", "password": "éééééé"}, "password", "at least 8 characters"),
        ({"email": "no-at-sign", "password": PASSWORD}, "email", "must have an @-sign"),
        ({"email": "a@localhost", "password": PASSWORD}, "email", "not valid"),
        ({"email": f"{'İ' * 200}@example.com", "password": PASSWORD}, "email", "too long"),
        ({"email": f"{'a' * 300}@example.com", "password": PASSWORD}, "email", "too long"),
        ({"email": "a@example.com", "password": PASSWORD, "name": 7}, "name", "must be a string"),
        ({"email": "a@example.com", "password": PASSWORD, "name": "n" * 101}, "name", "100"),
        ({"email": "a@example.com", "password": PASSWORD, "name": "a\x1b[2J"}, "name", "control"),
    ],
)
def test_a_sign_up_that_cannot_be_accepted_names_the_member(
    emulator: Emulator, body: dict[str, Any], field: str, sentence: str
) -> None:
    with emulator.client() as client:
        response = client.post("/api/signup", json=body)
    assert response.status_code == 400
    problem = response.json()
    assert (problem["code"], problem["field"]) == ("invalid_input", field)
    assert sentence in problem["error"]


@pytest.mark.parametrize(
    ("target", "method", "body", "status"),
    [
        ("signup", "POST", {"email": "ada@example.com", "password": PASSWORD}, 201),
        ("login", "POST", {"email": "ada@example.com", "password": PASSWORD}, 401),
        ("logout", "POST", None, 200),
        ("session", "GET", None, 401),
        ("health", "GET", None, 200),
    ],
)
def test_each_function_can_be_served_alone(
    tmp_path: Path, target: str, method: str, body: dict[str, str] | None, status: int
) -> None:
    headers = [("Content-Type", "application/json")] if body else []
    with served(target, USERS_FILE=str(tmp_path / "users.json")) as alone:
        for path in ("/", f"/api/{target}", "/any/path"):
            response = alone.send(method, path, headers, json.dumps(body).encode() if body else b"")
            assert response.status_code == status
            status = 409 if status == 201 else status


def test_health_answers_in_the_old_shape(emulators: dict[str, Emulator]) -> None:
    with emulators["json"].client() as client:
        health = client.get("/api/health").json()
    assert health["database"] == {
        "status": "disconnected",
        "message": "Database not connected",
    }
    with emulators["postgres"].client() as client:
        health = client.get("/api/health").json()
    assert health.keys() == {"status", "timestamp", "database", "environment", "fallback"}
    assert health["fallback"] == {"mode": "off", "since": None, "pending": 0, "snapshot": None}
    assert (health["status"], health["environment"]) == ("OK", "test")
    database = health["database"]
    assert database["status"] == "connected"
    assert database["version"].startswith("PostgreSQL ")
    assert database["pool"].keys() == {"total", "idle", "waiting"}
    assert database["pool"]["total"] >= 1
    for text in (health["timestamp"], database["timestamp"]):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)


def test_livez_tells_nothing_of_the_database(emulator: Emulator) -> None:
    with emulator.client() as client:
        response = client.get("/api/livez")
    assert response.status_code == 200
    assert response.json().keys() == {"status", "timestamp"}


def _calls(address: str) -> list[Callable[[httpx.Client], Response]]:
    credentials = {"email": address, "password": PASSWORD, "name": "Zoë 😀"}
    wrong = {"email": address, "password": "wrong password"}
    return [
        lambda client: client.get("/api/user"),
        lambda client: client.post("/api/login", json=credentials),
        lambda client: client.post("/api/signup", json=credentials),
        lambda client: client.post("/api/register", json=credentials),
        lambda client: client.get("/api/session"),
        lambda client: client.head("/api/user"),
        lambda client: client.post("/api/login", json=credentials),
        lambda client: client.post("/api/login", json=wrong),
        lambda client: client.post("/api/signup", json={"email": address}),
        lambda client: client.get("/api/login"),
        lambda client: client.delete("/api/user"),
        lambda client: client.get("/api/nothing"),
        lambda client: client.get("/api/livez"),
        lambda client: client.post("/api/logout"),
        lambda client: client.post("/api/logout", json={}),
        lambda client: client.get("/api/user"),
    ]


def test_both_stores_answer_alike(emulators: dict[str, Emulator], address: str) -> None:
    with emulators["json"].client() as on_json, emulators["postgres"].client() as on_postgres:
        for call in _calls(address):
            assert _normal(call(on_json)) == _normal(call(on_postgres))


def _normal(response: Response) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Give what an answer says, without what must differ: ids, times and tokens."""
    body: dict[str, Any] = response.json() if response.content else {}
    for name in ("id", "request_id", "timestamp"):
        if name in body:
            body[name] = f"some {name}"
    headers = {
        name: re.sub(r"=ey[^;]+|Expires=[^;]+", "=some token", value)
        for name, value in response.headers.items()
        if name not in ("date", "x-request-id")
    }
    return response.status_code, headers, body
