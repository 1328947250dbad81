"""One line for each request, without secrets; and what cannot be written undoes none."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from shared.observe import metrics
from tests.support.emulator import running_emulator
from tests.support.in_process import served
from tests.support.waiting import until
from tests.support.wire import JSON

PASSWORD = "correct horse battery staple"


@pytest.mark.parametrize(
    "redirection",
    [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", ">/dev/full", ">/dev/full 2>/dev/full", ">{pipe}"],
)
def test_what_cannot_be_logged_does_not_undo_a_request(tmp_path: Path, redirection: str) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with (
        running_emulator(
            redirection=redirection.format(pipe=pipe), USERS_FILE=str(tmp_path / "users.json")
        ) as mute,
        mute.client() as client,
    ):
        os.close(reader)
        credentials = {"email": "ada@example.com", "password": PASSWORD}
        assert client.post("/api/signup", json=credentials).status_code == 201
        assert client.get("/api/user").status_code == 200
        assert client.post("/api/login", json=credentials).status_code == 200
        assert client.get("/api/nothing").json()["code"] == "not_found"
    users = json.loads((tmp_path / "users.json").read_text())
    assert [user["email"] for user in users] == ["ada@example.com"]


def test_what_cannot_be_logged_does_not_make_a_failure_of_the_end(tmp_path: Path) -> None:
    users = str(tmp_path / "users.json")
    with running_emulator(redirection=">/dev/full", USERS_FILE=users) as mute:
        mute.stop()
        assert (mute.process.returncode, mute.output()) == (0, "")


@pytest.mark.parametrize("broken", ["Alerts.record", "Alerts.is_due", "listener"])
def test_what_cannot_be_counted_does_not_undo_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with served(USERS_FILE=str(tmp_path / "users.json")) as app:
        if broken == "listener":
            monkeypatch.setattr(metrics, "_listeners", [fail])
        else:
            monkeypatch.setattr(f"shared.observe.alerts.{broken}", fail)
        answer = app.post("/api/signup", {"email": "ada@example.com", "password": PASSWORD})
        assert answer.status_code == 201
        assert "ada@example.com" in app.stored_users()


def test_each_request_is_one_json_line_without_secrets(tmp_path: Any) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    users_file = str(tmp_path / "users.json")
    with running_emulator(USERS_FILE=users_file, GOOGLE_CLOUD_PROJECT="my-project") as emulator:
        with emulator.client(headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"}) as client:
            client.post(
                "/api/signup", json={"email": "canary@example.com", "password": "canary-password"}
            )
            token = client.cookies["session"]
            client.get("/api/user?canary=query")
            client.post("/api/login", json={"email": "canary@example.com", "password": "canary-2"})
            client.post("/api/login", content=b'{"canary', headers=JSON)
            client.get("/api/canary%0A%7B%7D")
        until(lambda: len(emulator.log()) >= 5)
        output = emulator.output()
        lines = [json.loads(line) for line in output.splitlines()]
    assert [line["message"] for line in lines[-5:]] == [
        "signup 201",
        "session 200",
        "login 401",
        "login 400",
        "none 404",
    ]
    for line in lines[-5:]:
        assert {"severity", "time", "request_id", "method", "status", "milliseconds"} <= set(line)
        assert line["logging.googleapis.com/trace"] == f"projects/my-project/traces/{trace}"
    assert "canary" not in output
    assert token not in output
    assert "$2b$" not in output
